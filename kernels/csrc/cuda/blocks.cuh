/* How work is divided into blocks: arithmetic on the host. */
#ifndef KERNELS_CUDA_BLOCKS_CUH
#define KERNELS_CUDA_BLOCKS_CUH

#include <cstdint>

namespace kernels {

/* Blocks that keep a large GPU busy; below that, shares get smaller. Fixed, not asked of the
 * device, so that sums are the same on every GPU. */
constexpr int64_t ENOUGH_BLOCKS = 1024;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The least k with 2^k >= count, at most `most`. */
inline int log_ceil(int64_t count, int most) {
    int k = 0;
    while (k < most && (int64_t(1) << k) < count) ++k;
    return k;
}

}  // namespace kernels

#endif
