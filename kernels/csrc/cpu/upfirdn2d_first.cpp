/* Rows as flat arrays: planes (channels first), and pixels of few channels. Filters of rank 1.
 *
 * Some output rows at a time: the vertical pass writes them, unfinished, to scratch rows with
 * zeros on both sides, and the horizontal pass reads those at the offsets 0, group, 2 group ...
 * Down: even and odd columns of a scratch row go different ways, so that only wanted outputs are
 * computed. Up: of each two outputs, each comes from half of the taps, and they are interleaved.
 * The last vector of a row overlaps the one before it, so no row has a remainder.
 */
#include "upfirdn2d.h"

#include <utility>

#include <omp.h>

namespace kernels {
namespace {

template <class T_, int UP_, int DOWN_, int TAPS_, int L_>
struct Shape {
    using T = T_;
    using A = Accumulation<T>;
    static constexpr int UP = UP_, DOWN = DOWN_, TAPS = TAPS_, L = L_;
    using V = ShortVector<A, L>;
    static constexpr auto LANES = std::make_index_sequence<L>{};
    static constexpr int PHASES = UP * DOWN;     // ways to go through the taps of a row
    static constexpr int COUNT = TAPS / PHASES;  // taps in each
    // A band is two output rows. Up: it starts at the first of those that see the same inputs.
    static constexpr int ROWS = 2, FIRST_TAP = UP - 1;
    static constexpr int IN_ROWS = (DOWN * (ROWS - 1) + TAPS - 1 - FIRST_TAP) / UP + 1;
};

template <class S>
struct Filter {
    typename S::V y[S::TAPS], x[S::PHASES][S::COUNT];
};

/* A scratch row begins at column `first` of x and has `length`; x has [begin, end) of them.
 * Up: the second of two outputs sees columns from `shift` further on, and other taps. */
struct Columns {
    int64_t first, length, begin, end, shift;
};

/* A thread's scratch: a row for each output row of `bands` bands, then two rows of `half`. */
struct Layout {
    int64_t bands, row, half;
};

template <class S>
struct Task {
    Sizes call;
    const typename S::T *x, *zeros;
    typename S::T *y;
    Filter<S> f;
    Columns columns;
    Layout layout;
    int64_t first_row, bands_of_plane;
};

template <class S>
static Columns columns_of(const Resampling<typename S::A> &call) {
    Columns c{-call.pad_x, call.out_w * S::DOWN + S::TAPS - S::DOWN, 0, 0, 0};
    if (S::UP == 2) {
        c.first = ceil_divide(-call.pad_x, 2);
        c.shift = call.pad_x % 2 == 0;
        c.length = ceil_divide(call.out_w, 2) + S::COUNT;
    }
    c.begin = smaller(larger(c.first, 0), call.w);
    c.end = larger(smaller(c.first + c.length, call.w), c.begin);
    return c;
}

template <class S>
static Filter<S> filter_of(const Resampling<typename S::A> &call) {
    Filter<S> f;
    // Up by 2 from an odd place: the first output meets the odd taps.
    const int swap = S::UP == 2 && call.pad_x % 2 != 0;
    for (int j = 0; j < S::TAPS; ++j) {
        f.y[j] = typename S::V{} + call.taps_y[j];
        f.x[(j + swap) % S::PHASES][j / S::PHASES] = typename S::V{} + call.taps_x[j];
    }
    return f;
}

// ---------------------------------------------------------------- vertically

template <class S>
KERNELS_INLINE void filter_vertically(const typename S::T *const *rows, const Filter<S> &f,
                                      typename S::A *__restrict out, int64_t out_stride,
                                      int64_t n) {
    const typename S::T *in[S::IN_ROWS];
    for (int q = 0; q < S::IN_ROWS; ++q) in[q] = rows[q];
    KERNELS_FOR_VECTORS(i, n, S::L) {
        typename S::V sums[S::ROWS] = {};
        KERNELS_UNROLL
        for (int q = 0; q < S::IN_ROWS; ++q) {
            const auto v = load<S::L>(in[q] + i);
            KERNELS_UNROLL
            for (int r = 0; r < S::ROWS; ++r) {
                const int tap = S::UP * q - S::DOWN * r + S::FIRST_TAP;
                if (tap >= 0 && tap < S::TAPS) sums[r] += f.y[tap] * v;
            }
        }
        KERNELS_UNROLL
        for (int r = 0; r < S::ROWS; ++r) store<S::L>(out + r * out_stride + i, sums[r]);
    }
}

// ---------------------------------------------------------------- horizontally

/* sum + a phase of the filter on what lies at values, values + group, ... */
template <class S>
KERNELS_INLINE typename S::V correlate(const typename S::A *values, int64_t group,
                                       const typename S::V (&taps)[S::COUNT], typename S::V sum) {
    KERNELS_UNROLL
    for (int j = 0; j < S::COUNT; ++j) sum += taps[j] * load<S::L>(values + j * group);
    return sum;
}

/* Every output from one phase; `second`: and from the other one there. */
template <class S, class To>
KERNELS_INLINE void filter_row(const typename S::A *__restrict values, int64_t group,
                               const Filter<S> &f, const typename S::A *__restrict second,
                               To *__restrict y, int64_t n) {
    KERNELS_FOR_VECTORS(i, n, S::L) {
        typename S::V sum = correlate<S>(values + i, group, f.x[0], typename S::V{});
        if (S::DOWN == 2) sum = correlate<S>(second + i, group, f.x[S::PHASES - 1], sum);
        store<S::L>(y + i, sum);
    }
}

#if defined(__clang__)
#define KERNELS_SHUFFLE(a, b, type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define KERNELS_SHUFFLE(a, b, type, ...) __builtin_shuffle(a, b, type{__VA_ARGS__})
#endif

template <class S, int FROM, size_t... I>
KERNELS_INLINE typename S::V every_other(typename S::V a, typename S::V b,
                                         std::index_sequence<I...>) {
    using Index = ShortVector<int32_t, S::L>;
    return KERNELS_SHUFFLE(a, b, Index, (static_cast<int>(2 * I) + FROM)...);
}

/* The values at every other place from `values` on. Reads 2 L. */
template <class S>
KERNELS_INLINE void load_pairs(const typename S::A *values, typename S::V &even,
                               typename S::V &odd) {
    const auto a = load<S::L>(values), b = load<S::L>(values + S::L);
    even = every_other<S, 0>(a, b, S::LANES);
    odd = every_other<S, 1>(a, b, S::LANES);
}

template <class S>
KERNELS_INLINE void filter_row_down(const typename S::A *__restrict values, const Filter<S> &f,
                                    typename S::T *__restrict y, int64_t n) {
    KERNELS_FOR_VECTORS(i, n, S::L) {
        typename S::V sum = {}, even, odd;
        KERNELS_UNROLL
        for (int j = 0; j < S::COUNT; ++j) {
            load_pairs<S>(values + 2 * (i + j), even, odd);
            sum += f.x[0][j] * even;
            sum += f.x[S::PHASES - 1][j] * odd;
        }
        store<S::L>(y + i, sum);
    }
}

template <class S, int FROM, size_t... I>
KERNELS_INLINE typename S::V interleaved(typename S::V a, typename S::V b,
                                         std::index_sequence<I...>) {
    using Index = ShortVector<int32_t, S::L>;
    return KERNELS_SHUFFLE(a, b, Index, (FROM + static_cast<int>(I / 2 + I % 2 * S::L))...);
}

template <class S>
KERNELS_INLINE void filter_row_up(const typename S::A *__restrict values, const Filter<S> &f,
                                  int64_t shift, typename S::T *__restrict y, int64_t pairs) {
    KERNELS_FOR_VECTORS(i, pairs, S::L) {
        const auto a = correlate<S>(values + i, 1, f.x[0], typename S::V{});
        const auto b = correlate<S>(values + i + shift, 1, f.x[S::PHASES - 1], typename S::V{});
        store<S::L>(y + 2 * i, interleaved<S, 0>(a, b, S::LANES));
        store<S::L>(y + 2 * i + S::L, interleaved<S, S::L / 2>(a, b, S::LANES));
    }
}

/* The last output of an odd number. */
template <class S>
static void finish_row_up(const typename S::A *values, const Task<S> &task, typename S::T *y) {
    const auto &call = task.call;
    typename S::A sum = 0;
    for (int j = 0; j < S::COUNT; ++j) {
        sum += task.f.x[0][j][0] * values[call.out_w / 2 + j];
    }
    y[call.out_w - 1] = to_storage<typename S::T>(sum);
}

// ---------------------------------------------------------------- pixels of several values

template <class A>
static void split_pixels(const A *__restrict values, int64_t group, int64_t pixels,
                         A *__restrict even, A *__restrict odd) {
    for (int64_t i = 0; i < pixels; ++i) {
        for (int64_t c = 0; c < group; ++c) {
            even[i * group + c] = values[2 * i * group + c];
            odd[i * group + c] = values[(2 * i + 1) * group + c];
        }
    }
}

template <class T, class A>
static void interleave_pixels(const A *__restrict even, const A *__restrict odd, int64_t group,
                              int64_t pixels, T *__restrict y) {
    for (int64_t i = 0; i < pixels; ++i) {
        const A *from = (i % 2 ? odd : even) + i / 2 * group;
        for (int64_t c = 0; c < group; ++c) y[i * group + c] = to_storage<T>(from[c]);
    }
}

/* A scratch row -> a row of y. `spare` has two rows of half the length. */
template <class S>
KERNELS_INLINE void finish_row(const Task<S> &task, const typename S::A *values,
                               typename S::A *spare, typename S::T *y) {
    const auto &call = task.call;
    const int64_t group = call.group, shift = task.columns.shift;
    typename S::A *second = spare + task.layout.half;
    if constexpr (S::PHASES == 1) {
        filter_row<S>(values, group, task.f, values, y, call.out_w * group);
    } else if constexpr (S::DOWN == 2) {
        if constexpr (S::L > 1) {
            if (group == 1) return filter_row_down<S>(values, task.f, y, call.out_w);
        }
        split_pixels(values, group, task.columns.length / 2, spare, second);
        filter_row<S>(spare, group, task.f, second, y, call.out_w * group);
    } else {
        if constexpr (S::L > 1) {
            if (group == 1) {
                filter_row_up<S>(values, task.f, shift, y, call.out_w / 2);
                if (call.out_w % 2) finish_row_up<S>(values, task, y);
                return;
            }
        }
        const int64_t n = ceil_divide(call.out_w, 2) * group;
        filter_row<S>(values, group, task.f, values, spare, n);
        Filter<S> other;
        std::memcpy(&other.x[0], &task.f.x[1], sizeof other.x[0]);
        filter_row<S>(values + shift * group, group, other, values, second, n);
        interleave_pixels(spare, second, group, call.out_w, y);
    }
}

// ---------------------------------------------------------------- bands of outputs

template <class S>
KERNELS_INLINE void start_band(const Task<S> &task, int64_t plane, int64_t out_row,
                               typename S::A *scratch) {
    const auto &call = task.call;
    const Columns &c = task.columns;
    const int64_t row = (S::DOWN * out_row - call.pad_y + S::FIRST_TAP) / S::UP;
    const int64_t size = call.w * call.group;
    const int64_t first = (plane * call.h + row) * size + c.begin * call.group;
    const typename S::T *rows[S::IN_ROWS];
    KERNELS_UNROLL
    for (int q = 0; q < S::IN_ROWS; ++q) {
        const bool inside = row + q >= 0 && row + q < call.h;
        rows[q] = inside ? task.x + (first + q * size) : task.zeros;
    }
    filter_vertically<S>(rows, task.f, scratch + (c.begin - c.first) * call.group,
                         task.layout.row, (c.end - c.begin) * call.group);
}

/* The place of a band, counted up without a division. */
struct Place {
    int64_t plane, band, bands_of_plane;

    Place(int64_t index, int64_t bands_of_plane_)
        : plane(index / bands_of_plane_), band(index % bands_of_plane_),
          bands_of_plane(bands_of_plane_) {}
    void advance() {
        if (++band == bands_of_plane) band = 0, ++plane;
    }
};

/* The bands [begin, end) of all planes, first all of them vertically: so no load meets a store
 * that is still under way. */
template <class S>
static void run_bands(const Task<S> &shared, int64_t begin, int64_t end,
                      typename S::A *scratch) {
    const Task<S> task = shared;  // a copy, which no store can change: it stays in registers
    const auto &call = task.call;
    const Layout &layout = task.layout;
    const int64_t size = S::ROWS * layout.row, out_row = call.out_w * call.group;
    Place at(begin, task.bands_of_plane);
    typename S::A *band = scratch;
    for (int64_t i = begin; i < end; ++i, at.advance(), band += size) {
        start_band<S>(task, at.plane, task.first_row + at.band * S::ROWS, band);
    }
    typename S::A *spare = scratch + layout.bands * size;
    at = Place(begin, task.bands_of_plane);
    band = scratch;
    for (int64_t i = begin; i < end; ++i, at.advance(), band += size) {
        const int64_t first = task.first_row + at.band * S::ROWS;
        const int64_t start = (at.plane * call.out_h + first) * out_row;
        for (int64_t r = 0; r < S::ROWS; ++r) {
            if (first + r < 0 || first + r >= call.out_h) continue;
            finish_row<S>(task, band + r * layout.row, spare, task.y + (start + r * out_row));
        }
    }
}

// Values in scratch rows that one pass leaves to the next: half of a first-level cache.
constexpr int64_t ROOM = 4096;

template <class S>
static void run(const Resampling<typename S::A> &call, const Columns &columns,
                const typename S::T *x, typename S::T *y) {
    using A = typename S::A;
    // Vectors of every other value read on past the end of a row.
    const int64_t row = Scratch<A>::round_up(columns.length * call.group + 2 * S::L);
    const int64_t bands = larger(1, smaller(ROOM / (S::ROWS * row), 32));
    const Layout layout{bands, row, S::PHASES > 1 ? row : 0};
    const int64_t first_row = S::UP == 2 ? -(call.pad_y % 2 == 0) : 0;
    const int64_t bands_of_plane = ceil_divide(call.out_h - first_row, S::ROWS);
    Scratch<typename S::T> zeros(1, call.w * call.group);
    Scratch<A> scratch(call.threads, bands * S::ROWS * row + 2 * layout.half);
    const Task<S> task{call,    x,      zeros.part(0), y,             filter_of<S>(call),
                       columns, layout, first_row,     bands_of_plane};
    const int64_t all = call.planes * bands_of_plane, parts = ceil_divide(all, bands);
#pragma omp parallel for schedule(static) num_threads(call.threads) if (call.threads > 1)
    for (int64_t i = 0; i < parts; ++i) {
        run_bands<S>(task, i * bands, smaller((i + 1) * bands, all),
                     scratch.part(omp_get_thread_num()));
    }
}

/* With the longest vectors that fit into every row. */
template <class T, int UP, int DOWN, int TAPS, int L>
static void run_vectors(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    using S = Shape<T, UP, DOWN, TAPS, L>;
    const Columns c = columns_of<S>(call);
    const int64_t in = (c.end - c.begin) * call.group, out = call.out_w / UP * call.group;
    if constexpr (L > 1) {
        if ((in > 0 && in < L) || out < L) {
            return run_vectors<T, UP, DOWN, TAPS, (L > 4 ? L / 2 : 1)>(call, x, y);
        }
    }
    run<S>(call, c, x, y);
}

}  // namespace

template <class T>
bool resample_flat(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    constexpr int L = LANES<Accumulation<T>>;
    if (call.square(1, 1, 4)) {
        run_vectors<T, 1, 1, 4, L>(call, x, y);
    } else if (call.square(2, 1, 4)) {
        run_vectors<T, 2, 1, 4, L>(call, x, y);
    } else if (call.square(1, 2, 4)) {
        run_vectors<T, 1, 2, 4, L>(call, x, y);
    } else if (call.square(2, 1, 12)) {
        run_vectors<T, 2, 1, 12, L>(call, x, y);
    } else if (call.square(1, 2, 12)) {
        run_vectors<T, 1, 2, 12, L>(call, x, y);
    } else {
        return false;
    }
    return true;
}

template bool resample_flat(const Resampling<float> &, const float *, float *);
template bool resample_flat(const Resampling<float> &, const BFloat16 *, BFloat16 *);
#if defined(__F16C__)
template bool resample_flat(const Resampling<float> &, const Float16 *, Float16 *);
#endif

}  // namespace kernels
