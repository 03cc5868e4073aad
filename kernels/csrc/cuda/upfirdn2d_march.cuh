/* upfirdn2d of 4 x 4 taps or 12 taps twice, by marching.
 *
 * A thread stays with one position across and goes along the other axis. Every input line it meets
 * is loaded once, weighted into all outputs that are still open, and the one that then has all its
 * taps is written: no input is read twice along the march, and there is neither shared memory nor a
 * barrier. Across, neighbouring threads read the same inputs from the first-level cache. Channels
 * first, the march goes down a plane and threads lie side by side in x, plane after plane, so that
 * small planes share a block. Channels last, it goes along a row; threads have 16 bytes of channels
 * each and a block has rows that share inputs, sample after sample, so that small images share it.
 *
 * Channels first, a thread reads single values, 2 bytes in the half types; the first-level cache
 * makes whole lines of them. Wider reads need two outputs side by side in a thread, with twice the
 * open sums (up-sampling, twice the weights too) in registers that some forms have none left of,
 * and rows and padding that are even, so the narrow kernels beside the wide ones. What they gain
 * has not been measured.
 *
 * With one of up and down 1, and S the other, tap t = S i + r: an input and its r decide the phase,
 * i how far back the output lies. Up-sampling, S outputs share their inputs; down-sampling, one
 * output takes S new inputs a step.
 */
#ifndef KERNELS_CUDA_UPFIRDN2D_MARCH_CUH
#define KERNELS_CUDA_UPFIRDN2D_MARCH_CUH

#include "../abi.h"
#include "blocks.cuh"
#include "convert.cuh"
#include "launch.cuh"

namespace kernels {
namespace {

/* What a marching kernel is compiled for. Not separable: TAPS x TAPS, else TAPS twice. */
template <class Storage, int N, bool CHANNELS_LAST, int UP_, int DOWN_, int TAPS_, bool SEPARABLE_>
struct Form {
    using T = Storage;
    using A = Accumulation<T>;
    static constexpr int VALUES = N;
    static constexpr bool LAST = CHANNELS_LAST;
    static constexpr int UP = UP_, DOWN = DOWN_, TAPS = TAPS_;
    static constexpr bool SEPARABLE = SEPARABLE_;
    static constexpr int S = UP * DOWN;
    static constexpr int OPEN = TAPS / S;        /* groups of UP outputs an input line adds to */
    static constexpr int INPUTS = TAPS / UP;     /* inputs across that an output has */
    static constexpr int LINES = SEPARABLE ? 1 : INPUTS; /* weights of one tap along the march */
    /* Steps in one turn of the loop, and lines whose inputs are loaded at once: a thread that has a
     * single value of each input must wait for many at a time to keep the memory busy. */
    static constexpr int AHEAD = LAST || (SEPARABLE && DOWN > 1) ? 1 : SEPARABLE ? 3 : OPEN;
    static constexpr int BATCH = LAST ? 1 : AHEAD * DOWN; /* lines */
    /* Blocks on a multiprocessor; 0: as the compiler likes. For sm_80 it would rather spill in this
     * one than take a 33rd register; in others it spills where a number is given. */
    static constexpr int LEAST_BLOCKS = !LAST && UP == 2 && !SEPARABLE ? 4 : 0;
    static_assert((UP == 1 || DOWN == 1) && TAPS % S == 0, "one of up and down");
};

/* One of the two directions: across the threads, or along the march. */
struct Direction {
    int32_t in, out, pad;
    int64_t in_step, out_step; /* elements from one position to the next */
    int32_t filter_step;       /* of a filter [fh,fw] */
};

template <class T>
struct MarchArguments {
    using A = Accumulation<T>;
    const T *x;
    T *y;
    const A *f, *f_across, *f_along; /* f, or the other two */
    A gain;
    bool flip;
    Direction across, along;
    int64_t unit_in, unit_out;     /* from plane to plane, or from channel vector to the next */
    int64_t sample_in, sample_out; /* channels last */
    int32_t units;                 /* planes of all samples, or channel vectors */
    int32_t rows;                  /* channels last: those of all samples */
    int32_t log_lanes;             /* channels last: 2^log_lanes channel vectors to a block */
    int32_t unit_blocks, strips;   /* what blocks are counted over, then the rows */
    int32_t first_group, groups, strip; /* groups of outputs along the march; those of a strip */
};

/* Which outputs are a thread's. */
struct Place {
    int32_t unit, across, sample, strip;
    bool inside;
};

template <class F>
__device__ inline Place place_of(const MarchArguments<typename F::T> &given) {
    Place place;
    const uint32_t rest = blockIdx.x / given.unit_blocks;
    const int32_t unit_block = blockIdx.x - rest * given.unit_blocks;
    const int32_t row_block = rest / given.strips;
    place.strip = rest - row_block * given.strips;
    if constexpr (F::LAST) {
        const int32_t lane = threadIdx.x & ((1 << given.log_lanes) - 1);
        const int32_t slot = threadIdx.x >> given.log_lanes;
        const int32_t row = row_block * (THREADS >> given.log_lanes) + slot;
        place.unit = (unit_block << given.log_lanes) + lane;
        place.sample = row / given.across.out;
        place.across = row - place.sample * given.across.out;
        place.inside = place.unit < given.units && row < given.rows;
    } else {
        const int32_t flat = unit_block * THREADS + threadIdx.x;
        place.unit = flat / given.across.out;
        place.across = flat - place.unit * given.across.out;
        place.sample = 0; /* units are the planes of all samples */
        place.inside = place.unit < given.units;
    }
    return place;
}

/* The weights of the taps t = first + UP k across; along the march, of every tap. */
template <class F>
struct Weights {
    using A = typename F::A;
    A line[F::INPUTS];           /* across, where the filter is separable */
    A tap[F::TAPS][F::LINES];    /* along, or along and across */

    __device__ Weights(const MarchArguments<typename F::T> &given, int first) {
        const auto mirrored = [&](int t) { return given.flip ? t : F::TAPS - 1 - t; };
#pragma unroll
        for (int k = 0; k < F::INPUTS; ++k) {
            const int t = mirrored(first + F::UP * k);
            if constexpr (F::SEPARABLE) line[k] = __ldg(given.f_across + t) * given.gain;
#pragma unroll
            for (int i = 0; i < F::TAPS && !F::SEPARABLE; ++i) {
                tap[i][k % F::LINES] = both(given, mirrored(i), t) * given.gain;
            }
        }
#pragma unroll
        for (int i = 0; i < F::TAPS && F::SEPARABLE; ++i) {
            tap[i][0] = __ldg(given.f_along + mirrored(i));
        }
    }

    /* A small filter may come as two factors, too. */
    __device__ static A both(const MarchArguments<typename F::T> &given, int along, int across) {
        if (!given.f) return __ldg(given.f_along + along) * __ldg(given.f_across + across);
        const int32_t rows = along * given.along.filter_step;
        return __ldg(given.f + rows + across * given.across.filter_step);
    }
};

/* The inputs of one line that a thread needs, weighted into the open outputs. */
template <class F>
struct March {
    using T = typename F::T;
    using A = typename F::A;
    static constexpr int N = F::VALUES;

    const T *x;
    int64_t step;   /* across */
    uint32_t valid; /* which of the inputs across lie in the image */
    Weights<F> weights;
    A open[F::OPEN][F::UP][N];

    __device__ March(const MarchArguments<T> &given, const Place &place, int first, int tap)
        : x(given.x + place.sample * given.sample_in + place.unit * given.unit_in +
            first * given.across.in_step),
          step(F::LAST ? given.across.in_step : 1),
          valid(0),
          weights(given, tap) {
#pragma unroll
        for (int k = 0; k < F::INPUTS; ++k) {
            const bool in = static_cast<uint32_t>(first + k) < uint32_t(given.across.in);
            valid |= static_cast<uint32_t>(in) << k;
        }
#pragma unroll
        for (int i = 0; i < F::OPEN; ++i) clear(i);
    }

    __device__ void clear(int slot) {
#pragma unroll
        for (int u = 0; u < F::UP; ++u) fill(open[slot][u], A(0));
    }

    /* The inputs of one line; 0 beyond the image. */
    __device__ void read(const Direction &along, int line, A (&in)[F::INPUTS][N]) const {
        const bool inside = static_cast<uint32_t>(line) < static_cast<uint32_t>(along.in);
        const uint32_t wanted = inside ? valid : 0;
        const T *start = x + line * along.in_step;
#pragma unroll
        for (int k = 0; k < F::INPUTS; ++k) {
            fill(in[k], A(0));
            if (wanted >> k & 1u) load(start + k * step, in[k]);
        }
    }

    /* `newest`: the slot of the group that this line is the first for; r: the line's phase. */
    __device__ void add(A (&in)[F::INPUTS][N], int newest, int r) {
        if constexpr (F::SEPARABLE) {
#pragma unroll
            for (int v = 0; v < N; ++v) {
                in[0][v] *= weights.line[0];
#pragma unroll
                for (int k = 1; k < F::INPUTS; ++k) in[0][v] += weights.line[k] * in[k][v];
            }
        }
#pragma unroll
        for (int i = 0; i < F::OPEN * F::UP; ++i) {
            const int group = i / F::UP, u = i % F::UP;
            A(&sums)[N] = open[(newest - group + F::OPEN) % F::OPEN][u];
#pragma unroll
            for (int k = 0; k < F::LINES; ++k) {
#pragma unroll
                for (int v = 0; v < N; ++v) {
                    sums[v] += weights.tap[F::S * group + r + u][k] * in[k][v];
                }
            }
        }
    }
};

template <class F>
__device__ inline void write_group(const MarchArguments<typename F::T> &given,
                                   const typename F::A (&outputs)[F::UP][F::VALUES], int group,
                                   typename F::T *y) {
#pragma unroll
    for (int u = 0; u < F::UP; ++u) {
        const int place = F::UP == 1 ? group : F::UP * group + given.along.pad - u;
        if (F::UP == 1 || static_cast<uint32_t>(place) < uint32_t(given.along.out)) {
            store(y + place * given.along.out_step, outputs[u]);
        }
    }
}

/* AHEAD steps, the first of them `step`: reads their lines, BATCH at a time, adds them, and writes
 * each group when it is complete. `s` is `step` modulo OPEN, which the unrolled loop knows, so that
 * open outputs stay in registers. Groups of other strips, begun or left over, are not written. */
template <class F>
__device__ inline void some_steps(const MarchArguments<typename F::T> &given, March<F> &march,
                                  int step, int s, int begin, int end, typename F::T *y) {
    typename F::A in[F::BATCH][F::INPUTS][F::VALUES];
    const int first = F::UP == 1 ? F::DOWN * step - given.along.pad : step;
#pragma unroll
    for (int line = 0; line < F::AHEAD * F::DOWN; ++line) {
#pragma unroll
        for (int i = 0; i < F::BATCH && line % F::BATCH == 0; ++i) {
            march.read(given.along, first + line + i, in[i]);
        }
        const int ahead = line / F::DOWN, r = line % F::DOWN;
        march.add(in[line % F::BATCH], s + ahead, r);
        if (r < F::DOWN - 1) continue;
        const int oldest = (s + ahead + 1) % F::OPEN;
        const int group = step + ahead - (F::OPEN - 1);
        if (group >= begin && group < end) write_group<F>(given, march.open[oldest], group, y);
        march.clear(oldest);
    }
}

template <class F>
__global__ void __launch_bounds__(THREADS, F::LEAST_BLOCKS)
    march_kernel(const MarchArguments<typename F::T> given) {
    const Place place = place_of<F>(given);
    if (!place.inside) return;
    // The first input at or after where the first tap lies, and the tap that meets it.
    const int corner = place.across * F::DOWN - given.across.pad;
    const int first = F::UP == 1 ? corner : (corner + F::UP - 1) >> (F::UP - 1);
    March<F> march(given, place, first, first * F::UP - corner);
    typename F::T *y = given.y + place.sample * given.sample_out + place.unit * given.unit_out +
                       place.across * given.across.out_step;
    const int begin = given.first_group + place.strip * given.strip;
    const int last = given.first_group + given.groups;
    const int end = begin + given.strip < last ? begin + given.strip : last;
    for (int start = begin; start < end + F::OPEN - 1; start += F::OPEN) {
#pragma unroll
        for (int s = 0; s < F::OPEN; s += F::AHEAD) {
            some_steps<F>(given, march, start + s, s, begin, end, y);
        }
    }
}

/* --------------------------------------------------------------------- on the host */

/* Groups of outputs along the march that a thread has; the fewer, the more blocks. */
constexpr int LONGEST_STRIP = 40;
constexpr int SHORTEST_STRIP = 8;

/* Sizes that the 32-bit counters of a marching kernel hold; only strides are 64 bits wide. */
bool fits_march(const KernelsUpfirdn2d &u) {
    const int64_t most = INT32_MAX / 4;
    const int64_t pads = 1 << 20;
    const bool sides = u.h <= most && u.w <= most && u.out_h <= most && u.out_w <= most;
    const bool padded = u.pad_top < pads && u.pad_top > -pads && u.pad_left < pads &&
                        u.pad_left > -pads;
    // Threads are counted over the columns of all planes, or over the rows of all samples.
    return sides && padded && u.c <= most && u.n <= most / u.c && u.n * u.c <= most / u.out_w &&
           (u.layout == KERNELS_CHANNELS_FIRST || u.n <= most / u.out_h);
}

/* The way over the image: which direction is which, and how blocks divide it. */
template <class F>
MarchArguments<typename F::T> march_arguments(const KernelsUpfirdn2d &u, const void *x, void *y) {
    using T = typename F::T;
    using A = typename F::A;
    MarchArguments<T> given = {};
    given.x = static_cast<const T *>(x);
    given.y = static_cast<T *>(y);
    const int64_t pixel = F::LAST ? u.c : 1;
    const auto side = [&](int64_t in, int64_t out) {
        return Direction{static_cast<int32_t>(in), static_cast<int32_t>(out), 0, 0, 0, 0};
    };
    Direction x_axis = side(u.w, u.out_w), y_axis = side(u.h, u.out_h);
    x_axis.pad = u.pad_left;
    x_axis.in_step = x_axis.out_step = pixel;
    x_axis.filter_step = 1;
    y_axis.pad = u.pad_top;
    y_axis.in_step = u.w * pixel;
    y_axis.out_step = u.out_w * pixel;
    y_axis.filter_step = u.fw;
    given.across = F::LAST ? y_axis : x_axis;
    given.along = F::LAST ? x_axis : y_axis;
    given.f = static_cast<const A *>(u.f);
    given.f_across = static_cast<const A *>(F::LAST ? u.fy : u.fx);
    given.f_along = static_cast<const A *>(F::LAST ? u.fx : u.fy);
    given.gain = static_cast<A>(u.gain);
    given.flip = u.flip != 0;
    given.unit_in = F::LAST ? F::VALUES : u.h * u.w;
    given.unit_out = F::LAST ? F::VALUES : u.out_h * u.out_w;
    given.sample_in = u.h * u.w * u.c;
    given.sample_out = u.out_h * u.out_w * u.c;
    given.units = static_cast<int32_t>(F::LAST ? u.c / F::VALUES : u.n * u.c);
    given.rows = static_cast<int32_t>(F::LAST ? u.n * u.out_h : 0);
    return given;
}

template <class F>
int64_t set_blocks(MarchArguments<typename F::T> &given) {
    int64_t blocks;
    if constexpr (F::LAST) {
        given.log_lanes = log_ceil(given.units, 5);
        given.unit_blocks = ceil_div(given.units, 1 << given.log_lanes);
        blocks = given.unit_blocks * ceil_div(given.rows, THREADS >> given.log_lanes);
    } else {
        given.unit_blocks = ceil_div(int64_t(given.units) * given.across.out, THREADS);
        blocks = given.unit_blocks;
    }
    given.groups = given.along.out;
    if (F::UP > 1) {
        // Group b has the outputs 2 b + pad and the one before.
        given.first_group = -(given.along.pad >> 1);
        given.groups = ((given.along.out - given.along.pad) >> 1) - given.first_group + 1;
    }
    given.strips = ceil_div(given.groups, LONGEST_STRIP);
    while (blocks * given.strips < ENOUGH_BLOCKS &&
           given.groups > 2 * SHORTEST_STRIP * given.strips) {
        given.strips *= 2;
    }
    given.strip = ceil_div(given.groups, given.strips);
    return blocks * given.strips;
}

template <class F>
int32_t start_march(const KernelsUpfirdn2d &u, const void *x, void *y, void *stream) {
    MarchArguments<typename F::T> given = march_arguments<F>(u, x, y);
    const int64_t blocks = set_blocks<F>(given);
    return launch(march_kernel<F>, blocks, stream, given);
}

}  // namespace
}  // namespace kernels

#endif
