"""The synthesis network w -> image (StyleGAN2): skip, orig and resnet architectures.

`N` batch, `C` channels, `r` resolution, `D` width of w, `L` number of w an image takes.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from kernels import bias_act, modulated_bias_act, upfirdn2d
from stylegan_mix.networks.layers import (
    Convolution,
    FullyConnected,
    Resampler,
    modulated_conv2d,
    modulated_product,
)
from stylegan_mix.networks.shape import Architecture, block_resolutions, channels_at
from stylegan_mix.rng import Draws

__all__ = ["NOISE_MODES", "Synthesis"]

NOISE_MODES = ("random", "const", "none")


class StyledConvolution(Resampler):
    """The layer lrelu(demodulated conv(x, style) + noise * strength + b): -> [N,O,r,r].

    x [N,I,H,W], w [N,D]. A slow twin replaces `convolution`.
    """

    noise_const: Tensor
    convolution = staticmethod(modulated_conv2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        *,
        noise: str,
        draws: Draws = Draws(),
        gain: float = 1.0,
    ) -> Tensor:
        style = self.affine(w)
        y, d = self.convolution(x, self.weight, style, self.resample_filter, up=self.up)
        image = self._noise(len(x), noise, draws)
        return modulated_bias_act(
            y,
            d,
            self.bias,
            noise=image,
            strength=None if image is None else self.noise_strength,
            act="lrelu",
            gain=math.sqrt(2) * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
        )

    def _noise(self, n: int, mode: str, draws: Draws) -> Tensor | None:
        """Draws the noise image before its strength, [N or 1,1,r,r], or None."""
        if mode == "none":
            return None
        image = self.noise_const[None, None]
        if mode == "random":
            image = draws.normal(n, *image.shape[1:], device=image.device)
        return image


class ToRGB(nn.Module):
    """A 1x1 modulated convolution without demodulation: [N,I,r,r], [N,D] -> float32 [N,C,r,r].

    A slow twin replaces `convolution`.
    """

    convolution = staticmethod(modulated_product)

    def __init__(
        self, in_channels: int, image_channels: int, *, w_dim: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(image_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * (1 / math.sqrt(self.weight.shape[1]))
        rgb = self.convolution(x, self.weight, style).to(torch.float32)
        return bias_act(rgb, self.bias, clamp=self.clamp)


class SynthesisBlock(Resampler):
    """One resolution: conv0 (from half of it), conv1, and to RGB if the architecture has it.

    `layout` gives the memory layout of its activations.
    """

    layout = torch.channels_last

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        image_channels: int,
        architecture: Architecture,
        is_last: bool,
        clamp: float | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.convolutions = 1 if in_channels == 0 else 2
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = StyledConvolution(
                in_channels, out_channels, w_dim=w_dim, resolution=resolution, up=2, clamp=clamp
            )
        self.conv1 = StyledConvolution(
            out_channels, out_channels, w_dim=w_dim, resolution=resolution, clamp=clamp
        )
        self.torgb, self.skip = None, None
        if is_last or architecture == "skip":
            self.torgb = ToRGB(out_channels, image_channels, w_dim=w_dim, clamp=clamp)
        if in_channels and architecture == "resnet":
            self.skip = Convolution(in_channels, out_channels, 1, act="linear", bias=False, up=2)

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        *,
        noise: str,
        draws: Draws,
        share: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Maps x [N,I,r/2,r/2], image [N,C,r/2,r/2], ws [N,convolutions + 1,D] to both at r.

        `share` [] multiplies the part of the image that this block adds.
        """
        if x is None:
            x = self.const.expand(len(ws), *self.const.shape)
        x = x.to(self.dtype, memory_format=self.layout)
        residual, gain = None, 1.0
        if self.skip is not None:
            gain = math.sqrt(0.5)
            residual = self.skip(x, gain=gain)
        if self.convolutions == 2:
            x = self.conv0(x, ws[:, 0], noise=noise, draws=draws)
        last = ws[:, self.convolutions - 1]
        x = self.conv1(x, last, noise=noise, draws=draws, gain=gain)
        x = x if residual is None else x + residual
        if image is not None:
            image = upfirdn2d(image, self.resample_filter, up=2, padding=(2, 1, 2, 1), gain=4)
        if self.torgb is not None:
            rgb = self.torgb(x, ws[:, self.convolutions])
            rgb = rgb if share is None else rgb * share
            image = rgb if image is None else image + rgb
        return x, image


class Synthesis(nn.Module):
    """The w of all layers, ws [N,L,D] -> images [N,C,R,R] in float32, about -1 to 1, not bounded.

    Blocks above 4x4 run in `compute_dtype`; the image is summed in float32. `num_ws` is L: one w
    for each convolution and one for the last to-RGB. Every other to-RGB shares the w of the next
    block's first convolution.

    With a `utlo_resolution` the sum up to there is an image too, of the first `low_ws` w alone. Its
    to-RGB shares no w with the next block, so L is one more (Khorram et al. 2024, UTLO).

    If it `grows`, the part of the image that the last block adds is multiplied by `growth`, from 0
    to 1 (Karras et al. 2018, progressive growing). It is state, and only training changes it.
    """

    growth: Tensor

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        image_channels: int,
        channel_base: int,
        channel_max: int,
        architecture: Architecture,
        conv_clamp: float | None,
        compute_dtype: torch.dtype,
        utlo_resolution: int = 0,
        grows: bool = False,
    ) -> None:
        super().__init__()
        if architecture not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise ValueError(f"architecture must be one of {known}, got {architecture!r}")
        for option, on in (("utlo_resolution", utlo_resolution), ("growing", grows)):
            if on and architecture != "skip":
                raise ValueError(
                    f"{option} needs the skip architecture, which alone has an image at every "
                    f"resolution, got {architecture!r}"
                )
        self.resolutions = block_resolutions(resolution)
        self.w_dim, self.utlo_resolution, self.grows = w_dim, utlo_resolution, grows
        if grows:
            self.register_buffer("growth", torch.zeros([]))
        self.low_ws = 2 * sum(size <= utlo_resolution for size in self.resolutions)
        self.num_ws = 2 * len(self.resolutions) + (1 if utlo_resolution else 0)
        in_channels = 0
        for size in self.resolutions:
            out_channels = channels_at(size, channel_base, channel_max)
            block = SynthesisBlock(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=size,
                image_channels=image_channels,
                architecture=architecture,
                is_last=size == resolution,
                clamp=conv_clamp,
                dtype=compute_dtype if size >= 8 else torch.float32,
            )
            self.add_module(f"b{size}", block)
            in_channels = out_channels

    def forward(self, ws: Tensor, *, noise: str = "random", draws: Draws = Draws()) -> Tensor:
        """Draws the images; `noise`: "random" (from `draws`), "const" (stored images) or "none"."""
        return self.with_low(ws, noise=noise, draws=draws)[0]

    def with_low(
        self, ws: Tensor, *, noise: str = "random", draws: Draws = Draws(), half: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Draws the images, and those at `utlo_resolution` [N,C,r,r] or None, in one forward.

        With `half` the last block is left out: the images are [N,C,R/2,R/2].
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            expected = f"[N, {self.num_ws}, {self.w_dim}]"
            raise ValueError(f"ws must have shape {expected}, got {list(ws.shape)}")
        if noise not in NOISE_MODES:
            raise ValueError(f"noise must be one of {', '.join(NOISE_MODES)}, got {noise!r}")
        ws = ws.to(torch.float32)
        if not ws[:, 0].is_contiguous():
            # Matrix products may differ in the last bit with the strides of w. So mixed codes of
            # all layers are laid out like a single code that was broadcast.
            ws = ws.transpose(0, 1).contiguous().transpose(0, 1)
        x, image, low, first = None, None, None, 0
        for size in self.resolutions[:-1] if half else self.resolutions:
            block: SynthesisBlock = getattr(self, f"b{size}")
            own = ws[:, first : first + block.convolutions + 1]
            share = self.growth if self.grows and size == self.resolutions[-1] else None
            x, image = block(x, image, own, noise=noise, draws=draws, share=share)
            first += block.convolutions
            if size == self.utlo_resolution:
                low = image
                first += 1
        assert image is not None, "the last block always has a to-RGB"
        return image, low
