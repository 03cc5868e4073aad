/* The nine activations and their first and second derivatives, at one value.
 *
 * A is the accumulation type, float or double. The activation is a template parameter, so that a
 * loop over a row has no branch in it. NaN comes out as NaN from each smooth function and from the
 * values of the piecewise linear ones, whose slopes at NaN are those on the left. No finite u
 * overflows in between: every exponential is of a number <= 0.
 */
#ifndef KERNELS_FORMULAS_H
#define KERNELS_FORMULAS_H

#include <cmath>

#include "abi.h"

#if defined(__CUDACC__)
#define KERNELS_DEVICE __host__ __device__
#else
#define KERNELS_DEVICE
#endif

namespace kernels {

constexpr double SELU_SCALE = 1.0507009873554805;
constexpr double SELU_ALPHA = 1.6732632423543772;

/* Piecewise linear: the second derivative is 0, and the sign of u follows from that of the output
 * (for a gain > 0 and, with lrelu, alpha >= 0). */
KERNELS_DEVICE constexpr bool is_piecewise_linear(int act) {
    return act == KERNELS_LINEAR || act == KERNELS_RELU || act == KERNELS_LRELU;
}

template <class A>
KERNELS_DEVICE inline A sigmoid(A u) {
    const A e = std::exp(-std::fabs(u));
    return (u >= A(0) ? A(1) : e) / (A(1) + e);
}

template <class A>
KERNELS_DEVICE inline A sigmoid_slope(A u) {
    const A e = std::exp(-std::fabs(u));
    return e / ((A(1) + e) * (A(1) + e));
}

/* act(u) */
template <int ACT, class A>
KERNELS_DEVICE inline A act_value(A u, A alpha) {
    static_assert(ACT >= KERNELS_LINEAR && ACT <= KERNELS_SWISH, "unknown activation");
    if constexpr (ACT == KERNELS_LINEAR) {
        return u;
    } else if constexpr (ACT == KERNELS_RELU) {
        return u <= A(0) ? A(0) : u;
    } else if constexpr (ACT == KERNELS_LRELU) {
        return u > A(0) ? u : alpha * u;
    } else if constexpr (ACT == KERNELS_TANH) {
        return std::tanh(u);
    } else if constexpr (ACT == KERNELS_SIGMOID) {
        return sigmoid(u);
    } else if constexpr (ACT == KERNELS_ELU) {
        return u >= A(0) ? u : std::expm1(u);
    } else if constexpr (ACT == KERNELS_SELU) {
        return A(SELU_SCALE) * (u >= A(0) ? u : A(SELU_ALPHA) * std::expm1(u));
    } else if constexpr (ACT == KERNELS_SOFTPLUS) {
        return (u > A(0) ? u : A(0)) + std::log1p(std::exp(-std::fabs(u)));
    } else {
        return u * sigmoid(u);
    }
}

/* act'(u). At 0: the left slope for relu and lrelu, the right one for elu and selu. */
template <int ACT, class A>
KERNELS_DEVICE inline A act_slope(A u, A alpha) {
    static_assert(ACT >= KERNELS_LINEAR && ACT <= KERNELS_SWISH, "unknown activation");
    if constexpr (ACT == KERNELS_LINEAR) {
        return A(1);
    } else if constexpr (ACT == KERNELS_RELU) {
        return u > A(0) ? A(1) : A(0);
    } else if constexpr (ACT == KERNELS_LRELU) {
        return u > A(0) ? A(1) : alpha;
    } else if constexpr (ACT == KERNELS_TANH) {
        return A(4) * sigmoid_slope(A(2) * u);
    } else if constexpr (ACT == KERNELS_SIGMOID) {
        return sigmoid_slope(u);
    } else if constexpr (ACT == KERNELS_ELU) {
        return u >= A(0) ? A(1) : std::exp(u);
    } else if constexpr (ACT == KERNELS_SELU) {
        return A(SELU_SCALE) * (u >= A(0) ? A(1) : A(SELU_ALPHA) * std::exp(u));
    } else if constexpr (ACT == KERNELS_SOFTPLUS) {
        return sigmoid(u);
    } else {
        return sigmoid(u) + u * sigmoid_slope(u);
    }
}

/* act''(u), 0 for the piecewise linear ones. At 0: the one on the right for elu and selu. */
template <int ACT, class A>
KERNELS_DEVICE inline A act_curvature(A u) {
    static_assert(ACT >= KERNELS_LINEAR && ACT <= KERNELS_SWISH, "unknown activation");
    if constexpr (is_piecewise_linear(ACT)) {
        return A(0);
    } else if constexpr (ACT == KERNELS_TANH) {
        return A(-8) * sigmoid_slope(A(2) * u) * std::tanh(u);
    } else if constexpr (ACT == KERNELS_SIGMOID) {
        return -sigmoid_slope(u) * std::tanh(u * A(0.5));
    } else if constexpr (ACT == KERNELS_ELU) {
        return u >= A(0) ? A(0) : std::exp(u);
    } else if constexpr (ACT == KERNELS_SELU) {
        return u >= A(0) ? A(0) : A(SELU_SCALE * SELU_ALPHA) * std::exp(u);
    } else if constexpr (ACT == KERNELS_SOFTPLUS) {
        return sigmoid_slope(u);
    } else {
        return sigmoid_slope(u) * (A(2) - u * std::tanh(u * A(0.5)));
    }
}

}  // namespace kernels

#endif
