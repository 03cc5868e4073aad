"""The generator: mapping and synthesis network together.

`N` batch, `Z` width of z, `K` classes, `D` width of w, `L` number of w an image takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_mix.networks.mapping import Mapping, move_average
from stylegan_mix.networks.shape import Architecture, check_conditioning, default_clamp
from stylegan_mix.networks.synthesis import Synthesis
from stylegan_mix.rng import Draws

__all__ = ["Generator", "to_uint8"]


class Generator(nn.Module):
    """A z [N,Z] and a label -> images [N,C,R,R] float32 in about -1 to 1 (Karras et al. 2020).

    `classes` = 0 is the unconditional network. The number of channels at resolution r is
    `channel_base` / r, at most `channel_max`. `label_weight` and `label_noise` are those of
    `Mapping`. `compute_dtype` (float32, bfloat16, float16) is that of the convolutions above 4x4;
    mapping and image stay float32. `conv_clamp` bounds activations; in float16 it is 256 unless
    given.

    With a `utlo_resolution` of 4 or more (Khorram et al. 2024, UTLO; architecture "skip"), blocks
    up to it take the code of z without the label. Only the blocks above it take the code of z and
    label. `synthesis.with_low` gives the low-resolution image. `transitional` is that of `Mapping`,
    `grows` that of `Synthesis`.
    """

    w_avg_low: Tensor

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        classes: int,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "skip",
        conv_clamp: float | None = None,
        label_weight: float = 1.0,
        label_noise: float = 0.0,
        utlo_resolution: int = 0,
        transitional: bool = False,
        grows: bool = False,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_conditioning(
            resolution=resolution,
            classes=classes,
            utlo_resolution=utlo_resolution,
            transitional=transitional,
        )
        self.resolution, self.image_channels = resolution, image_channels
        self.classes, self.z_dim, self.w_dim = classes, z_dim, w_dim
        self.synthesis = Synthesis(
            w_dim=w_dim,
            resolution=resolution,
            image_channels=image_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            architecture=architecture,
            conv_clamp=default_clamp(conv_clamp, compute_dtype),
            compute_dtype=compute_dtype,
            utlo_resolution=utlo_resolution,
            grows=grows,
        )
        self.mapping = Mapping(
            z_dim=z_dim,
            classes=classes,
            w_dim=w_dim,
            layers=mapping_layers,
            label_weight=label_weight,
            label_noise=label_noise,
            transitional=transitional,
        )
        if utlo_resolution:
            self.register_buffer("w_avg_low", torch.zeros(w_dim))

    @property
    def num_ws(self) -> int:
        """L, the number of w that an image takes."""
        return self.synthesis.num_ws

    def ws(self, z: Tensor, label: Tensor | None, *, draws: Draws = Draws()) -> Tensor:
        """Maps z [N,Z] and label (as in `Mapping`) to the w of every layer, for `synthesis`.

        Returns [N,L,D]. All are the code of z and label; with UTLO the first `synthesis.low_ws`
        are the code of z alone. The last is always that of z and label. `draws` gives the label
        noise.
        """
        ws = self.broadcast(self.mapping(z, label, draws=draws))
        low = self.synthesis.low_ws
        if not low:
            return ws
        free = self.mapping.without_label(z)[:, None].expand(-1, low, -1)
        return torch.cat([free, ws[:, low:]], dim=1)

    def update_w_avg(self, ws: Tensor) -> None:
        """Moves the averages that truncation pulls to, towards the means of a batch [N,L,D].

        w has one mean without a label and another with it, so with UTLO each code has its average.
        """
        self.mapping.update_w_avg(ws[:, -1])
        if self.synthesis.low_ws:
            move_average(self.w_avg_low, ws[:, 0])

    def set_transition(self, share: float) -> None:
        """Sets the weight of the label, 0 to 1, in a network with transitional conditioning."""
        self.mapping.transition.fill_(share)

    def set_growth(self, share: float) -> None:
        """Sets the weight of the last block, 0 to 1, in a network that grows."""
        self.synthesis.growth.fill_(share)

    @property
    def last_block(self) -> str:
        """The beginning of the names of the last block's weights."""
        return f"synthesis.b{self.resolution}."

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeats w for every layer: [N,D] -> [N,L,D]."""
        return w[:, None].expand(-1, self.num_ws, -1)

    def centre(self) -> Tensor:
        """Returns the averages that truncation pulls the w of every layer to, [L,D]."""
        centre, low = self.mapping.w_avg, self.synthesis.low_ws
        if not low:
            return centre.expand(self.num_ws, -1)
        return torch.cat([self.w_avg_low.expand(low, -1), centre.expand(self.num_ws - low, -1)])

    def truncate(self, ws: Tensor, truncation: float, *, layers: int | None = None) -> Tensor:
        """Computes centre + truncation * (w - centre) in the first `layers` (None: all)."""
        if truncation == 1:
            return ws
        # One average fits any number of layers.
        centre = self.centre() if self.synthesis.low_ws else self.mapping.w_avg
        near = centre.lerp(ws, truncation)
        return near if layers is None else torch.cat([near[:, :layers], ws[:, layers:]], dim=1)

    def forward(
        self,
        z: Tensor,
        label: Tensor | None,
        *,
        truncation: float = 1.0,
        truncation_layers: int | None = None,
        noise: str = "random",
        draws: Draws = Draws(),
    ) -> Tensor:
        """Maps z [N,Z], label [N] or [N,K] or None to [N,C,R,R]; `noise` as in `Synthesis`."""
        ws = self.ws(z, label, draws=draws)
        ws = self.truncate(ws, truncation, layers=truncation_layers)
        return self.synthesis(ws, noise=noise, draws=draws)


def to_uint8(images: Tensor) -> Tensor:
    """Quantises images [N,C,H,W] in -1 to 1 to uint8 [N,H,W,C]: 127.5 x + 128, cut to 0 to 255."""
    images = images.detach().permute(0, 2, 3, 1).to(torch.float32)
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).contiguous()
