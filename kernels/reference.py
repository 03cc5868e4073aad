"""The operators in plain PyTorch, slow and obvious: the specification of all other versions.

They take any floating dtype, and autograd differentiates them to every order. Arguments are those
of the public operators, and are not checked here. `N C H W` as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "batch_norm_relu",
    "bias_act",
    "modulated_bias_act",
    "padded",
    "upfirdn2d",
]

SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


@dataclass(frozen=True)
class Activation:
    """A nonlinearity `function(u, alpha)` and the defaults of its slope and its output gain."""

    function: Callable[[Tensor, float], Tensor]
    alpha: float = 0.0
    gain: float = 1.0


def _selu(u: Tensor, _: float) -> Tensor:
    return SELU_SCALE * torch.where(u >= 0, u, SELU_ALPHA * torch.expm1(u.clamp(max=0)))


def _elu(u: Tensor, _: float) -> Tensor:
    return torch.where(u >= 0, u, torch.expm1(u.clamp(max=0)))


def _softplus(u: Tensor, _: float) -> Tensor:
    return torch.logaddexp(u, torch.zeros_like(u))


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda u, _: u),
    "relu": Activation(lambda u, _: u.relu(), gain=2**0.5),
    "lrelu": Activation(lambda u, alpha: torch.where(u > 0, u, alpha * u), 0.2, 2**0.5),
    "tanh": Activation(lambda u, _: u.tanh()),
    "sigmoid": Activation(lambda u, _: u.sigmoid()),
    "elu": Activation(_elu),
    "selu": Activation(_selu),
    "softplus": Activation(_softplus),
    "swish": Activation(lambda u, _: u * u.sigmoid(), gain=2**0.5),
}


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Computes max(weight (x - mean) / sqrt(variance + eps) + bias + residual, 0) of x [N,C,H,W].

    Mean and variance [C] of each channel are `statistics`, or those of x (Ioffe and Szegedy 2015).
    """
    mean, variance = statistics or (x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False))

    def beside(values: Tensor) -> Tensor:
        return values[:, None, None]

    u = (x - beside(mean)) * beside((variance + eps).rsqrt() * weight) + beside(bias)
    return torch.relu(u if residual is None else u + residual)


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Computes clamp(gain * act(x + b), -clamp, clamp), `b` along `dim`: any shape -> the same."""
    activation = ACTIVATIONS[act]
    alpha = activation.alpha if alpha is None else alpha
    gain = activation.gain if gain is None else gain
    if b is not None:
        x = x + b.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    y = activation.function(x, alpha) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


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
    """Computes bias_act of x [N,C,H,W] * d [N,C] + noise [N or 1,1,H,W] * strength."""
    x = x * d[:, :, None, None]
    x = x if noise is None or strength is None else x + noise * strength
    return bias_act(x, b, act=act, alpha=alpha, gain=gain, clamp=clamp)


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    *,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Zero-stuffs, pads or crops, filters every channel, keeps every down-th sample.

    x [N,C,H,W]; f [fh,fw]; `up` and `down` are (x, y), `padding` is (left, right, top, bottom).
    """
    n, c, h, w = x.shape
    (up_x, up_y), (down_x, down_y) = up, down
    x = x.reshape(n, c, h, 1, w, 1)
    x = functional.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    x = x.reshape(n, c, h * up_y, w * up_x)
    x = padded(x, padding)
    f = (f if flip_filter else f.flip(0, 1)).to(x.dtype) * gain
    x = functional.conv2d(x, f.expand(c, 1, *f.shape), groups=c)
    return x[:, :, ::down_y, ::down_x]


def padded(x: Tensor, padding: Sequence[int]) -> Tensor:
    """Pads x [N,C,H,W] with zeros by (left, right, top, bottom); a negative number crops.

    Zeros come first and the crop after them, so the crop may be larger than x.
    """
    before = [max(number, 0) for number in padding]
    after = [min(number, 0) for number in padding]
    x = functional.pad(x, before) if any(before) else x
    return functional.pad(x, after) if any(after) else x
