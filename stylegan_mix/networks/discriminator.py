"""The discriminator (StyleGAN2): orig, resnet and skip architectures, with a label projection.

`N` batch, `C` channels, `R` resolution, `K` classes.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from stylegan_mix.networks.feature_head import FeatureHead
from stylegan_mix.networks.layers import Convolution, FullyConnected, Resampler, halved
from stylegan_mix.networks.mapping import Mapping
from stylegan_mix.networks.shape import (
    Architecture,
    block_resolutions,
    channels_at,
    check_conditioning,
    default_clamp,
)
from stylegan_mix.rng import Draws

__all__ = ["Discriminator", "minibatch_std"]

FLAT = 16  # pixels of the last features, which are 4x4


def minibatch_std(x: Tensor, group: int | None) -> Tensor:
    """Appends one channel, the mean standard deviation in a group: [N,C,H,W] -> [N,C+1,H,W].

    Groups have G = min(group, N) samples, which must divide N; None means all N. Sample i is with
    i + N/G, i + 2N/G, ... (Karras et al. 2018, section 3; Karras et al. 2020 for the grouping).
    """
    n = len(x)
    size = n if group is None else min(group, n)
    if n % size:
        raise ValueError(f"minibatch-std: groups of {size} must divide the batch of {n}")
    deviation = x.reshape(size, n // size, -1)  # [G,N/G,C*H*W]
    deviation = deviation - deviation.mean(dim=0)
    deviation = (deviation.square().mean(dim=0) + 1e-8).sqrt().mean(dim=1)  # [N/G]
    channel = deviation.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], dim=1)


class DiscriminatorBlock(Resampler):
    """One resolution: from RGB if the architecture has it, conv0, conv1 to half the resolution.

    `layout` gives the memory layout of its activations.
    """

    layout = torch.channels_last

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        image_channels: int,
        architecture: Architecture,
        is_first: bool,
        clamp: float | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.passes_image = architecture == "skip"
        self.fromrgb, self.skip = None, None
        if is_first or architecture == "skip":
            self.fromrgb = Convolution(image_channels, in_channels, 1, clamp=clamp)
        self.conv0 = Convolution(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = Convolution(in_channels, out_channels, 3, down=2, clamp=clamp)
        if architecture == "resnet":
            self.skip = Convolution(in_channels, out_channels, 1, act="linear", bias=False, down=2)

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Maps x [N,I,r,r] or None, image [N,C,r,r] or None to x [N,O,r/2,r/2] and image at r/2."""
        x = None if x is None else x.to(self.dtype, memory_format=self.layout)
        if self.fromrgb is not None and image is not None:
            features = self.fromrgb(image.to(self.dtype, memory_format=self.layout))
            x = features if x is None else x + features
        if image is not None:
            image = halved(image, self.resample_filter) if self.passes_image else None
        if self.skip is None:
            return self.conv1(self.conv0(x)), image
        residual = self.skip(x, gain=math.sqrt(0.5))
        return self.conv1(self.conv0(x), gain=math.sqrt(0.5)) + residual, image


class DiscriminatorEpilogue(nn.Module):
    """The 4x4 end in float32: minibatch-std, convolution, dense layer -> features [N,channels].

    `out` is the dense layer that follows. The discriminator applies it, as it may have other heads
    on the same features.
    """

    def __init__(
        self,
        channels: int,
        out_features: int,
        *,
        image_channels: int,
        architecture: Architecture,
        minibatch_std_group: int | None,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.minibatch_std_group = minibatch_std_group
        self.fromrgb = None
        if architecture == "skip":
            self.fromrgb = Convolution(image_channels, channels, 1)
        self.conv = Convolution(channels + 1, channels, 3, clamp=clamp)
        self.fc = FullyConnected(channels * FLAT, channels, act="lrelu")
        self.out = FullyConnected(channels, out_features)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        x = x.to(torch.float32, memory_format=torch.contiguous_format)
        if self.fromrgb is not None and image is not None:
            x = x + self.fromrgb(image)
        x = self.conv(minibatch_std(x, self.minibatch_std_group))
        return self.fc(x.flatten(1))


class Discriminator(nn.Module):
    """Images [N,C,R,R] and label -> logits [N] (Karras et al. 2020).

    With classes the logit is the projection of the image's features on the mapped label; there is
    no unconditional term. Blocks above 4x4 run in `compute_dtype`, the rest in float32.
    `conv_clamp` bounds activations; in float16 it is 256 unless given. N must be a multiple of
    `minibatch_std_group` or not larger than it; None means one group, the whole batch.

    With a `utlo_resolution`, `low` judges images of that size too. They enter the shared blocks at
    that resolution and have an unconditional head (Khorram et al. 2024, UTLO). With `transitional`
    there is an unconditional head beside the projection, on the same features (Shahbazi et al.
    2022, Transitional-cGAN): `both` gives the two logits.

    After `begin_at_half` it grows: images of half the size enter below the first block. Features of
    full-size images there are (1 - `growth`) from-RGB(halved image) + `growth` first block(image),
    so the block fades in as `growth` goes from 0 to 1 (Karras et al. 2018, progressive growing).

    `feature_head`, if it is set, is another judge of image and label, with a logit of its own.
    """

    growth: Tensor

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        classes: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "orig",
        minibatch_std_group: int | None = 4,
        mapping_layers: int = 8,
        conv_clamp: float | None = None,
        utlo_resolution: int = 0,
        transitional: bool = False,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_conditioning(
            resolution=resolution,
            classes=classes,
            utlo_resolution=utlo_resolution,
            transitional=transitional,
        )
        if architecture not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise ValueError(f"architecture must be one of {known}, got {architecture!r}")
        self.resolution, self.image_channels, self.classes = resolution, image_channels, classes
        self.utlo_resolution, self.transitional = utlo_resolution, transitional
        self.grows = False
        self.feature_head: FeatureHead | None = None
        self.resolutions = block_resolutions(resolution)[:0:-1]
        conv_clamp = default_clamp(conv_clamp, compute_dtype)
        for size in self.resolutions:
            block = DiscriminatorBlock(
                channels_at(size, channel_base, channel_max),
                channels_at(size // 2, channel_base, channel_max),
                image_channels=image_channels,
                architecture=architecture,
                is_first=size == resolution,
                clamp=conv_clamp,
                dtype=compute_dtype,
            )
            self.add_module(f"b{size}", block)
        last = channels_at(4, channel_base, channel_max)
        self.mapping = None
        if classes:
            self.mapping = Mapping(
                z_dim=0,
                classes=classes,
                w_dim=last,
                layers=mapping_layers,
                track_average=False,
            )
        self.b4 = DiscriminatorEpilogue(
            last,
            last if classes else 1,
            image_channels=image_channels,
            architecture=architecture,
            minibatch_std_group=minibatch_std_group,
            clamp=conv_clamp,
        )
        if utlo_resolution:
            entering = channels_at(utlo_resolution, channel_base, channel_max)
            self.fromrgb_low = Convolution(image_channels, entering, 1, clamp=conv_clamp)
            self.out_low = FullyConnected(last, 1)
        if transitional:
            self.out_free = FullyConnected(last, 1)

    def begin_at_half(self) -> None:
        """Adds the entry of images of half the size, with weights from torch's generator."""
        first: DiscriminatorBlock = getattr(self, f"b{self.resolution}")
        if first.passes_image or self.utlo_resolution:
            raise ValueError("only an orig or resnet discriminator without UTLO can grow")
        entering, clamp = len(first.conv1.weight), first.conv1.clamp
        self.fromrgb_half = Convolution(self.image_channels, entering, 1, clamp=clamp)
        self.register_buffer("growth", torch.zeros([]))
        self.grows = True

    @property
    def last_block(self) -> str:
        """The beginning of the names of the weights that see full-size images alone."""
        return f"b{self.resolution}."

    def forward(self, images: Tensor, label: Tensor | None, *, draws: Draws = Draws()) -> Tensor:
        """Judges images [N,C,R,R] in -1 to 1, label [N] or [N,K], None without classes -> [N].

        If it grows, images [N,C,R/2,R/2] too. In training, `draws` gives the label noise.
        """
        return self._projection(self._features(images), label, draws)

    def both(
        self, images: Tensor, label: Tensor | None, *, draws: Draws = Draws()
    ) -> tuple[Tensor, Tensor]:
        """Computes the unconditional and the conditional logits at once, [N] (`transitional`)."""
        features = self._features(images)
        return self.out_free(features).squeeze(1), self._projection(features, label, draws)

    def low(self, images: Tensor) -> Tensor:
        """Computes the unconditional logits of images [N,C,r,r] at `utlo_resolution` -> [N]."""
        self._check(images, self.utlo_resolution)
        x = self.fromrgb_low(images.to(torch.float32))
        for size in self.resolutions:
            if size <= self.utlo_resolution:
                x, _ = self.get_submodule(f"b{size}")(x, None)
        return self.out_low(self.b4(x, None)).squeeze(1)

    def lowered(self, images: Tensor) -> Tensor:
        """Halves images [N,C,R,R] down to `utlo_resolution`: the real images of `low`."""
        while images.shape[-1] > self.utlo_resolution:
            images = halved(images, self.fromrgb_low.resample_filter)
        return images

    def at_half(self, images: Tensor) -> Tensor:
        """Halves images [N,C,R,R]: the real images while it judges images of half the size."""
        return halved(images, self.fromrgb_half.resample_filter)

    def set_growth(self, share: float) -> None:
        """Sets the weight of the first block, 0 to 1, in a network that grows."""
        self.growth.fill_(share)

    def _check(self, images: Tensor, size: int) -> None:
        expected = (self.image_channels, size, size)
        if images.ndim != 4 or images.shape[1:] != expected:
            wanted = ", ".join(map(str, ("N", *expected)))
            raise ValueError(f"images must have shape [{wanted}], got {list(images.shape)}")

    def _features(self, images: Tensor) -> Tensor:
        """Computes the features shared by all heads: images [N,C,R,R] -> [N,F]."""
        if self.grows and images.shape[-1] == self.resolution // 2:
            return self._from_half(images)
        self._check(images, self.resolution)
        x, image = None, images.to(torch.float32)
        for size in self.resolutions:
            x, image = self.get_submodule(f"b{size}")(x, image)
            if self.grows and size == self.resolution:
                x = self.fromrgb_half(self.at_half(images)).lerp(x.to(torch.float32), self.growth)
        return self.b4(x, image)

    def _from_half(self, images: Tensor) -> Tensor:
        """Computes the features of images [N,C,R/2,R/2], without the first block -> [N,F]."""
        self._check(images, self.resolution // 2)
        x: Tensor = self.fromrgb_half(images.to(torch.float32))
        for size in self.resolutions[1:]:
            x, _ = self.get_submodule(f"b{size}")(x, None)
        return self.b4(x, None)

    def _projection(self, features: Tensor, label: Tensor | None, draws: Draws) -> Tensor:
        """Projects features [N,F] on the mapped label, or gives the only logit, [N]."""
        x = self.b4.out(features)
        if self.mapping is None:
            if label is not None:
                raise ValueError("an unconditional discriminator takes no label: pass None")
            return x.squeeze(1)
        return (x * self.mapping(None, label, draws=draws)).sum(dim=1) / math.sqrt(x.shape[1])
