/* What the library says of itself: the version of its border, the text of its errors, and what it
 * has not: cuDNN convolves and normalises. */
#include <cuda_runtime.h>

#include "../abi.h"

KERNELS_EXPORT int32_t kernels_abi_version(void) { return KERNELS_ABI_VERSION; }

KERNELS_EXPORT const char *kernels_error_text(int32_t error) {
    switch (error) {
        case KERNELS_UNSUPPORTED:
            return "unsupported combination of type, layout, sizes and operands";
        case KERNELS_NO_MEMORY:
            return "no workspace given where one is needed";
        default:
            return cudaGetErrorString(static_cast<cudaError_t>(error));
    }
}

KERNELS_EXPORT int64_t kernels_conv3x3_workspace(const KernelsConv3x3 *, const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int32_t kernels_conv3x3(const KernelsConv3x3 *, const void *, const void *, void *,
                                       const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int64_t kernels_conv3x3_gradient_workspace(const KernelsConv3x3 *,
                                                          const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int32_t kernels_conv3x3_gradient(const KernelsConv3x3 *, const void *, const void *,
                                                void *, const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int64_t kernels_batch_moments_workspace(const KernelsBatchNorm *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int32_t kernels_batch_moments(const KernelsBatchNorm *, const void *, void *, void *,
                                             const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int64_t kernels_batch_norm_workspace(const KernelsBatchNorm *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int32_t kernels_batch_norm(const KernelsBatchNorm *, const void *, const void *,
                                          void *, const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int64_t kernels_batch_norm_backward_workspace(const KernelsBatchNorm *) {
    return KERNELS_UNSUPPORTED;
}

KERNELS_EXPORT int32_t kernels_batch_norm_backward(const KernelsBatchNorm *,
                                                   const KernelsBatchNormBackward *,
                                                   const KernelsRun *) {
    return KERNELS_UNSUPPORTED;
}
