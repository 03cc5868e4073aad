/* Channels innermost, filters of 4 x 4 taps of rank 1: vertical and horizontal pass in registers.
 *
 * A band of output rows is computed for a block of channels, from left to right. Each step loads
 * a column of inputs, filters it vertically and adds it to the outputs that it reaches: those
 * that are then complete are stored, the others wait in registers. Nothing goes through memory.
 */
#include "upfirdn2d.h"

#include <omp.h>

namespace kernels {
namespace {

constexpr int TAPS = 4;

/* The sizes of one step, for the rates of both axes. */
template <class T, int UP_, int DOWN_>
struct Shape {
    static constexpr int UP = UP_, DOWN = DOWN_;
    using P = Packet<T>;
    using V = Vector<Accumulation<T>>;
    // Channels: a cache line. Less would load lines twice, as the pixels of a row may be so far
    // apart that they push each other out of the cache.
    static constexpr int PACKETS = 64 / (P::COUNT * sizeof(T));
    static constexpr int WIDTH = PACKETS * P::COUNT;
    static constexpr int VECTORS = PACKETS * P::VECTORS;
    static constexpr int ROWS = 2;  // of outputs
    // Up: a band starts at the first of the two rows that see the same inputs.
    static constexpr int FIRST_TAP = UP - 1;
    static constexpr int IN_ROWS = (DOWN * (ROWS - 1) + TAPS - 1 - FIRST_TAP) / UP + 1;
    static constexpr int SEEN_ROWS = IN_ROWS - ROWS * DOWN / UP;  // by the band above
    // A step reaches the outputs [0, REACHED) from its first on and completes the first UP.
    static constexpr int REACHED = (TAPS - 1) / DOWN + 1;
    static constexpr int WAITING = REACHED - UP;
};

template <class S>
struct Filter {
    typename S::V y[TAPS], x[TAPS];
};

/* Step k reads the columns DOWN k + d + first_in and completes the outputs UP k + e + first_out. */
struct Columns {
    int64_t w, out_w, stride, first_in, first_out;
};

/* Its rows at a block of channels, and how far from there what comes next lies: the next block or,
 * after the last one, the first of the next band. */
template <class S, class T>
struct Band {
    const T *in[S::IN_ROWS];
    T *out[S::ROWS];
    int64_t next_in, next_out;
};

template <class S>
struct Sums {
    typename S::V waiting[S::WAITING][S::ROWS][S::VECTORS];
};

template <class S>
using Column = typename S::V[S::ROWS][S::VECTORS];

template <class S, class T>
KERNELS_INLINE void filter_column(const Band<S, T> &band, int64_t offset, const Filter<S> &f,
                                  Column<S> &column) {
    using P = typename S::P;
    // The processor does not guess the line after this one from steps of whole pixels.
    KERNELS_UNROLL
    for (int q = S::SEEN_ROWS; q < S::IN_ROWS; ++q) {
        __builtin_prefetch(band.in[q] + offset + band.next_in);
    }
    KERNELS_UNROLL
    for (int p = 0; p < S::PACKETS; ++p) {
        P in[S::IN_ROWS];
        KERNELS_UNROLL
        for (int q = 0; q < S::IN_ROWS; ++q) {
            in[q] = load_packet(band.in[q] + offset + p * P::COUNT);
        }
        KERNELS_UNROLL
        for (int r = 0; r < S::ROWS; ++r) {
            KERNELS_UNROLL
            for (int v = 0; v < P::VECTORS; ++v) {
                typename S::V sum = {};
                KERNELS_UNROLL
                for (int q = 0; q < S::IN_ROWS; ++q) {
                    const int tap = S::UP * q - S::DOWN * r + S::FIRST_TAP;
                    if (tap >= 0 && tap < TAPS) sum += f.y[tap] * in[q].lanes[v];
                }
                column[r][p * P::VECTORS + v] = sum;
            }
        }
    }
}

/* Output e of those that this step reaches, as far as known. */
template <class S>
KERNELS_INLINE typename S::V add_columns(const Sums<S> &sums, const Column<S> (&columns)[S::DOWN],
                                         const Filter<S> &f, int e, int r, int v) {
    typename S::V sum = {};
    if (e < S::WAITING) sum = sums.waiting[e < S::WAITING ? e : 0][r][v];
    KERNELS_UNROLL
    for (int d = 0; d < S::DOWN; ++d) {
        const int tap = S::UP * d + S::DOWN * (S::REACHED - 1 - e);
        if (tap < TAPS) sum += f.x[tap] * columns[d][r][v];
    }
    return sum;
}

template <bool EDGE, class S, class T>
KERNELS_INLINE void step(const Band<S, T> &band, const Columns &at, const Filter<S> &f,
                         Sums<S> &sums, int64_t k) {
    using P = typename S::P;
    Column<S> columns[S::DOWN];
    KERNELS_UNROLL
    for (int d = 0; d < S::DOWN; ++d) {
        const int64_t x = S::DOWN * k + d + at.first_in;
        if (EDGE && (x < 0 || x >= at.w)) {
            std::memset(columns[d], 0, sizeof columns[d]);
        } else {
            filter_column<S>(band, x * at.stride, f, columns[d]);
        }
    }
    KERNELS_UNROLL
    for (int e = 0; e < S::UP; ++e) {
        const int64_t out = S::UP * k + e + at.first_out;
        if (EDGE && (out < 0 || out >= at.out_w)) continue;
        KERNELS_UNROLL
        for (int r = 0; r < S::ROWS; ++r) {
            T *pixel = band.out[r] + out * at.stride;
            __builtin_prefetch(pixel + band.next_out, 1);
            KERNELS_UNROLL
            for (int p = 0; p < S::PACKETS; ++p) {
                P packet;
                KERNELS_UNROLL
                for (int v = 0; v < P::VECTORS; ++v) {
                    packet.lanes[v] = add_columns(sums, columns, f, e, r, p * P::VECTORS + v);
                }
                store_packet(packet, pixel + p * P::COUNT);
            }
        }
    }
    KERNELS_UNROLL
    for (int e = S::UP; e < S::REACHED; ++e) {
        KERNELS_UNROLL
        for (int r = 0; r < S::ROWS; ++r) {
            KERNELS_UNROLL
            for (int v = 0; v < S::VECTORS; ++v) {
                sums.waiting[e - S::UP][r][v] = add_columns(sums, columns, f, e, r, v);
            }
        }
    }
}

template <class S, class T>
static void filter_band(const Band<S, T> &band, const Columns &columns, const Filter<S> &taps) {
    const Filter<S> f = taps;
    const Band<S, T> rows = band;
    const Columns c = columns;
    Sums<S> sums = {};
    const int64_t begin = ceil_divide(-c.first_out - (S::REACHED - 1), S::UP);
    const int64_t end = floor_divide(c.out_w - 1 - c.first_out, S::UP) + 1;
    // Where a step needs no test: all its inputs exist, and all outputs that it completes.
    const int64_t safe = larger(ceil_divide(-c.first_in, S::DOWN),
                                ceil_divide(-c.first_out, S::UP));
    const int64_t safe_end = smaller(floor_divide(c.w - c.first_in, S::DOWN),
                                     floor_divide(c.out_w - c.first_out, S::UP));
    for (int64_t k = begin; k < end; ++k) {
        if (k >= safe && k < safe_end) {
            step<false>(rows, c, f, sums, k);
        } else {
            step<true>(rows, c, f, sums, k);
        }
    }
}

template <class S, class T>
struct Task {
    const Resampling<Accumulation<T>> &call;
    const T *x;
    T *y;
    Filter<S> f;
    Columns columns;
    int64_t first_row, bands;
    const T *zeros;
};

/* Band `index` of all samples; rows outside y go to `unwanted`. */
template <class S, class T>
static void run_band(const Task<S, T> &task, int64_t index, T *unwanted) {
    const auto &call = task.call;
    const int64_t n = index / task.bands;
    const int64_t out_row = task.first_row + index % task.bands * S::ROWS;
    const int64_t row = (S::DOWN * out_row - call.pad_y + S::FIRST_TAP) / S::UP;
    const int64_t in_size = call.w * call.group, out_size = call.out_w * call.group;
    const T *from = task.x + n * call.h * in_size;
    for (int64_t c = 0; c < call.group; c += S::WIDTH) {
        const int64_t channel = smaller(c, call.group - S::WIDTH);
        const bool last = c + S::WIDTH >= call.group;
        Band<S, T> band;
        band.next_in = last ? S::ROWS * S::DOWN / S::UP * in_size - channel : S::WIDTH;
        band.next_out = last ? S::ROWS * out_size - channel : S::WIDTH;
        for (int q = 0; q < S::IN_ROWS; ++q) {
            const bool inside = row + q >= 0 && row + q < call.h;
            band.in[q] = channel + (inside ? from + (row + q) * in_size : task.zeros);
        }
        for (int r = 0; r < S::ROWS; ++r) {
            const bool inside = out_row + r >= 0 && out_row + r < call.out_h;
            band.out[r] =
                channel + (inside ? task.y + (n * call.out_h + out_row + r) * out_size : unwanted);
        }
        filter_band<S>(band, task.columns, task.f);
    }
}

template <class S, class T>
static void run(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    Task<S, T> task{call, x, y, {}, {}, 0, 0, nullptr};
    for (int i = 0; i < TAPS; ++i) {
        task.f.y[i] = typename S::V{} + call.taps_y[i];
        task.f.x[i] = typename S::V{} + call.taps_x[i];
    }
    task.columns = {call.w, call.out_w, call.group, 0, call.pad_x - S::REACHED + 1};
    if (S::DOWN > 1) {
        task.columns.first_in = -call.pad_x;
        task.columns.first_out = 1 - S::REACHED;
    }
    if (S::UP > 1) task.first_row = (call.pad_y & 1) - 1;
    task.bands = ceil_divide(call.out_h - task.first_row, S::ROWS);
    Scratch<T> zeros(1, call.w * call.group), unwanted(call.threads, call.out_w * call.group);
    task.zeros = zeros.part(0);
    const int64_t bands = call.planes * task.bands;
#pragma omp parallel for schedule(static) num_threads(call.threads) if (call.threads > 1)
    for (int64_t i = 0; i < bands; ++i) {
        run_band<S>(task, i, unwanted.part(omp_get_thread_num()));
    }
}

}  // namespace

template <class T>
bool resample_wide(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    if (call.group < Shape<T, 1, 1>::WIDTH) return false;
    if (call.square(1, 1, TAPS)) {
        run<Shape<T, 1, 1>>(call, x, y);
    } else if (call.square(2, 1, TAPS)) {
        run<Shape<T, 2, 1>>(call, x, y);
    } else if (call.square(1, 2, TAPS)) {
        run<Shape<T, 1, 2>>(call, x, y);
    } else {
        return false;
    }
    return true;
}

template bool resample_wide(const Resampling<float> &, const float *, float *);
template bool resample_wide(const Resampling<float> &, const BFloat16 *, BFloat16 *);
#if defined(__F16C__)
template bool resample_wide(const Resampling<float> &, const Float16 *, Float16 *);
#endif

}  // namespace kernels
