/* What the forward, backward and double backward pass of the epilogue share: how a grid goes over
 * an image, what a thread keeps of the small operands, and how sums over pixels come together.
 *
 * A pass is a body: what to do with N elements that lie side by side. Two walks hand them out.
 * Channels first, `lanes` threads go along a plane, so that d and b are constants of a thread and
 * small planes share a block. Channels last, `lanes` threads go along the channels and each stays
 * with its own while it goes down the pixels, so that d and b stay in its registers. Only the start
 * of a block's share is computed in 64 bits.
 *
 * Sums have fixed parts and a fixed order: shuffles or shared memory within a block, one number for
 * each block and channel in the workspace, a second kernel over those.
 */
#ifndef KERNELS_CUDA_EPILOGUE_CUH
#define KERNELS_CUDA_EPILOGUE_CUH

#include <type_traits>

#include "../valid.h"
#include "blocks.cuh"
#include "convert.cuh"
#include "launch.cuh"

namespace kernels {

/* Sizes, numbers and small operands. */
template <class A>
struct Operands {
    const A *d, *noise, *strength, *b;
    A alpha, gain, clamp;
    int32_t act;
    bool from_output, clamped;
    int32_t n, c;
    int64_t p;
    int64_t noise_stride; /* from the noise of one sample to that of the next: p, or 0 */
};

/* How a grid goes over the image. A part is a block's share of the pixels of a plane. */
struct Walk {
    int32_t log_lanes; /* 2^log_lanes threads go along memory, 256 / 2^log_lanes across it */
    int32_t part;      /* pixels in a part */
    int32_t parts;     /* parts in a plane */
    int32_t chunks;    /* channels last: blocks side by side along the channels */
    int64_t blocks;
};

/* What a kernel is compiled for. Only the piecewise linear activations run on vectors: the others
 * should be bound by their arithmetic, not by memory (not measured), no network here has them, and
 * they would multiply the time to compile. Nor does float64, which checks gradients. */
template <class Storage, int N, bool CHANNELS_LAST>
struct Form {
    using T = Storage;
    using A = Accumulation<T>;
    static constexpr int VALUES = N;
    static constexpr bool LAST = CHANNELS_LAST;
    static constexpr bool PIECEWISE = N > 1;
    static constexpr int CHANNELS = LAST ? N : 1; /* different channels among the N elements */
    static constexpr int PIXELS = LAST ? 1 : N;   /* different pixels */
};

/* --------------------------------------------------------------------- at one element */

/* body(std::integral_constant<int, ACT>) for the activation: one branch for N elements. */
template <bool PIECEWISE, class Body>
__device__ inline void with_act(int act, Body &&body) {
    if (act == KERNELS_LINEAR) return body(std::integral_constant<int, KERNELS_LINEAR>());
    if (act == KERNELS_RELU) return body(std::integral_constant<int, KERNELS_RELU>());
    if (PIECEWISE || act == KERNELS_LRELU) {
        return body(std::integral_constant<int, KERNELS_LRELU>());
    }
    if constexpr (!PIECEWISE) {
        switch (act) {
            case KERNELS_TANH: return body(std::integral_constant<int, KERNELS_TANH>());
            case KERNELS_SIGMOID: return body(std::integral_constant<int, KERNELS_SIGMOID>());
            case KERNELS_ELU: return body(std::integral_constant<int, KERNELS_ELU>());
            case KERNELS_SELU: return body(std::integral_constant<int, KERNELS_SELU>());
            case KERNELS_SOFTPLUS: return body(std::integral_constant<int, KERNELS_SOFTPLUS>());
            default: return body(std::integral_constant<int, KERNELS_SWISH>());
        }
    }
}

/* Comparisons, not fmin and fmax, which would lose NaN. */
template <int ACT, class A>
__device__ inline A output_at(const Operands<A> &o, A u) {
    const A v = o.gain * act_value<ACT>(u, o.alpha);
    if (!o.clamped) return v;
    return v > o.clamp ? o.clamp : (v < -o.clamp ? -o.clamp : v);
}

/* Whether the clamp lets the gradient through. u is y itself where derivatives are read off it. */
template <int ACT, class A>
__device__ inline bool passes(const Operands<A> &o, A u) {
    if (!o.clamped) return true;
    const A v = o.from_output ? u : o.gain * act_value<ACT>(u, o.alpha);
    return std::fabs(v) < o.clamp;
}

/* --------------------------------------------------------------------- what a thread keeps */

template <class F>
struct Channel {
    using A = typename F::A;
    A d[F::CHANNELS], b[F::CHANNELS], strength;

    /* `plane` counts channels over all samples, `channel` within one. */
    __device__ void enter(const Operands<A> &o, int64_t plane, int32_t channel) {
        strength = o.strength ? __ldg(o.strength) : A(0);
        fill(d, A(1));
        fill(b, A(0));
        if (o.d) load(o.d + plane, d);
        if (o.b) load(o.b + channel, b);
    }

    /* What the activation is of; y itself where derivatives are read off it. */
    __device__ A at(const Operands<A> &o, A x, const A (&noise)[F::PIXELS], int i) const {
        if (o.from_output) return x;
        return x * d[F::LAST ? i : 0] + (noise[F::LAST ? 0 : i] * strength + b[F::LAST ? i : 0]);
    }
};

/* Three kinds of sums over pixels: two for each channel, one over everything. */
template <class F>
struct Sums {
    using A = typename F::A;
    A channel[2][F::CHANNELS], all;

    __device__ Sums() : all(0) {
        fill(channel[0], A(0));
        fill(channel[1], A(0));
    }
};

/* --------------------------------------------------------------------- sums within a block */

/* The sum over the 2^log_lanes neighbours of a thread, for each of them. All threads must come. */
template <class A>
__device__ inline A sum_over_lanes(A value, int log_lanes, A *scratch) {
    const int lanes = 1 << log_lanes;
    for (int step = (lanes < 32 ? lanes : 32) / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    if (lanes <= 32) return value;
    const int warp = threadIdx.x / 32;
    const int warps = lanes / 32;
    const int first = warp / warps * warps;
    if (threadIdx.x % 32 == 0) scratch[warp] = value;
    __syncthreads();
    A sum = 0;
    for (int i = 0; i < warps; ++i) sum += scratch[first + i];
    __syncthreads();
    return sum;
}

/* The sums over the threads that lie 2^log_lanes apart; the first of them has the result. */
template <int N, class A>
__device__ inline void sum_over_slots(A (&values)[N], int log_lanes, A (*scratch)[THREADS]) {
    const int thread = threadIdx.x;
#pragma unroll
    for (int i = 0; i < N; ++i) scratch[i][thread] = values[i];
    __syncthreads();
    for (int half = THREADS / 2; half >= 1 << log_lanes; half /= 2) {
        if (thread < half) {
#pragma unroll
            for (int i = 0; i < N; ++i) scratch[i][thread] += scratch[i][thread + half];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = scratch[i][thread];
    __syncthreads();
}

/* --------------------------------------------------------------------- channels first */

template <class F, class A>
__device__ inline void load_noise(const A *noise, int64_t pixel, A (&out)[F::PIXELS]) {
    if (noise) {
        load(noise + pixel, out);
    } else {
        fill(out, A(0));
    }
}

template <class Body>
__device__ inline void over_planes(const typename Body::Arguments &given, const Walk &walk) {
    using F = typename Body::Form;
    using A = typename F::A;
    const Operands<A> &o = given.operands;
    const int lane = threadIdx.x & ((1 << walk.log_lanes) - 1);
    const int slot = threadIdx.x >> walk.log_lanes;
    const uint32_t group = blockIdx.x / walk.parts;
    const uint32_t part = blockIdx.x - group * walk.parts;
    const int64_t planes = static_cast<int64_t>(o.n) * o.c;
    const int64_t plane = static_cast<int64_t>(group) * (THREADS >> walk.log_lanes) + slot;
    const bool inside = plane < planes;
    Body body;
    if (inside) {
        const int32_t sample = static_cast<int32_t>(plane) / o.c;
        body.enter(given, plane, static_cast<int32_t>(plane) - sample * o.c);
        const int64_t first = static_cast<int64_t>(part) * walk.part;
        const int count = static_cast<int>(o.p - first < walk.part ? o.p - first : walk.part);
        const int64_t start = plane * o.p + first;
        const int64_t pixel = sample * o.noise_stride + first;
        const int step = F::VALUES << walk.log_lanes;
#pragma unroll(Body::UNROLL)
        for (int i = lane * F::VALUES; i < count; i += step) {
            A noise[F::PIXELS];
            load_noise<F>(o.noise, pixel + i, noise);
            body.at(given, start + i, noise);
        }
    }
    if constexpr (Body::HAS_SUMS) {
        __shared__ A scratch[THREADS / 32];
        for (int kind = 0; kind < 2; ++kind) {
            if (!given.sums[kind]) continue;
            const A sum = sum_over_lanes(body.sums.channel[kind][0], walk.log_lanes, scratch);
            if (inside && lane == 0) given.sums[kind][part * planes + plane] = sum;
        }
        if (given.sums[2]) {
            const A sum = sum_over_lanes(body.sums.all, 8, scratch);
            if (threadIdx.x == 0) given.sums[2][blockIdx.x] = sum;
        }
    }
}

/* --------------------------------------------------------------------- channels last */

template <class Body>
__device__ inline void over_pixels(const typename Body::Arguments &given, const Walk &walk) {
    using F = typename Body::Form;
    using A = typename F::A;
    const Operands<A> &o = given.operands;
    const int lane = threadIdx.x & ((1 << walk.log_lanes) - 1);
    const int slot = threadIdx.x >> walk.log_lanes;
    const int slots = THREADS >> walk.log_lanes;
    const uint32_t row = blockIdx.x / walk.chunks;
    const int32_t chunk = blockIdx.x - row * walk.chunks;
    const int32_t sample = row / walk.parts;
    const int32_t part = row - sample * walk.parts;
    const int64_t channel = ((static_cast<int64_t>(chunk) << walk.log_lanes) + lane) * F::VALUES;
    const bool inside = channel < o.c;
    const int64_t plane = static_cast<int64_t>(sample) * o.c + channel;
    Body body;
    if (inside) {
        body.enter(given, plane, static_cast<int32_t>(channel));
        const int64_t first = static_cast<int64_t>(part) * walk.part;
        const int count = static_cast<int>(o.p - first < walk.part ? o.p - first : walk.part);
        const int64_t start = (sample * o.p + first) * o.c + channel;
        const int64_t pixel = sample * o.noise_stride + first;
#pragma unroll(Body::UNROLL)
        for (int i = slot; i < count; i += slots) {
            A noise[F::PIXELS];
            load_noise<F>(o.noise, pixel + i, noise);
            body.at(given, start + static_cast<int64_t>(i) * o.c, noise);
        }
    }
    if constexpr (Body::HAS_SUMS) {
        __shared__ A scratch[F::CHANNELS][THREADS];
        const int64_t planes = static_cast<int64_t>(o.n) * o.c;
        for (int kind = 0; kind < 2; ++kind) {
            if (!given.sums[kind]) continue;
            A(&sum)[F::CHANNELS] = body.sums.channel[kind];
            sum_over_slots(sum, walk.log_lanes, scratch);
            if (inside && slot == 0) store(given.sums[kind] + part * planes + plane, sum);
        }
        if (given.sums[2]) {
            const A sum = sum_over_lanes(body.sums.all, 8, scratch[0]);
            if (threadIdx.x == 0) given.sums[2][blockIdx.x] = sum;
        }
    }
}

/* In float64 the compiler would rather spill around its long functions than use registers. */
template <class Body>
constexpr int LEAST_BLOCKS = std::is_same_v<typename Body::Form::A, double> ? 1 : 0;

template <class Body>
__global__ void __launch_bounds__(THREADS, LEAST_BLOCKS<Body>)
    epilogue_kernel(const typename Body::Arguments given, const Walk walk) {
    if constexpr (Body::Form::LAST) {
        over_pixels<Body>(given, walk);
    } else {
        over_planes<Body>(given, walk);
    }
}

/* --------------------------------------------------------------------- on the host */

/* The same tensor in the form that has the longest rows. `per_sample`: d, noise or a gradient of d
 * tells samples apart. */
inline KernelsEpilogue simplified(KernelsEpilogue e, bool per_sample) {
    if (e.layout == KERNELS_CHANNELS_FIRST && e.p == 1) e.layout = KERNELS_CHANNELS_LAST;
    if (e.layout == KERNELS_CHANNELS_LAST && e.c == 1) e.layout = KERNELS_CHANNELS_FIRST;
    if (!per_sample && (e.layout == KERNELS_CHANNELS_LAST || e.c == 1)) {
        e.p *= e.n;
        e.n = 1;
    }
    return e;
}

/* Channels first: a thread has some eight vectors of a plane, a block at least a part of one. */
inline Walk walk_planes(const KernelsEpilogue &e, int values) {
    Walk walk = {};
    const int64_t vectors = ceil_div(e.p, values);
    walk.log_lanes = log_ceil(vectors, 5);
    if (vectors > 256) walk.log_lanes = log_ceil(ceil_div(vectors, 8), 8);
    walk.part = 16 * THREADS * values;
    walk.parts = static_cast<int32_t>(ceil_div(e.p, walk.part));
    walk.chunks = 1;
    walk.blocks = ceil_div(e.n * e.c, THREADS >> walk.log_lanes) * walk.parts;
    return walk;
}

/* Channels last: 8 to 32 threads along the channels, whichever leaves fewest idle; a thread goes
 * down up to 32 pixels, fewer while there are too few blocks. */
inline Walk walk_pixels(const KernelsEpilogue &e, int values) {
    Walk walk = {};
    const int64_t vectors = ceil_div(e.c, values);
    walk.log_lanes = log_ceil(vectors, 5);
    for (int k = walk.log_lanes - 1; k >= 3; --k) {
        const int64_t best = ceil_div(vectors, int64_t(1) << walk.log_lanes) << walk.log_lanes;
        if (ceil_div(vectors, int64_t(1) << k) << k < best) walk.log_lanes = k;
    }
    walk.chunks = static_cast<int32_t>(ceil_div(vectors, int64_t(1) << walk.log_lanes));
    const int64_t slots = THREADS >> walk.log_lanes;
    int64_t rows = 32;
    while (rows > 1 && e.n * walk.chunks * ceil_div(e.p, slots * rows) < ENOUGH_BLOCKS) rows /= 2;
    walk.part = static_cast<int32_t>(slots * rows);
    walk.parts = static_cast<int32_t>(ceil_div(e.p, walk.part));
    walk.blocks = e.n * walk.chunks * walk.parts;
    return walk;
}

inline Walk walk_for(const KernelsEpilogue &e, int values) {
    return e.layout == KERNELS_CHANNELS_LAST ? walk_pixels(e, values) : walk_planes(e, values);
}

/* n * c and n * parts * chunks are counted in 32 bits; an image may be larger. */
inline bool fits_grid(const KernelsEpilogue &e) {
    const int64_t most = INT32_MAX - THREADS;
    return e.n <= most && e.c <= most && (e.c == 0 || e.n <= most / e.c) && e.p / 8 <= most;
}

/* Elements at once: 16 bytes if activation, rows and all addresses allow, else 1. */
template <int COUNT>
int values_at_once(const KernelsEpilogue &e, const void *const (&addresses)[COUNT]) {
    if (e.dtype == KERNELS_FLOAT64 || !is_piecewise_linear(e.act)) return 1;
    const int values = e.dtype == KERNELS_FLOAT32 ? VECTOR<float> : VECTOR<__half>;
    bool aligned = is_aligned(e.d) && is_aligned(e.b) && is_aligned(e.noise);
    for (const void *address : addresses) aligned = aligned && is_aligned(address);
    const int64_t row = e.layout == KERNELS_CHANNELS_LAST ? e.c : e.p;
    return aligned && row % values == 0 ? values : 1;
}

template <class F>
Operands<typename F::A> operands(const KernelsEpilogue &e) {
    using A = typename F::A;
    Operands<A> o = {};
    o.d = static_cast<const A *>(e.d);
    o.noise = static_cast<const A *>(e.noise);
    o.strength = static_cast<const A *>(e.strength);
    o.b = static_cast<const A *>(e.b);
    o.alpha = static_cast<A>(e.alpha);
    o.gain = static_cast<A>(e.gain);
    o.clamped = e.clamp >= 0;
    o.clamp = static_cast<A>(e.clamp);
    // What was clamped holds the limit as it is rounded, which may be less than the limit.
    if (e.from_output) o.clamp = to_accumulation(to_storage<typename F::T>(o.clamp));
    o.act = e.act;
    o.from_output = e.from_output != 0;
    o.n = static_cast<int32_t>(e.n);
    o.c = static_cast<int32_t>(e.c);
    o.p = e.p;
    o.noise_stride = e.noise_n == 1 ? 0 : e.p;
    return o;
}

template <class T, class Start>
int32_t with_type(const KernelsEpilogue &e, int values, Start &&start) {
    const bool last = e.layout == KERNELS_CHANNELS_LAST;
    if constexpr (!std::is_same_v<T, double>) {
        if (values > 1) {
            return last ? start(Form<T, VECTOR<T>, true>()) : start(Form<T, VECTOR<T>, false>());
        }
    }
    return last ? start(Form<T, 1, true>()) : start(Form<T, 1, false>());
}

/* start(Form) for what these arguments need. */
template <class Start>
int32_t with_form(const KernelsEpilogue &e, int values, Start &&start) {
    switch (e.dtype) {
        case KERNELS_FLOAT64: return with_type<double>(e, values, start);
        case KERNELS_FLOAT32: return with_type<float>(e, values, start);
        case KERNELS_BFLOAT16: return with_type<__nv_bfloat16>(e, values, start);
        default: return with_type<__half>(e, values, start);
    }
}

}  // namespace kernels

#endif
