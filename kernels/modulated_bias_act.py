"""clamp(gain * act(x * d + noise * strength + b)): the public operator and its checks.

The end of a modulated convolution: demodulation d [N,C], noise [N or 1,1,H,W], bias [C] and the
activation (Karras et al. 2020, StyleGAN2, figure 2c and equation 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import epilogue, launch
from kernels.arguments import check_image, check_operand
from kernels.bias_act import bias_act, checked

__all__ = ["modulated_bias_act"]


def modulated_bias_act(
    x: Tensor,
    d: Tensor,
    b: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    act: str = "lrelu",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Computes clamp(gain * act(x * d + noise * strength + b), -clamp, clamp).

    Twice differentiable. x [N,C,H,W] in NCHW or channels_last, which the result keeps. d [N,C] and
    b [C] in the dtype of x or in float32. noise [N,1,H,W] or [1,1,H,W], a constant without
    gradient, and its strength of one element come together. The other arguments are those of
    `bias_act`. ValueError and TypeError name the argument that does not fit.
    """
    _check(x, d, noise, strength)
    alpha, gain = checked("modulated_bias_act", x, b, 1, act, alpha, gain, clamp)
    if launch.takes(x):
        return epilogue.apply(x, d, noise, strength, b, 1, act, alpha, gain, clamp)
    scale = d.to(x.dtype)[:, :, None, None]
    if noise is None or strength is None:
        x = x * scale
    else:
        x = torch.addcmul((noise * strength).to(x.dtype), x, scale)
    return bias_act(x, b, act=act, alpha=alpha, gain=gain, clamp=clamp)


def _check(x: Tensor, d: Tensor, noise: Tensor | None, strength: Tensor | None) -> None:
    check_image("modulated_bias_act", x)
    if x.ndim != 4:
        raise ValueError(
            f"modulated_bias_act: `x` must have shape [N, C, H, W], got {list(x.shape)}"
        )
    check_operand("modulated_bias_act", "d", d, x)
    if d.shape != x.shape[:2]:
        raise ValueError(
            f"modulated_bias_act: `d` must have shape {list(x.shape[:2])} to match x "
            f"{list(x.shape)}, got {list(d.shape)}"
        )
    if (noise is None) != (strength is None):
        raise ValueError("modulated_bias_act: `noise` and `strength` come together")
    if noise is None or strength is None:
        return
    check_operand("modulated_bias_act", "noise", noise, x)
    check_operand("modulated_bias_act", "strength", strength, x)
    fitting = noise.ndim == 4 and noise.shape[0] in (1, len(x)) and noise.shape[1] == 1
    if not fitting or noise.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"modulated_bias_act: `noise` must have shape [N or 1, 1, H, W] to match x "
            f"{list(x.shape)}, got {list(noise.shape)}"
        )
    if noise.requires_grad:
        raise ValueError("modulated_bias_act: `noise` is a constant and gets no gradient")
    if strength.numel() != 1:
        raise ValueError(
            f"modulated_bias_act: `strength` must have one element, got {list(strength.shape)}"
        )
