"""The generator: mapping and synthesis network together.

`N` batch, `Z` width of z, `K` classes, `D` width of w, `L` number of w an image takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_mix.networks.mapping import Mapping
from stylegan_mix.networks.shape import Architecture, default_clamp
from stylegan_mix.networks.synthesis import Synthesis
from stylegan_mix.rng import Draws

__all__ = ["Generator", "to_uint8"]


class Generator(nn.Module):
    """z [N,Z], label -> images [N,C,R,R] float32 in about -1 to 1 (Karras et al. 2020).

    `classes` = 0 is the unconditional network. `channel_base` / r, at most `channel_max`, is the
    number of channels at resolution r. `label_weight` and `label_noise` are those of `Mapping`.
    `compute_dtype` (float32, bfloat16, float16) is that of the convolutions above 4x4; mapping
    and image stay float32. `conv_clamp` bounds activations; in float16 it is 256 unless given.
    """

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
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
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
        )
        self.mapping = Mapping(
            z_dim=z_dim,
            classes=classes,
            w_dim=w_dim,
            layers=mapping_layers,
            label_weight=label_weight,
            label_noise=label_noise,
        )

    @property
    def num_ws(self) -> int:
        """L, the number of w that an image takes."""
        return self.synthesis.num_ws

    def update_w_avg(self, w: Tensor) -> None:
        """Moves the average that truncation pulls to towards the mean of w [N,D]."""
        self.mapping.update_w_avg(w)

    def broadcast(self, w: Tensor) -> Tensor:
        """The same w for every layer: [N,D] -> [N,L,D]."""
        return w[:, None].expand(-1, self.num_ws, -1)

    def truncate(self, ws: Tensor, truncation: float, *, layers: int | None = None) -> Tensor:
        """w_avg + truncation * (w - w_avg) in the first `layers` (all if None): [N,L,D]."""
        if truncation == 1:
            return ws
        near = self.mapping.w_avg.lerp(ws, truncation)
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
        """z [N,Z], label [N] or [N,K] or None -> images [N,C,R,R]; `noise` as in `Synthesis`."""
        ws = self.broadcast(self.mapping(z, label, draws=draws))
        ws = self.truncate(ws, truncation, layers=truncation_layers)
        return self.synthesis(ws, noise=noise, draws=draws)


def to_uint8(images: Tensor) -> Tensor:
    """Images [N,C,H,W] in -1 to 1 as uint8 [N,H,W,C]: clamp(127.5 x + 128, 0, 255), truncated."""
    images = images.detach().permute(0, 2, 3, 1).to(torch.float32)
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).contiguous()
