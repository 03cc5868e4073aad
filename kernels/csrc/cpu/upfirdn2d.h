/* What the parts of upfirdn2d share: the call with its filter made ready, and scratch memory.
 *
 * Axes are called y and x. A row of x is w pixels of `group` values that all get the same filter:
 * the channels where they lie innermost, one value where planes do.
 */
#ifndef KERNELS_CPU_UPFIRDN2D_H
#define KERNELS_CPU_UPFIRDN2D_H

#include "../abi.h"
#include "vectors.h"

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace kernels {

struct Sizes {
    int64_t planes, group, h, w, out_h, out_w;
    int64_t up_y, up_x, down_y, down_x, pad_y, pad_x;
};

/* One call. Taps are in the order of a correlation, and contain the gain. */
template <class A>
struct Resampling : Sizes {
    bool separable;
    std::vector<A> taps_y, taps_x; /* if separable */
    std::vector<A> taps;           /* else [fh,fw] */
    int64_t fh, fw;
    int threads;

    bool square(int64_t up, int64_t down, int64_t size) const {
        return separable && fh == size && fw == size && up_y == up && up_x == up &&
               down_y == down && down_x == down;
    }
};

/* The specialised ways: false where they do not apply. Not for float64, which is for checking
 * derivatives, nor for float16 without instructions for it: the compiler's time is not worth it. */
template <class T>
constexpr bool SPECIALISED = !std::is_same_v<T, double>;
#if !defined(__F16C__)
template <>
constexpr bool SPECIALISED<Float16> = false;
#endif
template <class T>
bool resample_wide(const Resampling<Accumulation<T>> &call, const T *x, T *y);
template <class T>
bool resample_narrow(const Resampling<Accumulation<T>> &call, const T *x, T *y);
template <class T>
bool resample_flat(const Resampling<Accumulation<T>> &call, const T *x, T *y);

static inline int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }
static inline int64_t ceil_divide(int64_t a, int64_t b) { return -floor_divide(-a, b); }

/* for i in vectors of L that cover [0, n); the last may overlap the one before. n >= L, or 0. */
#define KERNELS_FOR_VECTORS(i, n, L) \
    for (int64_t i##_ = 0, i = 0; i##_ < (n) && (i = smaller(i##_, (n) - (L)), true); i##_ += (L))

/* Zeros for each of `parts` threads, on cache lines of their own. */
template <class A>
class Scratch {
  public:
    Scratch(int64_t parts, int64_t size) : size_(round_up(size)), memory_(parts * size_ + LINE) {}
    A *part(int64_t index) {
        const auto address = reinterpret_cast<uintptr_t>(memory_.data());
        return memory_.data() + (-address & 63) / sizeof(A) + index * size_;
    }
    static int64_t round_up(int64_t size) { return (size + LINE - 1) / LINE * LINE; }

  private:
    static constexpr int64_t LINE = 64 / sizeof(A);
    int64_t size_;
    std::vector<A> memory_;
};

}  // namespace kernels

#endif
