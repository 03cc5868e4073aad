/* The arithmetic of the epilogue: of elements, along rows, and of blocks of rows.
 *
 * A row runs along the contiguous axis: channels (LAST) or pixels of one plane. Operands of a
 * channel (d, b, gdd, gdb) are rows where LAST and single values where not; noise is the other way
 * round. Sums over pixels are rows of sums where LAST and totals where not. Operands that are left
 * out are ones or zeros. What is not FULL has no d, noise, gx, nor any gradient of d or strength.
 *
 * V is a vector of A, or A itself: the piecewise linear activations run in vectors, the others
 * call the mathematical library for each element.
 */
#ifndef KERNELS_CPU_EPILOGUE_ROWS_H
#define KERNELS_CPU_EPILOGUE_ROWS_H

#include <algorithm>

#include "../formulas.h"
#include "lanes.h"

namespace kernels::epilogue {

// Elements of a row of operands: few enough for all rows of a block to stay in the first cache.
constexpr int64_t TILE = 512;
// Pixels of a plane in one block, for which the noise is kept at hand.
constexpr int64_t PLANE_TILE = 4096;
// Rows after which float sums over whole rows move on to double.
constexpr int64_t FLUSH_ROWS = 16;

template <class A>
struct Constants {
    A alpha, gain;
    // What |gain * act(u)| is compared with, and the gain where it is not below.
    A limit, gain_outside;
    // The same as alpha and gain, or 1 and 1 if u is the output itself (from_output).
    A value_alpha, value_gain;
    A strength, gdstrength;
};

// --------------------------------------------------------------------- elements

template <class V>
struct Inputs {
    V x, dy, gdx, d, b, gdd, gdb, noise;
};

template <class V>
struct Results {
    V out, gx;                  // out: y, dx or gdy
    V channel, sample, scalar;  // terms of the sums
};

template <int ACT, class V, class A>
KERNELS_INLINE V value_of(V u, A alpha) {
    if constexpr (std::is_arithmetic_v<V>) return act_value<ACT>(u, alpha);
    else if constexpr (ACT == KERNELS_LINEAR) return u;
    else if constexpr (ACT == KERNELS_RELU) return u <= V{} ? V{} : u;
    else return u > V{} ? u : alpha * u;
}

/* term * act'(u). */
template <int ACT, class V, class A>
KERNELS_INLINE V times_slope(V term, V u, A alpha) {
    if constexpr (std::is_arithmetic_v<V>) return term * act_slope<ACT>(u, alpha);
    else if constexpr (ACT == KERNELS_LINEAR) return term;
    else if constexpr (ACT == KERNELS_RELU) return term * (u > V{} ? splat<V>(A(1)) : V{});
    else return u > V{} ? term : alpha * term;  // compares as value_of does, so once for both
}

/* The gain where the output is not clamped, else 0. */
template <int ACT, class V, class A>
KERNELS_INLINE V inside_gain(const Constants<A> &k, V u) {
    const V size = magnitude<V>(k.value_gain * value_of<ACT>(u, k.value_alpha));
    return size < splat<V>(k.limit) ? splat<V>(k.gain) : splat<V>(k.gain_outside);
}

template <bool FULL, class V, class A>
KERNELS_INLINE V argument(const Constants<A> &k, const Inputs<V> &in) {
    if constexpr (FULL) return in.x * in.d + (k.strength * in.noise + in.b);
    else return in.x + in.b;
}

struct Forward {
    template <int ACT, bool FULL, class V, class A>
    KERNELS_INLINE Results<V> element(const Constants<A> &k, const Inputs<V> &in) {
        const V value = k.gain * value_of<ACT>(argument<FULL>(k, in), k.alpha);
        return {clamped(value, k.limit), V{}, V{}, V{}, V{}};
    }
};

struct Backward {
    template <int ACT, bool FULL, class V, class A>
    KERNELS_INLINE Results<V> element(const Constants<A> &k, const Inputs<V> &in) {
        const V u = argument<FULL>(k, in), gain = inside_gain<ACT>(k, u);
        V t = times_slope<ACT>(in.dy * gain, u, k.alpha);
        if constexpr (!is_piecewise_linear(ACT)) t = gain == 0 ? 0 : t;  // even if act' is NaN
        if constexpr (!FULL) return {t, V{}, t, V{}, V{}};
        else return {t * in.d, V{}, t, t * in.x, t * in.noise};
    }
};

struct DoubleBackward {
    template <int ACT, bool FULL, class V, class A>
    KERNELS_INLINE Results<V> element(const Constants<A> &k, const Inputs<V> &in) {
        const V u = argument<FULL>(k, in), gain = inside_gain<ACT>(k, u);
        if constexpr (!FULL) {
            return {times_slope<ACT>((in.gdx + in.gdb) * gain, u, k.alpha), V{}, V{}, V{}, V{}};
        } else {
            const V a = in.gdx * in.d + in.gdd * in.x + (k.gdstrength * in.noise + in.gdb);
            const V gdy = times_slope<ACT>(a * gain, u, k.alpha);
            const V t = times_slope<ACT>(in.dy * gain, u, k.alpha);
            if constexpr (is_piecewise_linear(ACT)) return {gdy, in.gdd * t, V{}, in.gdx * t, V{}};
            else if (gain == 0) return {};  // even if act' or act'' is NaN
            else return curved(in, gdy, t, a * (in.dy * gain * act_curvature<ACT>(u)));
        }
    }

    template <class V>
    KERNELS_INLINE Results<V> curved(const Inputs<V> &in, V gdy, V t, V h) {
        return {gdy, in.gdd * t + h * in.d, h, in.gdx * t + h * in.x, h * in.noise};
    }
};

/* Which sums a pass has, at all: others are not even loaded. */
template <class Pass, int ACT, bool FULL>
struct Sums {
    static constexpr bool ONCE = std::is_same_v<Pass, Backward>;
    static constexpr bool TWICE = std::is_same_v<Pass, DoubleBackward> && FULL;
    static constexpr bool CURVED = TWICE && !is_piecewise_linear(ACT);
    static constexpr bool CHANNEL = ONCE || CURVED;
    static constexpr bool SAMPLE = (ONCE && FULL) || TWICE;
    static constexpr bool SCALAR = (ONCE && FULL) || CURVED;
};

// --------------------------------------------------------------------- rows

/* Where in a row of operands and sums the i-th element has its own: Packets of bfloat16 take even
 * and odd elements apart. */
template <class T>
KERNELS_INLINE int64_t column(int64_t i) {
    return Packet<T>::VECTORS == 1 ? i : i % 2 * (TILE / 2) + i / 2;
}

template <class T>
struct Streams {
    const T *x, *dy, *gdx;
    T *out, *gx;
};

template <class T>
KERNELS_INLINE Streams<T> advanced(const Streams<T> &s, int64_t i) {
    return {s.x + i, s.dy + i, s.gdx + i, s.out + i, s.gx + i};
}

/* Rows, if they run along the row, begin at its first element; else they are single values. */
template <class A>
struct Operands {
    const A *d, *b, *gdd, *gdb, *noise;
    A *channels, *samples;  // rows of sums, only where LAST
};

/* Those of LAST from column i on, but for the noise. */
template <class A>
KERNELS_INLINE Operands<A> advanced(const Operands<A> &o, int64_t i) {
    return {o.d + i, o.b + i, o.gdd + i, o.gdb + i, o.noise, o.channels + i, o.samples + i};
}

template <class V>
struct Totals {
    V channel = {}, sample = {}, scalar = {};
};

template <class V, class A, bool ROW>
KERNELS_INLINE V operand(const A *values, int64_t i) {
    if constexpr (!ROW) return splat<V>(*values);
    V value;
    std::memcpy(&value, values + i, sizeof value);
    return value;
}

template <class V, class A>
KERNELS_INLINE void add_to(A *sums, int64_t i, V term) {
    V sum;
    std::memcpy(&sum, sums + i, sizeof sum);
    sum += term;
    std::memcpy(sums + i, &sum, sizeof sum);
}

/* The operands of V at position i of their rows, and the sums there. */
template <class Pass, int ACT, bool FULL, bool LAST, class V, class A, class S>
KERNELS_INLINE Results<V> element(const Constants<A> &k, Inputs<V> in, const Operands<A> &o,
                                  int64_t i, Totals<S> &totals) {
    using Wanted = Sums<Pass, ACT, FULL>;
    in.d = operand<V, A, LAST>(o.d, i);
    in.b = operand<V, A, LAST>(o.b, i);
    in.gdd = operand<V, A, LAST>(o.gdd, i);
    in.gdb = operand<V, A, LAST>(o.gdb, i);
    in.noise = operand<V, A, !LAST>(o.noise, i);
    const Results<V> out = Pass::template element<ACT, FULL>(k, in);
    if constexpr (LAST && Wanted::CHANNEL) add_to(o.channels, i, out.channel);
    if constexpr (LAST && Wanted::SAMPLE) add_to(o.samples, i, out.sample);
    if constexpr (!LAST && Wanted::CHANNEL) totals.channel += out.channel;
    if constexpr (!LAST && Wanted::SAMPLE) totals.sample += out.sample;
    if constexpr (Wanted::SCALAR) totals.scalar += out.scalar;
    return out;
}

/* One packet of each stream, in registers. */
template <class T>
struct Packets {
    Packet<T> x, dy, gdx, out, gx;
};

template <class Pass, int ACT, bool FULL, bool LAST, class T, class A, class V>
KERNELS_INLINE void packet_step(const Constants<A> &k, Packets<T> &s, const Operands<A> &o,
                                int64_t i, Totals<V> &totals) {
    for (int v = 0; v < Packet<T>::VECTORS; ++v) {
        const Inputs<V> in = {s.x.lanes[v], s.dy.lanes[v], s.gdx.lanes[v], V{}, V{}, V{}, V{}, V{}};
        const int64_t position = column<T>(i + v);
        const auto out = element<Pass, ACT, FULL, LAST>(k, in, o, position, totals);
        s.out.lanes[v] = out.out;
        s.gx.lanes[v] = out.gx;
    }
}

template <class Pass, int ACT, bool FULL, bool LAST, class T, class A, class V>
KERNELS_INLINE void full_step(const Constants<A> &k, const Streams<T> &s, const Operands<A> &o,
                              int64_t i, Totals<V> &totals) {
    Packets<T> p = {load_packet(s.x), load_packet(s.dy), load_packet(s.gdx), {}, {}};
    packet_step<Pass, ACT, FULL, LAST>(k, p, o, i, totals);
    store_packet(p.out, s.out);
    if constexpr (Sums<Pass, ACT, FULL>::TWICE) store_packet(p.gx, s.gx);
}

/* The last elements of a row, fewer than a packet has. */
template <class Pass, int ACT, bool FULL, bool LAST, class T, class A, class V>
KERNELS_INLINE void last_step(const Constants<A> &k, const Streams<T> &s, const Operands<A> &o,
                              int64_t i, int64_t n, Totals<V> &totals) {
    Packets<T> p = {load_some(s.x, n), load_some(s.dy, n), load_some(s.gdx, n), {}, {}};
    packet_step<Pass, ACT, FULL, LAST>(k, p, o, i, totals);
    store_some(p.out, s.out, n);
    if constexpr (Sums<Pass, ACT, FULL>::TWICE) store_some(p.gx, s.gx, n);
}

/* Whether a row may have several noises (make_plan heeds it): in bfloat16 the loop over them costs
 * more than it saves. */
template <class T>
constexpr bool SEVERAL_NOISES = Packet<T>::VECTORS == 1;

/* n elements with one noise, where LAST. */
template <class Pass, int ACT, bool FULL, bool LAST, class T, class A, class V>
KERNELS_INLINE void run_span(const Constants<A> &k, const Streams<T> &s, const Operands<A> &o,
                             int64_t n, Totals<V> &totals) {
    int64_t i = 0;
    for (; i + Packet<T>::COUNT <= n; i += Packet<T>::COUNT) {
        full_step<Pass, ACT, FULL, LAST>(k, advanced(s, i), o, i, totals);
    }
    if (i < n) last_step<Pass, ACT, FULL, LAST>(k, advanced(s, i), o, i, n - i, totals);
}

/* A row of n elements, of which each `span` have one noise where LAST: pixels of whole packets, or
 * one. Else span is n. */
template <class Pass, int ACT, bool FULL, bool LAST, class T, class A>
static void run_row(const Constants<A> &constants, const Streams<T> &s, const Operands<A> &operands,
                    int64_t n, int64_t span, Totals<Vector<A>> &sums) {
    // Copies: what stores to images cannot change stays in registers.
    const Constants<A> k = constants;
    const A d = *operands.d, b = *operands.b, gdd = *operands.gdd, gdb = *operands.gdb;
    Operands<A> o = operands;
    if constexpr (!LAST) o.d = &d, o.b = &b, o.gdd = &gdd, o.gdb = &gdb;
    Totals<Vector<A>> totals;
    if constexpr (LAST && SEVERAL_NOISES<T>) {
        const A *noises = operands.noise;
        for (int64_t i = 0; i < n; i += span) {
            const A noise = *noises++;
            o = advanced(operands, i), o.noise = &noise;
            run_span<Pass, ACT, FULL, LAST>(k, advanced(s, i), o, span, totals);
        }
    } else {
        const A noise = *operands.noise;
        if constexpr (LAST) o.noise = &noise;
        run_span<Pass, ACT, FULL, LAST>(k, s, o, n, totals);
    }
    sums.channel += totals.channel;
    sums.sample += totals.sample;
    sums.scalar += totals.scalar;
}

template <class Pass, int ACT, bool FULL, bool LAST, class T, class A>
static void run_row(const Constants<A> &k, const Streams<T> &s, const Operands<A> &operands,
                    int64_t n, int64_t span, Totals<double> &totals) {
    Operands<A> o = operands;
    for (int64_t i = 0; i < n; ++i) {
        if constexpr (LAST) o.noise = operands.noise + i / span;
        const Inputs<A> in = {to_accumulation(s.x[i]), to_accumulation(s.dy[i]),
                              to_accumulation(s.gdx[i]), 0, 0, 0, 0, 0};
        const auto out = element<Pass, ACT, FULL, LAST>(k, in, o, column<T>(i), totals);
        s.out[i] = to_storage<T>(out.out);
        if constexpr (Sums<Pass, ACT, FULL>::TWICE) s.gx[i] = to_storage<T>(out.gx);
    }
}

// --------------------------------------------------------------------- blocks

template <class T>
struct Block {
    using A = Accumulation<T>;
    Streams<T> streams;  // null: zeros, or not wanted
    int64_t rows, width, pitch;
    int64_t span;  // LAST: elements of a row that share a noise
    // LAST: rows of TILE numbers, with sums added to. Else: one number of each row, null for ones
    // or zeros, with sums stored, null for not wanted.
    const A *d, *b, *gdd, *gdb;
    A *channels, *samples;
    const A *noise;  // LAST: one number of each span, row after row. Else a row. Null: zeros
    double scalar;   // added to
};

template <class T>
using BlockFunction = void (*)(const Constants<Accumulation<T>> &, Block<T> &);

/* What stands in for the piece of a row that an absent stream would have. */
template <class T>
struct Scratch {
    alignas(64) T zeros[TILE] = {};
    alignas(64) T sink[2][TILE];

    Streams<T> piece(const Streams<T> &s, int64_t i) {
        return {s.x ? s.x + i : zeros, s.dy ? s.dy + i : zeros, s.gdx ? s.gdx + i : zeros,
                s.out ? s.out + i : sink[0], s.gx ? s.gx + i : sink[1]};
    }
};

template <int ACT, class A>
using TotalsOf = Totals<std::conditional_t<is_piecewise_linear(ACT), Vector<A>, double>>;

KERNELS_INLINE double total(double value) { return value; }
KERNELS_INLINE double total(Vector<float> value) {
    return sum_of_lanes<float, VECTOR_BYTES>(value);
}
KERNELS_INLINE double total(Vector<double> value) {
    return sum_of_lanes<double, VECTOR_BYTES>(value);
}

/* A block whose rows run along channels, at most TILE of them. */
template <class Pass, int ACT, bool FULL, class T>
static void run_block_last(const Constants<Accumulation<T>> &k, Block<T> &block) {
    using A = Accumulation<T>;
    const A zero = 0;
    const int64_t noises = block.width / block.span;  // of a row
    Scratch<T> scratch;
    for (int64_t begin = 0; begin < block.rows; begin += FLUSH_ROWS) {
        TotalsOf<ACT, A> totals;
        for (int64_t r = begin; r < std::min(block.rows, begin + FLUSH_ROWS); ++r) {
            const A *noise = block.noise ? block.noise + r * noises : &zero;
            const Operands<A> o = {block.d,   block.b, block.gdd,      block.gdb,
                                   noise, block.channels, block.samples};
            const Streams<T> row = scratch.piece(block.streams, r * block.pitch);
            run_row<Pass, ACT, FULL, true>(k, row, o, block.width, block.span, totals);
        }
        if (Sums<Pass, ACT, FULL>::SCALAR) block.scalar += total(totals.scalar);
    }
}

/* The noise of a block's pixels, where Packets look for it; zeros behind the last. */
template <class T>
struct NoiseRow {
    using A = Accumulation<T>;
    alignas(64) A values[PLANE_TILE];

    NoiseRow(const A *noise, int64_t n) {
        constexpr int64_t STEP = Packet<T>::VECTORS;
        for (int64_t start = 0; start < n; start += TILE) {
            const int64_t length = noise ? std::min(TILE, n - start) : 0;
            std::fill_n(values + start, TILE, A(0));
            for (int64_t first = 0; first < STEP; ++first) {
                A *target = values + start + column<T>(first);
                for (int64_t i = first; i < length; i += STEP) *target++ = noise[start + i];
            }
        }
    }
};

/* A block whose rows are planes of one sample, at most PLANE_TILE of their pixels. */
template <class Pass, int ACT, bool FULL, class T>
static void run_block_first(const Constants<Accumulation<T>> &k, Block<T> &block) {
    using A = Accumulation<T>;
    using Wanted = Sums<Pass, ACT, FULL>;
    const A one = 1, zero = 0;
    Scratch<T> scratch;
    const NoiseRow<T> noise(block.noise, FULL ? block.width : 0);
    for (int64_t r = 0; r < block.rows; ++r) {
        TotalsOf<ACT, A> totals;
        for (int64_t start = 0; start < block.width; start += TILE) {
            const Operands<A> o = {block.d ? block.d + r : &one,
                                   block.b ? block.b + r : &zero,
                                   block.gdd ? block.gdd + r : &zero,
                                   block.gdb ? block.gdb + r : &zero,
                                   noise.values + start,
                                   nullptr,
                                   nullptr};
            const Streams<T> row = scratch.piece(block.streams, r * block.pitch + start);
            const int64_t n = std::min(TILE, block.width - start);
            run_row<Pass, ACT, FULL, false>(k, row, o, n, n, totals);
        }
        if (Wanted::SCALAR) block.scalar += total(totals.scalar);
        if (block.channels) block.channels[r] = static_cast<A>(total(totals.channel));
        if (block.samples) block.samples[r] = static_cast<A>(total(totals.sample));
    }
}

}  // namespace kernels::epilogue

#endif
