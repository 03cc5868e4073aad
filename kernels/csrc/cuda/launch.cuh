/* How a kernel starts: one-dimensional grids of THREADS threads, on the caller's stream. */
#ifndef KERNELS_CUDA_LAUNCH_CUH
#define KERNELS_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include <cstdint>

#include "../abi.h"

namespace kernels {

constexpr int THREADS = 256;

/* Keeps a parameter out of deduction, so that arguments convert to the kernel's parameters. */
template <class P>
struct Exactly {
    using type = P;
};

/* Returns 0, KERNELS_UNSUPPORTED for a grid that is too large, or the error of the launch. What
 * goes wrong later, while the kernel runs, shows in whatever waits for the stream. */
template <class... P>
int32_t launch(void (*kernel)(P...), int64_t blocks, void *stream,
               typename Exactly<P>::type... arguments) {
    if (blocks == 0) return KERNELS_OK;
    if (blocks > INT32_MAX) return KERNELS_UNSUPPORTED;
    void *addresses[] = {static_cast<void *>(&arguments)...};
    const dim3 grid(static_cast<unsigned>(blocks));
    const cudaError_t error =
        cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, dim3(THREADS), addresses, 0,
                         static_cast<cudaStream_t>(stream));
    // Taken away, or the next launch would report it again.
    if (error != cudaSuccess) cudaGetLastError();
    return static_cast<int32_t>(error);
}

}  // namespace kernels

#endif
