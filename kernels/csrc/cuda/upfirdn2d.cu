/* Up-sampling, filter, down-sampling of each plane; the equation stands in abi.h.
 *
 * The filters that networks use go by marching (upfirdn2d_march.cuh). All else, and everything in
 * float64, is a sum over the taps of one output.
 */
#include "../valid.h"
#include "upfirdn2d_march.cuh"

namespace kernels {
namespace {

template <class A>
struct TapsArguments {
    KernelsUpfirdn2d u;
    A gain;
    int64_t count; /* of outputs */
};

/* The first input line that an output has a tap for, and that tap; the next are `up` taps on. */
struct FirstTap {
    int64_t line;
    int64_t tap;
};

__device__ inline FirstTap first_tap(int64_t out, int down, int pad, int up) {
    const int64_t corner = out * down - pad;
    const int64_t line = corner > 0 ? (corner + up - 1) / up : 0;
    return {line, line * up - corner};
}

/* One row of taps: sum_j F[j] x[.., j]. `f`: that row of the filter. */
template <class T>
__device__ inline Accumulation<T> along_row(const KernelsUpfirdn2d &u, const T *row,
                                            const Accumulation<T> *f, FirstTap first,
                                            int64_t pixel) {
    Accumulation<T> sum = 0;
    for (int64_t tap = first.tap, line = first.line; tap < u.fw && line < u.w; tap += u.up_x) {
        const int64_t place = u.flip ? tap : u.fw - 1 - tap;
        sum += __ldg(f + place) * to_accumulation(__ldg(row + line * pixel));
        ++line;
    }
    return sum;
}

/* One thread, one output, single values read: for filters that no network here runs, for pictures
 * of three channels in channels last (a small part of a step), and for float64 (which checks
 * gradients). */
template <class T>
__global__ void __launch_bounds__(THREADS)
    taps_kernel(const TapsArguments<Accumulation<T>> given, const T *x, T *y) {
    using A = Accumulation<T>;
    const KernelsUpfirdn2d &u = given.u;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (index >= given.count) return;
    // The channel is what changes fastest (channels last) or slowest next to the sample.
    const bool last = u.layout == KERNELS_CHANNELS_LAST;
    const int64_t inner = last ? u.c : 1;
    const int64_t pixel_index = index / inner;
    const int64_t channel = index - pixel_index * inner;
    const int64_t row_index = pixel_index / u.out_w;
    const int64_t ox = pixel_index - row_index * u.out_w;
    const int64_t image = row_index / u.out_h;
    const int64_t oy = row_index - image * u.out_h;
    const T *start = x + image * u.h * u.w * inner + channel;
    const FirstTap first_x = first_tap(ox, u.down_x, u.pad_left, u.up_x);
    FirstTap next = first_tap(oy, u.down_y, u.pad_top, u.up_y);
    A sum = 0;
    for (; next.tap < u.fh && next.line < u.h; next.tap += u.up_y, ++next.line) {
        const int64_t place = u.flip ? next.tap : u.fh - 1 - next.tap;
        const T *row = start + next.line * u.w * inner;
        if (u.f) {
            const A *f = static_cast<const A *>(u.f) + place * u.fw;
            sum += along_row(u, row, f, first_x, inner);
        } else {
            const A *f = static_cast<const A *>(u.fx);
            const A weight = __ldg(static_cast<const A *>(u.fy) + place);
            sum += weight * along_row(u, row, f, first_x, inner);
        }
    }
    y[index] = to_storage<T>(sum * given.gain);
}

template <class T>
int32_t start_taps(const KernelsUpfirdn2d &u, const void *x, void *y, void *stream) {
    using A = Accumulation<T>;
    const int64_t count = u.n * u.c * u.out_h * u.out_w;
    const TapsArguments<A> given = {u, static_cast<A>(u.gain), count};
    return launch(taps_kernel<T>, ceil_div(count, THREADS), stream, given,
                  static_cast<const T *>(x), static_cast<T *>(y));
}

/* --------------------------------------------------------------------- on the host */

enum Case { ANY, FILTER, UP_2, DOWN_2, LONG_UP_2, LONG_DOWN_2 };

Case case_of(const KernelsUpfirdn2d &u) {
    const bool square = u.fh == u.fw && u.up_y == u.up_x && u.down_y == u.down_x;
    if (!square || !fits_march(u)) return ANY;
    const bool up = u.up_x == 2 && u.down_x == 1, down = u.up_x == 1 && u.down_x == 2;
    if (u.fh == 4) {
        return up ? UP_2 : down ? DOWN_2 : u.up_x == 1 && u.down_x == 1 ? FILTER : ANY;
    }
    // Long filters are for pictures, which come channels first.
    if (u.fh != 12 || u.f || u.layout != KERNELS_CHANNELS_FIRST) return ANY;
    return up ? LONG_UP_2 : down ? LONG_DOWN_2 : ANY;
}

template <class T, int N, bool LAST>
int32_t start_short(Case kind, const KernelsUpfirdn2d &u, const void *x, void *y, void *stream) {
    if (kind == FILTER) return start_march<Form<T, N, LAST, 1, 1, 4, false>>(u, x, y, stream);
    if (kind == UP_2) return start_march<Form<T, N, LAST, 2, 1, 4, false>>(u, x, y, stream);
    return start_march<Form<T, N, LAST, 1, 2, 4, false>>(u, x, y, stream);
}

template <class T>
int32_t start(const KernelsUpfirdn2d &u, const void *x, void *y, void *stream) {
    constexpr int N = VECTOR<T>;
    const Case kind = case_of(u);
    if (kind == ANY) return start_taps<T>(u, x, y, stream);
    if (kind == LONG_UP_2) return start_march<Form<T, 1, false, 2, 1, 12, true>>(u, x, y, stream);
    if (kind == LONG_DOWN_2) return start_march<Form<T, 1, false, 1, 2, 12, true>>(u, x, y, stream);
    if (u.layout == KERNELS_CHANNELS_FIRST) return start_short<T, 1, false>(kind, u, x, y, stream);
    const bool vectors = u.c % N == 0 && is_aligned(x) && is_aligned(y);
    if (!vectors) return start_taps<T>(u, x, y, stream);
    return start_short<T, N, true>(kind, u, x, y, stream);
}

}  // namespace
}  // namespace kernels

using namespace kernels;

KERNELS_EXPORT int64_t kernels_upfirdn2d_workspace(const KernelsUpfirdn2d *u) {
    return is_valid(*u) ? 0 : KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int32_t kernels_upfirdn2d(const KernelsUpfirdn2d *u, const void *x, void *y,
                                         const KernelsRun *run) {
    if (!is_valid(*u, x, y)) return KERNELS_UNSUPPORTED;
    if (!has_outputs(*u)) return KERNELS_OK;
    switch (u->dtype) {
        case KERNELS_FLOAT64: return start_taps<double>(*u, x, y, run->stream);
        case KERNELS_FLOAT32: return start<float>(*u, x, y, run->stream);
        case KERNELS_BFLOAT16: return start<__nv_bfloat16>(*u, x, y, run->stream);
        default: return start<__half>(*u, x, y, run->stream);
    }
}
