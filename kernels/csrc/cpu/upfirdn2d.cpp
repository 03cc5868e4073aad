/* upfirdn2d on a CPU: the filter made ready, the choice of a way, and the way for every case.
 *
 * A filter of rank 1 runs as a vertical and a horizontal pass. What StyleGAN2 uses has ways of its
 * own (upfirdn2d_last.cpp, upfirdn2d_narrow.cpp, upfirdn2d_first.cpp); here is the one for all
 * other rates and filters.
 */
#include "upfirdn2d.h"

#include "../valid.h"

#include <cmath>
#include <limits>
#include <new>
#include <numeric>

#include <omp.h>

namespace kernels {
namespace {

// ---------------------------------------------------------------- the filter

/* f = outer(y, x) to the precision of A, element by element (so zeros exactly)? Then y and x. */
template <class A>
static bool factorise(const std::vector<double> &f, int64_t fh, int64_t fw, std::vector<double> &y,
                      std::vector<double> &x) {
    int64_t pivot = 0;
    for (int64_t i = 1; i < fh * fw; ++i) {
        if (std::fabs(f[i]) > std::fabs(f[pivot])) pivot = i;
    }
    if (f[pivot] == 0) return false;
    for (int64_t i = 0; i < fh; ++i) y[i] = f[i * fw + pivot % fw] / f[pivot];
    for (int64_t j = 0; j < fw; ++j) x[j] = f[pivot / fw * fw + j];
    // A product of taps divided by its sum is off by 3 half units; so are the three used here.
    const double precision = 4 * static_cast<double>(std::numeric_limits<A>::epsilon());
    for (int64_t i = 0; i < fh * fw; ++i) {
        const double error = std::fabs(y[i / fw] * x[i % fw] - f[i]);
        if (!(error <= precision * std::fabs(f[i]))) return false;
    }
    return true;
}

/* Scales y by a power of 2 so that sum |y| <= 1, and x back: the first pass cannot overflow. */
static void balance(std::vector<double> &y, std::vector<double> &x) {
    double sum = 0;
    for (const double tap : y) sum += std::fabs(tap);
    if (!(sum > 0x1p-64 && sum < 0x1p64)) return;
    int exponent;
    if (std::frexp(sum, &exponent) == 0.5) exponent -= 1;
    for (double &tap : y) tap = std::ldexp(tap, -exponent);
    for (double &tap : x) tap = std::ldexp(tap, exponent);
}

template <class A>
static std::vector<double> read_taps(const void *f, int64_t size, bool reverse) {
    const A *from = static_cast<const A *>(f);
    std::vector<double> taps(size);
    for (int64_t i = 0; i < size; ++i) taps[i] = from[reverse ? size - 1 - i : i];
    return taps;
}

template <class A>
static void prepare_filter(const KernelsUpfirdn2d &p, Resampling<A> &call) {
    std::vector<double> y(p.fh), x(p.fw), f;
    if (p.f) {
        f = read_taps<A>(p.f, call.fh * call.fw, !p.flip);
        call.separable = factorise<A>(f, call.fh, call.fw, y, x);
    } else {
        y = read_taps<A>(p.fy, call.fh, !p.flip);
        x = read_taps<A>(p.fx, call.fw, !p.flip);
        call.separable = true;
    }
    if (!call.separable) {
        for (double &tap : f) tap *= p.gain;
        call.taps.assign(f.begin(), f.end());
        return;
    }
    for (double &tap : x) tap *= p.gain;
    balance(y, x);
    call.taps_y.assign(y.begin(), y.end());
    call.taps_x.assign(x.begin(), x.end());
}

// ---------------------------------------------------------------- any rates, any filter

/* Where a horizontal tap lies on pixels: outputs first + k * step see inputs first_in + k * ... */
struct Reach {
    int64_t out, in, count;
};

struct Strides {
    int64_t out, in, group;
};

template <class A>
static std::vector<Reach> reaches(const Resampling<A> &call, const Strides &strides) {
    std::vector<Reach> all(call.fw, Reach{0, 0, 0});
    for (int64_t j = 0; j < call.fw; ++j) {
        int64_t out = 0;
        while (out < strides.out && (out * call.down_x + j - call.pad_x) % call.up_x) ++out;
        if (out == strides.out) continue;
        const int64_t in = (out * call.down_x + j - call.pad_x) / call.up_x;
        const int64_t begin = larger(0, ceil_divide(-in, strides.in));
        const int64_t end = smaller(ceil_divide(call.out_w - out, strides.out),
                                    ceil_divide(call.w - in, strides.in));
        if (end <= begin) continue;
        all[j] = {out + begin * strides.out, in + begin * strides.in, end - begin};
    }
    return all;
}

template <class A>
static void add_scaled(A *__restrict sum, const A *__restrict values, A factor, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) sum[i] += factor * values[i];
}

template <class T, class A>
static void add_scaled_row(A *__restrict sum, const T *__restrict values, A factor, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) sum[i] += factor * to_accumulation(values[i]);
}

template <class A>
static void add_strided(A *__restrict sum, const A *__restrict values, A factor, int64_t count,
                        const Strides &strides) {
    if (strides.out == 1 && strides.in == 1) {
        add_scaled(sum, values, factor, count * strides.group);
    } else if (strides.group == 1) {
        for (int64_t k = 0; k < count; ++k) sum[k * strides.out] += factor * values[k * strides.in];
    } else {
        for (int64_t k = 0; k < count; ++k) {
            add_scaled(sum + k * strides.out * strides.group,
                       values + k * strides.in * strides.group, factor, strides.group);
        }
    }
}

template <class A>
struct AnyTask {
    const Resampling<A> &call;
    Strides strides;
    std::vector<Reach> reach;

    void add_row(A *sum, const A *values, const A *taps) const {
        for (int64_t j = 0; j < call.fw; ++j) {
            const Reach &at = reach[j];
            add_strided(sum + at.out * call.group, values + at.in * call.group, taps[j], at.count,
                        strides);
        }
    }
};

/* Row `index` of all planes. Scratch: a row of sums, then a row of filtered or converted inputs. */
template <class T, class A>
static void run_row(const AnyTask<A> &task, const T *x, T *y, int64_t index, A *scratch) {
    const Resampling<A> &call = task.call;
    const int64_t in_size = call.w * call.group, out_size = call.out_w * call.group;
    A *sum = scratch, *values = scratch + out_size;
    std::fill(sum, sum + out_size, A(0));
    std::fill(values, values + in_size, A(0));
    const int64_t top = index % call.out_h * call.down_y - call.pad_y;
    for (int64_t i = 0; i < call.fh; ++i) {
        const int64_t row = floor_divide(top + i, call.up_y);
        if (row * call.up_y != top + i || row < 0 || row >= call.h) continue;
        const T *from = x + (index / call.out_h * call.h + row) * in_size;
        if (call.separable) {
            add_scaled_row(values, from, call.taps_y[i], in_size);
        } else {
            load_row(from, values, in_size);
            task.add_row(sum, values, &call.taps[i * call.fw]);
        }
    }
    if (call.separable) task.add_row(sum, values, call.taps_x.data());
    store_row<T>(sum, y + index * out_size, out_size);
}

template <class T>
static void resample_any(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    using A = Accumulation<T>;
    const int64_t common = std::gcd(call.up_x, call.down_x);
    const Strides strides{call.up_x / common, call.down_x / common, call.group};
    const AnyTask<A> task{call, strides, reaches(call, strides)};
    Scratch<A> scratch(call.threads, (call.out_w + call.w) * call.group);
    const int64_t rows = call.planes * call.out_h;
#pragma omp parallel for schedule(static) num_threads(call.threads) if (call.threads > 1)
    for (int64_t i = 0; i < rows; ++i) {
        run_row(task, x, y, i, scratch.part(omp_get_thread_num()));
    }
}

// ---------------------------------------------------------------- the call

// Below this many inputs and outputs, waking threads takes longer than the work.
constexpr int64_t TOO_SMALL_TO_SHARE = 1 << 15;

template <class T>
static int32_t resample(const KernelsUpfirdn2d &p, const void *x, void *y, int threads) {
    using A = Accumulation<T>;
    const bool last = p.layout == KERNELS_CHANNELS_LAST;
    Resampling<A> call{};
    call.planes = last ? p.n : p.n * p.c;
    call.group = last ? p.c : 1;
    call.h = p.h, call.w = p.w, call.out_h = p.out_h, call.out_w = p.out_w;
    call.up_y = p.up_y, call.up_x = p.up_x, call.down_y = p.down_y, call.down_x = p.down_x;
    call.pad_y = p.pad_top, call.pad_x = p.pad_left;
    call.fh = p.fh, call.fw = p.fw;
    const int64_t size = p.n * p.c * (p.h * p.w + p.out_h * p.out_w);
    call.threads = size < TOO_SMALL_TO_SHARE || threads < 1 ? 1 : threads;
    prepare_filter<A>(p, call);
    const T *from = static_cast<const T *>(x);
    T *to = static_cast<T *>(y);
    if constexpr (SPECIALISED<T>) {
        if (resample_wide(call, from, to) || resample_narrow(call, from, to) ||
            resample_flat(call, from, to)) {
            return KERNELS_OK;
        }
    }
    resample_any(call, from, to);
    return KERNELS_OK;
}

static int32_t resample_dtype(const KernelsUpfirdn2d &p, const void *x, void *y, int threads) {
    switch (p.dtype) {
        case KERNELS_FLOAT64: return resample<double>(p, x, y, threads);
        case KERNELS_FLOAT32: return resample<float>(p, x, y, threads);
        case KERNELS_BFLOAT16: return resample<BFloat16>(p, x, y, threads);
        default: return resample<Float16>(p, x, y, threads);
    }
}

}  // namespace
}  // namespace kernels

int64_t kernels_upfirdn2d_workspace(const KernelsUpfirdn2d *p) {
    return kernels::is_valid(*p) ? 0 : KERNELS_UNSUPPORTED;
}

int32_t kernels_upfirdn2d(const KernelsUpfirdn2d *p, const void *x, void *y,
                          const KernelsRun *run) {
    if (!kernels::is_valid(*p, x, y)) return KERNELS_UNSUPPORTED;
    if (!kernels::has_outputs(*p)) return KERNELS_OK;
    try {
        return kernels::resample_dtype(*p, x, y, run->threads);
    } catch (const std::bad_alloc &) {
        return KERNELS_NO_MEMORY;
    }
}
