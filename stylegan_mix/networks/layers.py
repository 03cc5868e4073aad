"""The layers of StyleGAN2: equalised dense and convolution, modulated convolution.

`N` batch, `I O` channels in and out, `H W` pixels. Every stored weight has unit variance (over
`lr_mul`) and is scaled at use: the equalised learning rate of Karras et al. 2018. The gain of a
homogeneous activation (leaky ReLU, linear) goes into weight and bias, where it costs nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import (
    ACTIVATIONS,
    bias_act,
    conv3x3,
    modulated_bias_act,
    setup_filter,
    upfirdn2d,
)
from kernels.layout import filter_like

__all__ = [
    "Convolution",
    "FullyConnected",
    "Resampler",
    "convolve",
    "demodulation",
    "halved",
    "modulated_conv2d",
    "modulated_conv2d_per_sample",
    "modulated_product",
    "normalize_second_moment",
]

EPSILON = 1e-8
RESAMPLING_TAPS = (1, 3, 3, 1)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Computes x / sqrt(mean of x^2 over axis 1), [N,D] (Karras et al. 2018, section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


class Resampler(nn.Module):
    """A module with the FIR filter 1,3,3,1, a constant that moves with it but is no state."""

    resample_filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("resample_filter", setup_filter(RESAMPLING_TAPS), persistent=False)


class FullyConnected(nn.Module):
    """The dense layer act(x W^T lr_mul / sqrt(in) + b lr_mul): [N,in] -> [N,out] in float32."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        act: str = "linear",
        bias_init: float = 0.0,
        lr_mul: float = 1.0,
    ) -> None:
        super().__init__()
        self.act = act
        self.lr_mul = lr_mul
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))

    def forward(self, x: Tensor) -> Tensor:
        gain = ACTIVATIONS[self.act].gain * self.lr_mul
        weight = self.weight * (gain / math.sqrt(self.weight.shape[1]))
        bias = self.bias * gain if gain != 1 else self.bias
        x = functional.linear(x, weight, bias)
        return x if self.act == "linear" else bias_act(x, act=self.act, gain=1)


class Convolution(Resampler):
    """The layer act(conv(x, W / sqrt(I k k)) + b) * gain, resampled: [N,I,H,W] -> [N,O,H',W'].

    Runs in the dtype of x. `up` or `down` of 2 resample through the filter. `clamp` bounds the
    result at gain 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        act: str = "lrelu",
        bias: bool = True,
        up: int = 1,
        down: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.act = act
        self.up, self.down = up, down
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        total = ACTIVATIONS[self.act].gain * gain
        weight = self.weight * (total / math.sqrt(self.weight[0].numel()))
        x = convolve(x, weight, self.resample_filter, up=self.up, down=self.down)
        bias = None if self.bias is None else self.bias * total
        clamp = None if self.clamp is None else self.clamp * gain
        if self.act == "linear" and bias is None and clamp is None:
            return x
        return bias_act(x, bias, act=self.act, gain=1, clamp=clamp)


def convolve(
    x: Tensor,
    weight: Tensor,
    resample_filter: Tensor,
    *,
    up: int = 1,
    down: int = 1,
) -> Tensor:
    """Convolves with padding k // 2, after up-sampling by 2 or before down-sampling by 2.

    x [N,I,H,W]; weight [O,I,k,k], which is cast to the dtype of x. Up-sampling is a strided
    transposed convolution (of the transposed, unflipped weight) and then the filter. Down-sampling
    is the filter and then a strided convolution (Karras et al. 2020, StyleGAN2). The filter's
    padding is that of the published networks.
    """
    kernel = weight.shape[-1]
    if kernel == 3 and up == down == 1:
        return conv3x3(x, weight)
    weight = filter_like(weight, x)
    if up == 2 and kernel == 1:
        x = functional.conv2d(x, weight)
        return upfirdn2d(x, resample_filter, up=2, padding=(2, 1, 2, 1), gain=4)
    if up == 2:
        x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return upfirdn2d(x, resample_filter, padding=1, gain=4)
    if down == 2 and kernel == 1:
        x = upfirdn2d(x, resample_filter, down=2, padding=1)
        return functional.conv2d(x, weight)
    if down == 2:
        x = upfirdn2d(x, resample_filter, padding=2)
        return functional.conv2d(x, weight, stride=2)
    return functional.conv2d(x, weight, padding=kernel // 2)


def halved(images: Tensor, resample_filter: Tensor) -> Tensor:
    """Halves the resolution of images through the filter: [N,C,H,W] -> [N,C,H/2,W/2]."""
    return upfirdn2d(images, resample_filter, down=2, padding=1)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Computes d[n,o] = 1 / sqrt(sum over i,k of (w[o,i,k] s[n,i])^2 + eps) -> [N,O].

    weight [O,I,k,k], style [N,I]. Karras et al. 2020 (StyleGAN2), equation 3, as a matrix product.
    """
    return (style.square() @ weight.square().sum(dim=(2, 3)).T + EPSILON).rsqrt()


def modulated_conv2d(
    x: Tensor, weight: Tensor, style: Tensor, resample_filter: Tensor, *, up: int = 1
) -> tuple[Tensor, Tensor]:
    """Convolves x, scaled by the style, with one shared weight; the caller scales the output.

    x [N,I,H,W], weight [O,I,k,k], style [N,I] in float32 -> y [N,O,H',W'] in the dtype of x and the
    demodulation d [N,O] in float32. The result is y d, which `modulated_bias_act` computes in the
    pass that adds noise and bias. In float16, weight and style are first scaled to a magnitude of
    1, which demodulation cancels (Karras et al. 2020, ADA).
    """
    if x.dtype == torch.float16:
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True))
        weight = weight / math.sqrt(weight[0].numel())
        style = style / style.abs().amax(dim=1, keepdim=True)
    d = demodulation(weight, style)
    return convolve(_scaled(x, style), weight, resample_filter, up=up), d


def _scaled(x: Tensor, style: Tensor) -> Tensor:
    """Computes x [N,C,H,W] * style [N,C] in the dtype of x; both gradients in one pass."""
    return modulated_bias_act(x, style, act="linear")


class _Products(torch.autograd.Function):
    """Rows [N,P,I], weights [N,O,I] -> [N,O,P], with gradients in the memory layout of both.

    PyTorch's own gradients would be transposed, and everything behind them would be copied.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        return torch.bmm(weights, rows.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        rows, weights = ctx.saved_tensors
        return torch.bmm(dy.transpose(1, 2), weights), torch.bmm(dy, rows)


def modulated_product(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """Applies the 1x1 modulated convolution without demodulation to a few channels, in NCHW.

    x [N,I,H,W], weight [O,I,1,1], style [N,I] in float32 -> [N,O,H,W] in the dtype of x. Every
    sample has its own weights (Karras et al. 2020, StyleGAN2, equation 1): for three channels they
    are cheaper to compute than x * style.
    """
    weights = (weight.flatten(1) * style[:, None]).to(x.dtype)
    return _Products.apply(x.permute(0, 2, 3, 1).flatten(1, 2), weights).unflatten(2, x.shape[2:])


def modulated_conv2d_per_sample(
    x: Tensor, weight: Tensor, style: Tensor, resample_filter: Tensor, *, up: int = 1
) -> Tensor:
    """Computes `modulated_conv2d` slowly: every sample has its own weights, as in the paper."""
    weights = weight * style[:, None, :, None, None]  # [N,O,I,k,k]
    weights = weights * (weights.square().sum(dim=(2, 3, 4), keepdim=True) + EPSILON).rsqrt()
    samples = zip(x.split(1), weights, strict=True)
    return torch.cat([convolve(one, w, resample_filter, up=up) for one, w in samples])
