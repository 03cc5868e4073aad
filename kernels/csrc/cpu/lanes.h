/* Vectors of the accumulation type, as wide as the instruction set has them (a GNU extension).
 *
 * Explicit, because what gcc 12 makes of the same loop in plain C++ is slower by half where storage
 * is narrower than the arithmetic, and changes with every line of it.
 */
#ifndef KERNELS_CPU_LANES_H
#define KERNELS_CPU_LANES_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "convert.h"

#define KERNELS_INLINE static inline __attribute__((always_inline))

namespace kernels {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

template <class A, int BYTES>
struct VectorOf {
    typedef A type __attribute__((vector_size(BYTES)));
};
template <class A, int BYTES = VECTOR_BYTES>
using Vector = typename VectorOf<A, BYTES>::type;

template <class A>
constexpr int LANES = VECTOR_BYTES / static_cast<int>(sizeof(A));

/* The same number in each lane. */
template <class V, class A>
KERNELS_INLINE V splat(A value) {
    return value - V{};  // 0 + value would be computed, for the sake of -0
}

/* |value|; NaN stays. */
template <class V>
KERNELS_INLINE V magnitude(V value) {
    if constexpr (std::is_arithmetic_v<V>) {
        return std::fabs(value);
    } else {
        using A = std::decay_t<decltype(value[0])>;
        using Bits = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;
        return (V)((Vector<Bits>)value & (~Bits(0) >> 1));
    }
}

/* value between -bound and bound; NaN stays: the minimum and maximum of x86 answer their second
 * operand where one is NaN. (Masks of ones, here and below: gcc 12 warns of its header without.) */
template <class V, class A>
KERNELS_INLINE V clamped(V value, A bound) {
    const V limit = splat<V>(bound);
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<V, Vector<float>>) {
        const __m512 low = _mm512_maskz_min_ps(0xffff, (__m512)limit, (__m512)value);
        return (V)_mm512_maskz_max_ps(0xffff, (__m512)-limit, low);
    }
#elif defined(__AVX__)
    if constexpr (std::is_same_v<V, Vector<float>>) {
        return (V)_mm256_max_ps((__m256)-limit, _mm256_min_ps((__m256)limit, (__m256)value));
    }
#elif defined(__SSE2__)
    if constexpr (std::is_same_v<V, Vector<float>>) {
        return (V)_mm_max_ps((__m128)-limit, _mm_min_ps((__m128)limit, (__m128)value));
    }
#endif
    value = value > limit ? limit : value;
    return value < -limit ? -limit : value;
}

/* The sum of the lanes, in the order of a tree. */
template <class A, int BYTES>
KERNELS_INLINE A sum_of_lanes(Vector<A, BYTES> value) {
    if constexpr (BYTES == 16) {
        if constexpr (sizeof(A) == 8) return value[0] + value[1];
        else return (value[0] + value[2]) + (value[1] + value[3]);
    } else {
        Vector<A, BYTES / 2> low, high;
        std::memcpy(&low, &value, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char *>(&value) + sizeof low, sizeof high);
        return sum_of_lanes<A, BYTES / 2>(low + high);
    }
}

/* The first `size` bytes of V, with zeros behind them. */
template <class V>
KERNELS_INLINE V load_bytes(const void *from, int64_t size) {
    V value = {};
#if defined(__AVX512BW__)
    if constexpr (sizeof(V) == 64) {
        return (V)_mm512_maskz_loadu_epi8(~uint64_t(0) >> (64 - size), from);
    }
#endif
    std::memcpy(&value, from, static_cast<size_t>(size));
    return value;
}

template <class V>
KERNELS_INLINE void store_bytes(V value, void *to, int64_t size) {
#if defined(__AVX512BW__)
    if constexpr (sizeof(V) == 64) {
        _mm512_mask_storeu_epi8(to, ~uint64_t(0) >> (64 - size), (__m512i)value);
        return;
    }
#endif
    std::memcpy(to, &value, static_cast<size_t>(size));
}

/* A step of a row: COUNT consecutive elements as VECTORS vectors, Raw in memory. */
template <class T>
struct Packet {
    using A = Accumulation<T>;
    using Raw = Vector<A>;
    static constexpr int VECTORS = 1;
    static constexpr int COUNT = LANES<A>;
    Vector<A> lanes[VECTORS];

    KERNELS_INLINE Packet of(Raw raw) { return {{raw}}; }
    Raw raw() const { return lanes[0]; }
};

template <>
struct Packet<Float16> {
    using Raw = Vector<uint16_t, VECTOR_BYTES / 2>;
    static constexpr int VECTORS = 1;
    static constexpr int COUNT = LANES<float>;
    Vector<float> lanes[VECTORS];

    KERNELS_INLINE Packet of(Raw raw) {
#if defined(__AVX512F__)
        return {{(Vector<float>)_mm512_maskz_cvtph_ps(0xffff, (__m256i)raw)}};
#elif defined(__F16C__)
        return {{(Vector<float>)_mm256_cvtph_ps((__m128i)raw)}};
#else
        Packet packet;
        for (int i = 0; i < COUNT; ++i) packet.lanes[0][i] = to_accumulation(Float16{raw[i]});
        return packet;
#endif
    }

    Raw raw() const {
#if defined(__AVX512F__)
        return (Raw)_mm512_maskz_cvtps_ph(0xffff, (__m512)lanes[0], _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
        return (Raw)_mm256_cvtps_ph((__m256)lanes[0], _MM_FROUND_TO_NEAREST_INT);
#else
        Raw raw = {};
        for (int i = 0; i < COUNT; ++i) raw[i] = to_storage<Float16>(lanes[0][i]).bits;
        return raw;
#endif
    }
};

/* Words of two elements: the even ones in one vector, the odd ones in the other. */
template <>
struct Packet<BFloat16> {
    using Raw = Vector<uint32_t>;
    static constexpr int VECTORS = 2;
    static constexpr int COUNT = 2 * LANES<float>;
    Vector<float> lanes[VECTORS];

    KERNELS_INLINE Packet of(Raw raw) {
        return {{(Vector<float>)(raw << 16), (Vector<float>)(raw & 0xffff0000u)}};
    }

    Raw raw() const {
#if defined(__AVX512BF16__)
        // As below, but that numbers under the smallest normal one (1e-38) become 0.
        const auto even_first = _mm512_cvtne2ps_pbh((__m512)lanes[1], (__m512)lanes[0]);
        const Raw word = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const Raw interleaved = word | (word + 16) << 16;
        return (Raw)_mm512_maskz_permutexvar_epi16(~0u, (__m512i)interleaved, (__m512i)even_first);
#else
        return (rounded(lanes[0]) >> 16) | (rounded(lanes[1]) & 0xffff0000u);
#endif
    }

    /* As to_storage does it, with the result in the upper half. What comes from arithmetic is no
     * signalling NaN, so that truncation alone leaves it a NaN. */
    KERNELS_INLINE Raw rounded(Vector<float> value) {
        const Raw bits = (Raw)value;
        const Raw half = ((bits >> 16) & 1u) + 0x7fffu;
        return bits + (value == value ? half : Raw{});
    }
};

template <class T>
KERNELS_INLINE Packet<T> load_packet(const T *x) {
    typename Packet<T>::Raw raw;
    std::memcpy(&raw, x, sizeof raw);
    return Packet<T>::of(raw);
}

template <class T>
KERNELS_INLINE void store_packet(const Packet<T> &packet, T *y) {
    const auto raw = packet.raw();
    std::memcpy(y, &raw, sizeof raw);
}

/* The first n elements of a packet, with zeros behind them. */
template <class T>
KERNELS_INLINE Packet<T> load_some(const T *x, int64_t n) {
    return Packet<T>::of(load_bytes<typename Packet<T>::Raw>(x, n * int64_t(sizeof(T))));
}

template <class T>
KERNELS_INLINE void store_some(const Packet<T> &packet, T *y, int64_t n) {
    store_bytes(packet.raw(), y, n * int64_t(sizeof(T)));
}

}  // namespace kernels

#endif
