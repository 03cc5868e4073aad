/* Storage types, the accumulation type (double for double, else float), and access to memory.
 *
 * N values at once are 16 bytes of the storage type, or one value. Loads go through the read-only
 * path: nothing that a kernel reads may be written while it runs.
 */
#ifndef KERNELS_CUDA_CONVERT_CUH
#define KERNELS_CUDA_CONVERT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace kernels {

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

/* Values in 16 bytes. */
template <class T>
constexpr int VECTOR = 16 / static_cast<int>(sizeof(T));

__host__ __device__ inline double to_accumulation(double value) { return value; }
__host__ __device__ inline float to_accumulation(float value) { return value; }
__host__ __device__ inline float to_accumulation(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__host__ __device__ inline float to_accumulation(__half value) { return __half2float(value); }

/* Rounds to nearest even; overflow gives infinity, NaN stays NaN. */
template <class T>
__host__ __device__ inline T to_storage(Accumulation<T> value) {
    return value;
}
template <>
__host__ __device__ inline __nv_bfloat16 to_storage<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}
template <>
__host__ __device__ inline __half to_storage<__half>(float value) {
    return __float2half_rn(value);
}

/* N rounded values side by side; two 16-bit values are one instruction. */
template <int N, class T>
__device__ inline void round_row(const Accumulation<T> *values, T *row) {
#pragma unroll
    for (int i = 0; i < N; ++i) row[i] = to_storage<T>(values[i]);
}
template <int N>
__device__ inline void round_row(const float *values, __nv_bfloat16 *row) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(values[i], values[i + 1]);
        row[i] = pair.x;
        row[i + 1] = pair.y;
    }
}
template <int N>
__device__ inline void round_row(const float *values, __half *row) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        const __half2 pair = __floats2half2_rn(values[i], values[i + 1]);
        row[i] = pair.x;
        row[i + 1] = pair.y;
    }
}

/* out = x[0..N): one value, or whole vectors of 16 bytes at an address that is a multiple of 16. */
template <int N, class T>
__device__ inline void load(const T *x, Accumulation<T> (&out)[N]) {
    if constexpr (N == 1) {
        out[0] = to_accumulation(__ldg(x));
    } else {
        constexpr int WIDTH = VECTOR<T>;
        static_assert(N % WIDTH == 0, "whole vectors");
#pragma unroll
        for (int first = 0; first < N; first += WIDTH) {
            const uint4 raw = __ldg(reinterpret_cast<const uint4 *>(x + first));
            T row[WIDTH];
            std::memcpy(static_cast<void *>(row), &raw, sizeof raw);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) out[first + i] = to_accumulation(row[i]);
        }
    }
}

/* y[0..N) = values, rounded; as load. */
template <int N, class T>
__device__ inline void store(T *y, const Accumulation<T> (&values)[N]) {
    if constexpr (N == 1) {
        *y = to_storage<T>(values[0]);
    } else {
        constexpr int WIDTH = VECTOR<T>;
        static_assert(N % WIDTH == 0, "whole vectors");
#pragma unroll
        for (int first = 0; first < N; first += WIDTH) {
            T row[WIDTH];
            round_row<WIDTH>(values + first, row);
            uint4 raw;
            std::memcpy(&raw, row, sizeof raw);
            *reinterpret_cast<uint4 *>(y + first) = raw;
        }
    }
}

template <int N, class A>
__device__ inline void fill(A (&out)[N], A value) {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = value;
}

/* Null is as good as aligned: nothing is read there. */
inline bool is_aligned(const void *address) {
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

}  // namespace kernels

#endif
