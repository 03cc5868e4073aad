/* Vectors of a few values: read in any storage type, computed with in the accumulation type. */
#ifndef KERNELS_CPU_VECTORS_H
#define KERNELS_CPU_VECTORS_H

#include "lanes.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#define KERNELS_UNROLL _Pragma("unroll")
#else
#define KERNELS_UNROLL _Pragma("GCC unroll 32")
#endif

namespace kernels {

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* L values of A, for rows shorter than the vectors of lanes.h too. */
template <class A, int L>
struct ShortVectorOf {
    using type = Vector<A, L * sizeof(A)>;
};
template <class A>
struct ShortVectorOf<A, 1> {
    using type = A;
};
template <class A, int L>
using ShortVector = typename ShortVectorOf<A, L>::type;

template <class V, class T>
KERNELS_INLINE V copied(const T *x) {
    V v;
    std::memcpy(&v, x, sizeof v);
    return v;
}

template <class To, class From>
KERNELS_INLINE To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    return copied<To>(&from);
}

#if defined(__F16C__)

template <int L>
KERNELS_INLINE ShortVector<float, L> load_halves(const Float16 *x) {
    using V = ShortVector<float, L>;
#if defined(__AVX512F__)
    // The masked form: gcc 12 warns of an undefined operand inside the plain one.
    if constexpr (L == 16) return (V)_mm512_maskz_cvtph_ps(0xffff, copied<__m256i>(x));
#endif
    if constexpr (L == 8) return (V)_mm256_cvtph_ps(copied<__m128i>(x));
    if constexpr (L == 4) return (V)_mm_cvtph_ps(_mm_cvtsi64_si128(copied<int64_t>(x)));
}

template <int L>
KERNELS_INLINE auto rounded_to_halves(ShortVector<float, L> v) {
    constexpr int NEAREST = 0;
#if defined(__AVX512F__)
    if constexpr (L == 16) return _mm512_maskz_cvtps_ph(0xffff, (__m512)v, NEAREST);
#endif
    if constexpr (L == 8) return _mm256_cvtps_ph((__m256)v, NEAREST);
    if constexpr (L == 4) return _mm_cvtsi128_si64(_mm_cvtps_ph((__m128)v, NEAREST));
}

#endif

/* With instructions for it, numbers under the smallest normal one (1e-38) become 0. */
template <int L>
KERNELS_INLINE auto rounded_to_bfloat16(ShortVector<float, L> v) {
#if defined(__AVX512BF16__)
    if constexpr (L == 16) {
        return _mm512_cvtneps_pbh((__m512)v);
#if defined(__AVX512VL__)
    } else if constexpr (L == 8) {
        return _mm256_cvtneps_pbh((__m256)v);
#endif
    } else
#endif
    {
        const auto bits = same_bits<ShortVector<uint32_t, L>>(v);
        const auto rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        const auto quiet_nan = (bits >> 16) | 0x40u;
        return __builtin_convertvector(v == v ? rounded : quiet_nan, ShortVector<uint16_t, L>);
    }
}

/* L values from x on, in the accumulation type. */
template <int L, class T>
KERNELS_INLINE ShortVector<Accumulation<T>, L> load(const T *x) {
    if constexpr (L == 1) {
        return to_accumulation(*x);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
        const auto bits = copied<ShortVector<uint16_t, L>>(x);
#if defined(__AVX512F__)
        // In one instruction, where gcc 12 takes four. (The masked form: see load_halves.)
        if constexpr (L == 16) {
            const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits);
            return (ShortVector<float, L>)_mm512_maskz_slli_epi32(0xffff, wide, 16);
        }
#endif
        const auto wide = __builtin_convertvector(bits, ShortVector<uint32_t, L>) << 16;
        return same_bits<ShortVector<float, L>>(wide);
#if defined(__F16C__)
    } else if constexpr (std::is_same_v<T, Float16>) {
        return load_halves<L>(x);
#endif
    } else {
        return copied<ShortVector<T, L>>(x);
    }
}

/* The same back, rounded. */
template <int L, class T>
KERNELS_INLINE void store(T *y, ShortVector<Accumulation<T>, L> v) {
    if constexpr (L == 1) {
        *y = to_storage<T>(v);
    } else if constexpr (std::is_same_v<T, BFloat16>) {
        const auto bits = rounded_to_bfloat16<L>(v);
        std::memcpy(y, &bits, sizeof bits);
#if defined(__F16C__)
    } else if constexpr (std::is_same_v<T, Float16>) {
        const auto bits = rounded_to_halves<L>(v);
        std::memcpy(y, &bits, sizeof bits);
#endif
    } else {
        std::memcpy(y, &v, sizeof v);
    }
}

}  // namespace kernels

#endif
