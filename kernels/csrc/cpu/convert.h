/* Storage types and the accumulation type: double for double, else float.
 *
 * to_accumulation and to_storage convert one value and vectorise inside a loop, but for float16,
 * which gcc 12 converts one by one: for that, use load_row and store_row on rows that stay in the
 * cache. Rounding is to nearest even; NaN stays NaN; overflow gives infinity.
 */
#ifndef KERNELS_CPU_CONVERT_H
#define KERNELS_CPU_CONVERT_H

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace kernels {

struct BFloat16 {
    uint16_t bits;
};

struct Float16 {
    uint16_t bits;
};

template <class T>
struct AccumulationOf {
    using type = float;
};
template <>
struct AccumulationOf<double> {
    using type = double;
};
template <class T>
using Accumulation = typename AccumulationOf<T>::type;

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double to_accumulation(double value) { return value; }
static inline float to_accumulation(float value) { return value; }
static inline float to_accumulation(BFloat16 value) {
    return float_of(static_cast<uint32_t>(value.bits) << 16);
}

static inline float to_accumulation(Float16 value) {
#if defined(__F16C__)
    return _cvtsh_ss(value.bits);
#else
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
    const uint32_t magnitude = value.bits & 0x7fffu;
    if (magnitude < 0x0400u) {  // 0 or subnormal: a whole number of 2^-24
        const float size = static_cast<float>(magnitude) * 0x1p-24f;
        return float_of(bits_of(size) | sign);
    }
    // The exponent's bias grows from 15 to 127; infinity and NaN go on to the top.
    const uint32_t bias = magnitude < 0x7c00u ? 112u << 23 : 224u << 23;
    return float_of(((magnitude << 13) + bias) | sign);
#endif
}

template <class T>
static inline T to_storage(Accumulation<T> value) {
    return value;
}

template <>
inline BFloat16 to_storage<BFloat16>(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet_nan = (bits >> 16) | 0x40u;
    return {static_cast<uint16_t>(value == value ? rounded : quiet_nan)};
}

template <>
inline Float16 to_storage<Float16>(float value) {
#if defined(__F16C__)
    return {static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#else
    const uint32_t bits = bits_of(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x47800000u) {  // 2^16 and above
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {
        // Below 2^-14: adding 1/2 leaves a whole number of 2^-24 in the low bits, rounded to even.
        half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return {static_cast<uint16_t>(half | sign)};
#endif
}

/* out[i] = x[i] for i < n, in the accumulation type. */
template <class T>
static inline void load_row(const T *__restrict x, Accumulation<T> *__restrict out, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] = to_accumulation(x[i]);
}

/* y[i] = values[i] for i < n, rounded. */
template <class T>
static inline void store_row(const Accumulation<T> *__restrict values, T *__restrict y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) y[i] = to_storage<T>(values[i]);
}

#if defined(__F16C__)

template <>
inline void load_row<Float16>(const Float16 *__restrict x, float *__restrict out, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
    }
    for (; i < n; ++i) out[i] = to_accumulation(x[i]);
}

template <>
inline void store_row<Float16>(const float *__restrict values, Float16 *__restrict y, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 row = _mm256_loadu_ps(values + i);
        const __m128i half = _mm256_cvtps_ph(row, _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i *>(y + i), half);
    }
    for (; i < n; ++i) y[i] = to_storage<Float16>(values[i]);
}

#endif

}  // namespace kernels

#endif
