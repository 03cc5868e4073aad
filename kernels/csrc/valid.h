/* Which calls make sense. Every library asks here before it computes, so that one refuses what
 * another does; a library may refuse more, for instance sizes that do not fit its grid.
 *
 * Tensors without elements may be null.
 */
#ifndef KERNELS_VALID_H
#define KERNELS_VALID_H

#include <initializer_list>

#include "formulas.h"

namespace kernels {

inline bool is_known(int32_t dtype, int32_t layout) {
    return dtype >= KERNELS_FLOAT64 && dtype <= KERNELS_FLOAT16 &&
           (layout == KERNELS_CHANNELS_FIRST || layout == KERNELS_CHANNELS_LAST);
}

/* Whether so many elements, of 8 bytes, have addresses. */
inline bool is_size(int64_t n, int64_t c, int64_t h, int64_t w) {
    int64_t bytes = 8;
    for (const int64_t size : {n, c, h, w}) {
        if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return false;
    }
    return true;
}

/* --------------------------------------------------------------------- the epilogue */

inline bool is_empty(const KernelsEpilogue &e) { return e.n == 0 || e.c == 0 || e.p == 0; }

/* Whether m can be read off y: see from_output in abi.h. */
inline bool is_readable(const KernelsEpilogue &e) {
    return is_piecewise_linear(e.act) && !e.d && e.gain > 0 &&
           (e.act != KERNELS_LRELU || e.alpha >= 0);
}

/* Whether m depends on x: it is constant for a linear activation without a clamp. */
inline bool slope_needs_x(const KernelsEpilogue &e) {
    return e.act != KERNELS_LINEAR || e.clamp >= 0;
}

inline bool needs_x(const KernelsEpilogue &e, const KernelsEpilogueBackward &g) {
    return slope_needs_x(e) || g.dd;
}

inline bool needs_x(const KernelsEpilogue &e, const KernelsEpilogueDoubleBackward &g) {
    return slope_needs_x(e) || g.gdd;
}

inline bool is_valid(const KernelsEpilogue &e) {
    const bool noisy = !e.noise || e.noise_n == 1 || e.noise_n == e.n;
    return is_known(e.dtype, e.layout) && e.act >= KERNELS_LINEAR && e.act <= KERNELS_SWISH &&
           is_size(e.n, e.c, e.p, 1) && noisy && (!e.from_output || is_readable(e));
}

inline bool is_valid(const KernelsEpilogue &e, const void *x, const void *y) {
    return is_valid(e) && !e.from_output && (is_empty(e) || (x && y));
}

/* The gradient of d is over x, which y does not tell. */
inline bool is_valid(const KernelsEpilogue &e, const KernelsEpilogueBackward &g) {
    const bool there = g.dy && (g.x || !needs_x(e, g));
    return is_valid(e) && (is_empty(e) || there) && !(e.from_output && g.dd);
}

inline bool is_valid(const KernelsEpilogue &e, const KernelsEpilogueDoubleBackward &g) {
    const bool there = g.dy && (g.x || !needs_x(e, g));
    return is_valid(e) && (is_empty(e) || there) && !(e.from_output && (g.gdd || g.gd));
}

/* --------------------------------------------------------------------- upfirdn2d */

inline bool has_outputs(const KernelsUpfirdn2d &u) {
    return u.n > 0 && u.c > 0 && u.out_h > 0 && u.out_w > 0;
}

inline bool is_valid(const KernelsUpfirdn2d &u) {
    const bool sized = is_size(u.n, u.c, u.h, u.w) && is_size(u.n, u.c, u.out_h, u.out_w);
    const bool stepped = u.up_y > 0 && u.up_x > 0 && u.down_y > 0 && u.down_x > 0;
    return is_known(u.dtype, u.layout) && sized && stepped && u.fh > 0 && u.fw > 0 &&
           (u.f || (u.fy && u.fx));
}

inline bool is_valid(const KernelsUpfirdn2d &u, const void *x, const void *y) {
    const bool read = u.h > 0 && u.w > 0;
    return is_valid(u) && (!has_outputs(u) || ((x || !read) && y));
}

/* --------------------------------------------------------------------- conv3x3 */

inline bool is_valid(const KernelsConv3x3 &p) {
    const bool kind = p.dtype == KERNELS_FLOAT32 || p.dtype == KERNELS_BFLOAT16;
    const bool some = p.n > 0 && p.h > 0 && p.w > 0 && p.c > 0 && p.o > 0;
    const bool fits = p.h % 2 == 0 && p.w % 2 == 0 && p.c % 16 == 0 && p.o % 16 == 0;
    return kind && is_known(p.dtype, p.filter_layout) && some && fits &&
           is_size(p.n, p.c, p.h, p.w) && is_size(p.n, p.o, p.h, p.w) && is_size(p.c, p.o, 16, 16);
}

/* --------------------------------------------------------------------- batch norm */

inline bool is_valid(const KernelsBatchNorm &b) {
    const bool kind = b.dtype >= KERNELS_FLOAT64 && b.dtype <= KERNELS_BFLOAT16;
    return kind && b.m > 0 && b.c > 0 && b.c % 16 == 0 && is_size(b.m, b.c, 1, 1);
}

inline bool has_operands(const KernelsBatchNorm &b) {
    return is_valid(b) && b.mean && b.variance && b.weight && b.bias;
}

inline bool is_valid(const KernelsBatchNorm &b, const KernelsBatchNormBackward &g) {
    return has_operands(b) && g.x && g.dy && g.dx && g.dweight && g.dbias &&
           (g.y || !g.dresidual);
}

}  // namespace kernels

#endif
