/* Channels innermost, filters of 4 x 4 taps of rank 1: every row is one stream.
 *
 * A band of output rows is computed from left to right, all channels of a pixel before the next, so
 * that rows are read and written from end to end, as the processor fetches them ahead. (Blocks of
 * channels with their sums in registers, which leap from pixel to pixel, took up to twice as long
 * beyond the L2 cache.) A step filters the next columns of inputs vertically and stores the outputs
 * that are then complete; the columns before them that these see wait in a ring in the L1 cache.
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
    using A = Accumulation<T>;
    using P = Packet<T>;
    using V = Vector<A>;
    static constexpr int ROWS = 2;  // of outputs
    // Up: a band starts at the first of the two rows that see the same inputs.
    static constexpr int FIRST_TAP = UP - 1;
    static constexpr int IN_ROWS = (DOWN * (ROWS - 1) + TAPS - 1 - FIRST_TAP) / UP + 1;
    static constexpr int SEEN = TAPS / UP;  // columns by an output
    // A step reaches the outputs [0, REACHED) from its first on and completes the first UP.
    static constexpr int REACHED = (TAPS - 1) / DOWN + 1;
};

template <class S>
struct Filter {
    typename S::V y[TAPS], x[TAPS];
};

/* Step k reads the columns DOWN k + d + first_in and completes the outputs UP k + e + first_out. */
struct Columns {
    int64_t w, out_w, channels, first_in, first_out;
};

template <class S, class T>
struct Band {
    const T *in[S::IN_ROWS];
    T *out[S::ROWS];
};

/* A packet of channels of a column of inputs, filtered vertically for the rows of a band. */
template <class S>
struct Column {
    typename S::V rows[S::ROWS][S::P::VECTORS];
};

/* The columns that the next outputs see: column i lies in slot i % SEEN, packet by packet. */
template <class S>
struct Ring {
    typename S::A *memory;
    int64_t slot_size;

    static int64_t size_of_slot(int64_t channels) {
        return S::ROWS * ceil_divide(channels, S::P::COUNT) * S::P::COUNT;
    }
    typename S::A *slot(int64_t column) const {
        return memory + (column & (S::SEEN - 1)) * slot_size;
    }
};

template <class S>
KERNELS_INLINE Column<S> kept_column(const typename S::A *slot) {
    Column<S> column;
    KERNELS_UNROLL
    for (int r = 0; r < S::ROWS; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < S::P::VECTORS; ++v, slot += LANES<typename S::A>) {
            column.rows[r][v] = copied<typename S::V>(slot);
        }
    }
    return column;
}

template <class S>
KERNELS_INLINE void keep_column(const Column<S> &column, typename S::A *slot) {
    KERNELS_UNROLL
    for (int r = 0; r < S::ROWS; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < S::P::VECTORS; ++v, slot += LANES<typename S::A>) {
            std::memcpy(slot, &column.rows[r][v], sizeof(typename S::V));
        }
    }
}

template <class S, class T>
KERNELS_INLINE Column<S> filtered_column(const T *const (&rows)[S::IN_ROWS], int64_t offset,
                                         const Filter<S> &f) {
    using P = typename S::P;
    P in[S::IN_ROWS];
    KERNELS_UNROLL
    for (int q = 0; q < S::IN_ROWS; ++q) in[q] = load_packet(rows[q] + offset);
    Column<S> column = {};
    KERNELS_UNROLL
    for (int r = 0; r < S::ROWS; ++r) {
        KERNELS_UNROLL
        for (int v = 0; v < P::VECTORS; ++v) {
            KERNELS_UNROLL
            for (int q = 0; q < S::IN_ROWS; ++q) {
                const int tap = S::UP * q - S::DOWN * r + S::FIRST_TAP;
                if (tap >= 0 && tap < TAPS) column.rows[r][v] += f.y[tap] * in[q].lanes[v];
            }
        }
    }
    return column;
}

/* One step, at its columns: where it reads, writes and keeps, and which of that exists. */
template <class S, class T>
struct Step {
    const T *in[S::IN_ROWS];
    T *out[S::ROWS];
    typename S::A *slots[S::SEEN];  // [i]: of the column i before the last
    int64_t channels;
    bool has_input[S::DOWN], has_output[S::UP];
};

/* The channels from c on, which lie at `place` of a slot. */
template <bool EDGE, class S, class T>
KERNELS_INLINE void step_packet(const Step<S, T> &at, const Filter<S> &f, int64_t c,
                                int64_t place) {
    using P = typename S::P;
    Column<S> seen[S::SEEN];
    KERNELS_UNROLL
    for (int i = 0; i < S::SEEN; ++i) {
        typename S::A *slot = at.slots[i] + place * S::ROWS;
        if (i >= S::DOWN) {
            seen[i] = kept_column<S>(slot);
        } else {
            const int d = S::DOWN - 1 - i;
            seen[i] = {};
            if (!EDGE || at.has_input[d]) {
                seen[i] = filtered_column<S>(at.in, d * at.channels + c, f);
            }
            keep_column<S>(seen[i], slot);
        }
    }
    KERNELS_UNROLL
    for (int e = 0; e < S::UP; ++e) {
        if (EDGE && !at.has_output[e]) continue;
        KERNELS_UNROLL
        for (int r = 0; r < S::ROWS; ++r) {
            P packet = {};
            KERNELS_UNROLL
            for (int v = 0; v < P::VECTORS; ++v) {
                KERNELS_UNROLL
                for (int i = S::SEEN - 1; i >= 0; --i) {
                    const int tap = TAPS - 1 - e - S::UP * i;
                    packet.lanes[v] += f.x[tap] * seen[i].rows[r][v];
                }
            }
            store_packet(packet, at.out[r] + e * at.channels + c);
        }
    }
}

template <bool EDGE, class S, class T>
KERNELS_INLINE void step(const Band<S, T> &band, const Columns &columns, const Filter<S> &f,
                         const Ring<S> &ring, int64_t k) {
    constexpr int64_t COUNT = S::P::COUNT;
    const int64_t channels = columns.channels;
    const int64_t in = S::DOWN * k + columns.first_in, out = S::UP * k + columns.first_out;
    Step<S, T> at;
    at.channels = channels;
    for (int q = 0; q < S::IN_ROWS; ++q) at.in[q] = band.in[q] + in * channels;
    for (int r = 0; r < S::ROWS; ++r) at.out[r] = band.out[r] + out * channels;
    for (int i = 0; i < S::SEEN; ++i) at.slots[i] = ring.slot(S::DOWN * k + S::DOWN - 1 - i);
    for (int d = 0; d < S::DOWN; ++d) at.has_input[d] = in + d >= 0 && in + d < columns.w;
    for (int e = 0; e < S::UP; ++e) at.has_output[e] = out + e >= 0 && out + e < columns.out_w;
    int64_t c = 0;
    for (; c + COUNT <= channels; c += COUNT) step_packet<EDGE>(at, f, c, c);
    if (c < channels) step_packet<EDGE>(at, f, channels - COUNT, c);
}

template <class S, class T>
static void filter_band(const Band<S, T> &band, const Columns &columns, const Filter<S> &taps,
                        const Ring<S> &kept) {
    const Filter<S> f = taps;
    const Band<S, T> rows = band;
    const Columns c = columns;
    const Ring<S> ring = kept;
    const int64_t begin = ceil_divide(-c.first_out - (S::REACHED - 1), S::UP);
    const int64_t end = floor_divide(c.out_w - 1 - c.first_out, S::UP) + 1;
    // Where a step needs no test: all its inputs exist, and all outputs that it completes.
    const int64_t safe = larger(ceil_divide(-c.first_in, S::DOWN),
                                ceil_divide(-c.first_out, S::UP));
    const int64_t safe_end = smaller(floor_divide(c.w - c.first_in, S::DOWN),
                                     floor_divide(c.out_w - c.first_out, S::UP));
    for (int64_t k = begin; k < end; ++k) {
        if (k >= safe && k < safe_end) {
            step<false>(rows, c, f, ring, k);
        } else {
            step<true>(rows, c, f, ring, k);
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
static void run_band(const Task<S, T> &task, int64_t index, T *unwanted, const Ring<S> &ring) {
    const auto &call = task.call;
    const int64_t n = index / task.bands;
    const int64_t out_row = task.first_row + index % task.bands * S::ROWS;
    const int64_t row = (S::DOWN * out_row - call.pad_y + S::FIRST_TAP) / S::UP;
    const int64_t in_size = call.w * call.group, out_size = call.out_w * call.group;
    Band<S, T> band;
    for (int q = 0; q < S::IN_ROWS; ++q) {
        const bool inside = row + q >= 0 && row + q < call.h;
        band.in[q] = inside ? task.x + (n * call.h + row + q) * in_size : task.zeros;
    }
    for (int r = 0; r < S::ROWS; ++r) {
        const bool inside = out_row + r >= 0 && out_row + r < call.out_h;
        band.out[r] = inside ? task.y + (n * call.out_h + out_row + r) * out_size : unwanted;
    }
    filter_band<S>(band, task.columns, task.f, ring);
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
    const int64_t slot_size = Ring<S>::size_of_slot(call.group);
    Scratch<typename S::A> rings(call.threads, S::SEEN * slot_size);
    task.zeros = zeros.part(0);
    const int64_t bands = call.planes * task.bands;
#pragma omp parallel for schedule(static) num_threads(call.threads) if (call.threads > 1)
    for (int64_t i = 0; i < bands; ++i) {
        const int thread = omp_get_thread_num();
        const Ring<S> ring{rings.part(thread), slot_size};
        run_band<S>(task, i, unwanted.part(thread), ring);
    }
}

}  // namespace

template <class T>
bool resample_wide(const Resampling<Accumulation<T>> &call, const T *x, T *y) {
    if (call.group < Packet<T>::COUNT) return false;
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
