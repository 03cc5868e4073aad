/* What the library says of itself: the version of its border and the text of its errors. */
#include "../abi.h"

KERNELS_EXPORT int32_t kernels_abi_version(void) { return KERNELS_ABI_VERSION; }

KERNELS_EXPORT const char *kernels_error_text(int32_t error) {
    switch (error) {
        case KERNELS_OK:
            return "no error";
        case KERNELS_UNSUPPORTED:
            return "unsupported combination of type, layout, sizes and operands";
        case KERNELS_NO_MEMORY:
            return "out of memory, or no workspace given where one is needed";
        default:
            return "unknown error";
    }
}
