/* Planes with rows of a vector or two (channels first), up and down by 2 with filters of rank 1.
 *
 * No row leaves the registers: the vertical pass makes a row, and the horizontal pass permutes its
 * lanes, where longer rows go through scratch memory (upfirdn2d_first.cpp, of whose vectors this
 * has the bits). Rows are read and written as whole vectors, past their ends: what is read there
 * meets no tap, and what is written there is written again by the next row, but at the end of x and
 * of what a thread writes. Needs a permutation of any lanes at run time: AVX-512.
 */
#include "upfirdn2d.h"

#include <omp.h>

namespace kernels {

#if defined(__AVX512F__)

namespace {

constexpr int TAPS = 4, L = LANES<float>;
using V = ShortVector<float, L>;

/* A row of an image, of one vector or of two. */
template <int VECTORS>
struct Row {
    V part[VECTORS];
};

/* Of which column of a row each lane is; `inside`: the lanes whose column is there. */
struct Pick {
    __m512i column;
    __mmask16 inside;

    Pick(int64_t first, int64_t step, int64_t width) : inside(0) {
        int32_t columns[L] = {};
        for (int i = 0; i < L; ++i) {
            const int64_t at = first + step * i;
            if (at < 0 || at >= width) continue;
            columns[i] = static_cast<int32_t>(at);
            inside = static_cast<__mmask16>(inside | 1u << i);
        }
        column = copied<__m512i>(columns);
    }

    V of(const Row<1> &row) const {
        return (V)_mm512_maskz_permutexvar_ps(inside, column, (__m512)row.part[0]);
    }
    V of(const Row<2> &row) const {
        return (V)_mm512_maskz_permutex2var_ps(inside, (__m512)row.part[0], column,
                                               (__m512)row.part[1]);
    }
};

/* Where planes lie. [0, count) elements of x and [0, end) of y may be touched. */
template <class T>
struct Images {
    const T *x;
    T *y;
    int64_t count, end;
};

/* From `at` on, of which only what is below `end` is there; WHOLE: all of it. */
template <bool WHOLE, class T>
KERNELS_INLINE V read(const T *x, int64_t at, int64_t end) {
    if (WHOLE || at + L <= end) return load<L>(x + at);
    T some[L] = {};
    if (at < end) std::memcpy(some, x + at, static_cast<size_t>(end - at) * sizeof(T));
    return load<L>(some);
}

template <bool WHOLE, class T>
KERNELS_INLINE void write(T *y, int64_t at, int64_t end, V v) {
    if (WHOLE || at + L <= end) return store<L>(y + at, v);
    if (at >= end) return;
    T some[L];
    store<L>(some, v);
    std::memcpy(y + at, some, static_cast<size_t>(end - at) * sizeof(T));
}

/* a[0], b[0], a[1], b[1], ... */
template <bool WHOLE, class T>
KERNELS_INLINE void write_pairs(T *y, int64_t at, int64_t end, V a, V b) {
    if constexpr (std::is_same_v<T, BFloat16>) {
        const Packet<T> pairs{{a, b}};  // which lie like that in memory
        if (WHOLE) return store_packet(pairs, y + at);
        if (at < end) store_some(pairs, y + at, smaller(end - at, 2 * L));
    } else {
        const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4,  //
                                             19, 3, 18, 2, 17, 1, 16, 0);
        const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(L / 2));
        write<WHOLE>(y, at, end, (V)_mm512_permutex2var_ps((__m512)a, low, (__m512)b));
        write<WHOLE>(y, at + L, end, (V)_mm512_permutex2var_ps((__m512)a, high, (__m512)b));
    }
}

// ---------------------------------------------------------------- up

struct Up {
    static constexpr int UP = 2, DOWN = 1;
    static constexpr int IN = 1, OUT = 2;  // vectors of a row of x, and of y
    Sizes call;
    V taps_y[TAPS], even[2], odd[2];
    Pick even_picks[2], odd_picks[2];

    explicit Up(const Resampling<float> &p) : Up(p, ceil_divide(-p.pad_x, 2), p.pad_x % 2 == 0) {}

    /* The second of two outputs sees columns from `shift` further on, and other taps. */
    Up(const Resampling<float> &p, int64_t first, int64_t shift)
        : call(p), even_picks{{first, 1, p.w}, {first + 1, 1, p.w}},
          odd_picks{{first + shift, 1, p.w}, {first + shift + 1, 1, p.w}} {
        for (int k = 0; k < TAPS; ++k) taps_y[k] = splat<V>(p.taps_y[k]);
        for (int k = 0; k < 2; ++k) {
            even[k] = splat<V>(p.taps_x[2 * k + 1 - shift]);
            odd[k] = splat<V>(p.taps_x[2 * k + shift]);
        }
    }
};

template <bool WHOLE, class T>
KERNELS_INLINE V input_row(const Up &task, const Images<T> &images, int64_t plane, int64_t row) {
    if (row < 0 || row >= task.call.h) return V{};
    return read<WHOLE>(images.x, (plane * task.call.h + row) * task.call.w, images.count);
}

template <bool WHOLE, class T>
KERNELS_INLINE void output_row(const Up &task, const Images<T> &images, int64_t at,
                               const Row<1> &row) {
    V a = {}, b = {};
    KERNELS_UNROLL
    for (int k = 0; k < 2; ++k) {
        a += task.even[k] * task.even_picks[k].of(row);
        b += task.odd[k] * task.odd_picks[k].of(row);
    }
    write_pairs<WHOLE>(images.y, at, images.end, a, b);
}

/* Two output rows at a time that see the same two rows of x, the first of them the odd taps. */
template <bool WHOLE, class T>
KERNELS_INLINE void run_plane(const Up &task, const Images<T> &images, int64_t plane) {
    const Sizes &call = task.call;
    const int64_t first = -(call.pad_y % 2 == 0), start = plane * call.out_h;
    int64_t row = (first - call.pad_y + 1) / 2;
    V above = input_row<WHOLE>(task, images, plane, row);
    for (int64_t i = first; i < call.out_h; i += 2, ++row) {
        const V below = input_row<WHOLE>(task, images, plane, row + 1);
        KERNELS_UNROLL
        for (int64_t r = 0; r < 2; ++r) {
            if (i + r < 0 || i + r >= call.out_h) continue;
            Row<1> sum = {};
            sum.part[0] += task.taps_y[1 - r] * above;
            sum.part[0] += task.taps_y[3 - r] * below;
            output_row<WHOLE>(task, images, (start + i + r) * call.out_w, sum);
        }
        above = below;
    }
}

// ---------------------------------------------------------------- down

template <int VECTORS>
struct Down {
    static constexpr int UP = 1, DOWN = 2;
    static constexpr int IN = VECTORS, OUT = 1;
    Sizes call;
    V taps_y[TAPS], taps_x[TAPS];
    Pick picks[TAPS];

    explicit Down(const Resampling<float> &p)
        : call(p), picks{{0 - p.pad_x, 2, p.w},
                         {1 - p.pad_x, 2, p.w},
                         {2 - p.pad_x, 2, p.w},
                         {3 - p.pad_x, 2, p.w}} {
        for (int k = 0; k < TAPS; ++k) {
            taps_y[k] = splat<V>(p.taps_y[k]), taps_x[k] = splat<V>(p.taps_x[k]);
        }
    }
};

template <bool WHOLE, int VECTORS, class T>
KERNELS_INLINE void run_plane(const Down<VECTORS> &task, const Images<T> &images, int64_t plane) {
    const Sizes &call = task.call;
    for (int64_t i = 0; i < call.out_h; ++i) {
        Row<VECTORS> sum = {};
        KERNELS_UNROLL
        for (int k = 0; k < TAPS; ++k) {
            const int64_t row = 2 * i - call.pad_y + k;
            if (row < 0 || row >= call.h) continue;
            const int64_t at = (plane * call.h + row) * call.w;
            KERNELS_UNROLL
            for (int v = 0; v < VECTORS; ++v) {
                sum.part[v] += task.taps_y[k] * read<WHOLE>(images.x, at + v * L, images.count);
            }
        }
        V y = {};
        KERNELS_UNROLL
        for (int k = 0; k < TAPS; ++k) y += task.taps_x[k] * task.picks[k].of(sum);
        write<WHOLE>(images.y, (plane * call.out_h + i) * call.out_w, images.end, y);
    }
}

// ---------------------------------------------------------------- all planes

/* The planes [begin, end), the last ones of them with care for the ends of x and of their y. */
template <class Task, class T>
static void run_planes(const Task &shared, const T *x, T *y, int64_t begin, int64_t end) {
    const Task task = shared;  // a copy, which no store can change: it stays in registers
    const Sizes &call = task.call;
    const int64_t in = call.h * call.w, out = call.out_h * call.out_w;
    const Images<T> images{x, y, call.planes * in, end * out};
    int64_t plane = begin;
    const auto whole = [&] {
        return (plane + 1) * in - call.w + Task::IN * L <= images.count &&
               (plane + 1) * out - call.out_w + Task::OUT * L <= images.end;
    };
    for (; plane < end && whole(); ++plane) run_plane<true>(task, images, plane);
    for (; plane < end; ++plane) run_plane<false>(task, images, plane);
}

template <class Task, class T>
static void run(const Resampling<float> &call, const T *x, T *y) {
    const Task task(call);
#pragma omp parallel for schedule(static) num_threads(call.threads) if (call.threads > 1)
    for (int64_t i = 0; i < call.threads; ++i) {
        run_planes(task, x, y, call.planes * i / call.threads,
                   call.planes * (i + 1) / call.threads);
    }
}

template <class Task>
static bool fits(const Resampling<float> &call) {
    return call.group == 1 && call.square(Task::UP, Task::DOWN, TAPS) &&
           call.w <= Task::IN * L && call.out_w <= Task::OUT * L;
}

}  // namespace

template <class T>
bool resample_narrow(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    if (fits<Up>(call)) {
        run<Up>(call, x, y);
    } else if (fits<Down<1>>(call)) {
        run<Down<1>>(call, x, y);
    } else if (fits<Down<2>>(call)) {
        run<Down<2>>(call, x, y);
    } else {
        return false;
    }
    return true;
}

#else

template <class T>
bool resample_narrow(const Resampling<Accumulation<T>> &, const T *, T *) {
    return false;
}

#endif

template bool resample_narrow(const Resampling<float> &, const float *, float *);
template bool resample_narrow(const Resampling<float> &, const BFloat16 *, BFloat16 *);
#if defined(__F16C__)
template bool resample_narrow(const Resampling<float> &, const Float16 *, Float16 *);
#endif

}  // namespace kernels
