/* The border between Python and the compiled operators: plain C, no torch.
 *
 * A library, one for each device (and on a CPU for each instruction set), exports the functions
 * below. kernels/native.py mirrors the structures. Every tensor is dense in one of two layouts and
 * is given by its address alone; sizes are 64-bit, so a tensor may have more than 2^31 elements.
 *
 * Floating types: images (x, y, their gradients) have `dtype`. Everything else, small operands and
 * all sums over pixels or channels, has the accumulation type: double for KERNELS_FLOAT64, else
 * float. Arithmetic runs in the accumulation type and is rounded once (to nearest even).
 *
 * Results do not depend on the number of threads: sums run over fixed parts in a fixed order.
 * Functions return 0, a positive error of the CUDA runtime, or a negative KERNELS_ error; those of
 * scratch memory, its bytes or a KERNELS_ error. Calls that valid.h does not let pass are refused.
 */
#ifndef KERNELS_ABI_H
#define KERNELS_ABI_H

#include <stdint.h>

#define KERNELS_ABI_VERSION 1

#if defined(__cplusplus)
#define KERNELS_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define KERNELS_EXPORT __attribute__((visibility("default")))
#endif

enum { KERNELS_FLOAT64 = 0, KERNELS_FLOAT32 = 1, KERNELS_BFLOAT16 = 2, KERNELS_FLOAT16 = 3 };

/* [n,c,p]: planes of p pixels (NCHW). [n,p,c]: pixels of c channels (NHWC). */
enum { KERNELS_CHANNELS_FIRST = 0, KERNELS_CHANNELS_LAST = 1 };

enum {
    KERNELS_LINEAR = 0,
    KERNELS_RELU = 1,
    KERNELS_LRELU = 2,
    KERNELS_TANH = 3,
    KERNELS_SIGMOID = 4,
    KERNELS_ELU = 5,
    KERNELS_SELU = 6,
    KERNELS_SOFTPLUS = 7,
    KERNELS_SWISH = 8
};

enum { KERNELS_OK = 0, KERNELS_UNSUPPORTED = -1, KERNELS_NO_MEMORY = -2 };

/* How to run: threads on a CPU, the stream (a cudaStream_t) on a GPU; scratch memory on the device
 * of as many bytes as the function's _workspace answers (null where that is 0). */
typedef struct {
    int32_t threads;
    int32_t reserved;
    void *stream;
    void *workspace;
} KernelsRun;

/* y = clamp(gain * act(u), -clamp, clamp) with u = x * d[n,c] + noise[n,p] * strength + b[c].
 *
 * Null operands are left out (d: 1, noise and strength: 0, b: 0). clamp < 0: no clamp.
 * act'(0) is the slope on the left for relu (0) and lrelu (alpha), on the right for elu and selu.
 * The gradient of the clamp is true for every activation: m = gain * act'(u) where
 * |gain * act(u)| < clamp, else 0.
 * NaN goes through every activation and the clamp.
 *
 * from_output: the derivatives are given y in place of x. Only for linear, relu and lrelu with
 * alpha >= 0 and gain > 0 and no d: m is then read off y (y > 0 as u > 0; |y| < clamp).
 */
typedef struct {
    int32_t dtype, layout, act, from_output;
    int64_t n, c, p;
    int64_t noise_n;      /* samples of noise: n, or 1 for the same noise in each */
    double alpha, gain, clamp;
    const void *d;        /* [n,c] or null */
    const void *noise;    /* [noise_n,p] or null */
    const void *strength; /* [1] or null, with noise */
    const void *b;        /* [c] or null */
} KernelsEpilogue;

/* dx = t * d where t = dy * m;  dd[n,c] = sum_p t x;  dstrength = sum t noise;  db[c] = sum t.
 * Outputs that are null are not wanted. x may be null where it is not needed: linear without a
 * clamp, no dd. */
typedef struct {
    const void *x, *dy;
    void *dx, *dd, *dstrength, *db;
} KernelsEpilogueBackward;

/* The adjoint of the backward pass as a function of (dy, x, d, strength, b). With the cotangents
 * gdx [like x], gdd [n,c], gdstrength [1], gdb [c] (each may be null, for 0) and
 *   a   = gdx * d + gdd * x + gdstrength * noise + gdb,
 *   h   = dy * gain * act''(u) * [not clamped] * a      (0 for linear, relu, lrelu):
 *   gdy = m * a                        gx = gdd * t + h * d
 *   gd[n,c] = sum_p (gdx * t + h * x)  gstrength = sum h noise      gb[c] = sum h
 * Outputs that are null are not wanted. x may be null for linear without a clamp and gdd. */
typedef struct {
    const void *x, *dy;
    const void *gdx, *gdd, *gdstrength, *gdb;
    void *gdy, *gx, *gd, *gstrength, *gb;
} KernelsEpilogueDoubleBackward;

/* Zero-stuffs by up, pads (negative: crops), filters each plane, keeps every down-th sample:
 *   y[oy,ox] = gain * sum_{i,j} F[i,j] * U[oy*down_y + i - pad_top, ox*down_x + j - pad_left],
 * U the zero-stuffed x (0 outside), F = f flipped along both axes (a convolution), or f itself if
 * `flip` (a correlation). The filter is either f [fh,fw], or fy [fh] and fx [fw] with f null
 * (f = outer(fy, fx)). Filters have the accumulation type and lie on the device of x. */
typedef struct {
    int32_t dtype, layout;
    int64_t n, c, h, w, out_h, out_w;
    int32_t fh, fw, up_y, up_x, down_y, down_x, pad_top, pad_left;
    int32_t flip, reserved;
    double gain;
    const void *f, *fy, *fx;
} KernelsUpfirdn2d;

/* y[n,i,j,o] = sum over c, k, l of w[o,c,k,l] * x[n,i+k-1,j+l-1,c], x being 0 outside the image: a
 * 3x3 convolution with padding 1, channels last, of `dtype` float32, or bfloat16 where the CPU
 * multiplies that. h and w are even, c and o multiples of 16, all positive. For CPUs alone: on a
 * GPU that is work for cuDNN.
 *
 * w is the filter [o,c,3,3]; if `turned`, w[o,c,k,l] = filter[c,o,2-k,2-l] of a filter [c,o,3,3]:
 * that makes dx of dy. Filters are float; filter_layout as that of an image of n = o (or c). The
 * gradient is
 *   dw[o,c,k,l] = sum over n, i, j of dy[n,i,j,o] * x[n,i+k-1,j+l-1,c]. */
typedef struct {
    int32_t dtype, filter_layout, turned, reserved;
    int64_t n, h, w, c, o;
} KernelsConv3x3;

/* Batch norm, an addition and a ReLU of x [m,c], pixels of c channels: channels last. m is positive
 * and c a positive multiple of 16; `dtype` is not float16. For CPUs alone; PyTorch computes it on
 * GPUs.
 *   mean[c] = sum x / m        variance[c] = sum (x - mean)^2 / m
 *   y = max(u, 0),  u = (x - mean) * weight / sqrt(variance + eps) + bias + residual
 * residual [m,c] may be null, for 0. NaN goes through.
 *
 * The gradient of y is 0 where u <= 0. That is read off y, or where y is null, which is without a
 * residual, off x. With g = dy * [u > 0], s = 1 / sqrt(variance + eps) and z = (x - mean) * s:
 *   dresidual = g        dbias = sum g        dweight = sum g z
 *   dx = weight * s * (g - (dbias + z dweight) / m)      if mean and variance are those of x
 *   dx = weight * s * g                                  if they are `fixed`
 * dresidual may be null, for not wanted. */
typedef struct {
    int32_t dtype, fixed;
    int64_t m, c;
    double eps;
    const void *mean, *variance, *weight, *bias; /* [c]; null for the moments alone */
} KernelsBatchNorm;

typedef struct {
    const void *x, *y, *dy;
    void *dx, *dresidual, *dweight, *dbias;
} KernelsBatchNormBackward;

KERNELS_EXPORT int32_t kernels_abi_version(void);
KERNELS_EXPORT const char *kernels_error_text(int32_t error);

KERNELS_EXPORT int32_t kernels_epilogue(const KernelsEpilogue *, const void *x, void *y,
                                        const KernelsRun *);
KERNELS_EXPORT int64_t kernels_epilogue_backward_workspace(const KernelsEpilogue *,
                                                           const KernelsEpilogueBackward *);
KERNELS_EXPORT int32_t kernels_epilogue_backward(const KernelsEpilogue *,
                                                 const KernelsEpilogueBackward *,
                                                 const KernelsRun *);
KERNELS_EXPORT int64_t kernels_epilogue_double_backward_workspace(
    const KernelsEpilogue *, const KernelsEpilogueDoubleBackward *);
KERNELS_EXPORT int32_t kernels_epilogue_double_backward(const KernelsEpilogue *,
                                                        const KernelsEpilogueDoubleBackward *,
                                                        const KernelsRun *);
KERNELS_EXPORT int64_t kernels_upfirdn2d_workspace(const KernelsUpfirdn2d *);
KERNELS_EXPORT int32_t kernels_upfirdn2d(const KernelsUpfirdn2d *, const void *x, void *y,
                                         const KernelsRun *);
/* Their scratch memory depends on the threads. */
KERNELS_EXPORT int64_t kernels_conv3x3_workspace(const KernelsConv3x3 *, const KernelsRun *);
KERNELS_EXPORT int32_t kernels_conv3x3(const KernelsConv3x3 *, const void *x, const void *filter,
                                       void *y, const KernelsRun *);
KERNELS_EXPORT int64_t kernels_conv3x3_gradient_workspace(const KernelsConv3x3 *,
                                                          const KernelsRun *);
KERNELS_EXPORT int32_t kernels_conv3x3_gradient(const KernelsConv3x3 *, const void *x,
                                                const void *dy, void *dfilter, const KernelsRun *);
KERNELS_EXPORT int64_t kernels_batch_moments_workspace(const KernelsBatchNorm *);
KERNELS_EXPORT int32_t kernels_batch_moments(const KernelsBatchNorm *, const void *x, void *mean,
                                             void *variance, const KernelsRun *);
KERNELS_EXPORT int64_t kernels_batch_norm_workspace(const KernelsBatchNorm *);
KERNELS_EXPORT int32_t kernels_batch_norm(const KernelsBatchNorm *, const void *x,
                                          const void *residual, void *y, const KernelsRun *);
KERNELS_EXPORT int64_t kernels_batch_norm_backward_workspace(const KernelsBatchNorm *);
KERNELS_EXPORT int32_t kernels_batch_norm_backward(const KernelsBatchNorm *,
                                                   const KernelsBatchNormBackward *,
                                                   const KernelsRun *);

#endif
