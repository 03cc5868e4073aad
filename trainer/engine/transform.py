"""The way from stored images to those that a network sees: cropped, flipped, changed, normalised.

`N` rows of a batch; `C H W` channels and pixels. Everything is done for the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.streamed import as_files
from trainer.engine.augmentation.apply import augmented
from trainer.engine.augmentation.contrastive import simclr
from trainer.engine.augmentation.cutout import cutout
from trainer.engine.augmentation.geometry import taken
from trainer.engine.augmentation.policies import Policy
from trainer.engine.mixing import Streams
from trainer.spec import RunSpec

__all__ = ["Transform", "transform_of", "windows"]


class Transform:
    """A map from uint8 images [N, H, W, C] to normalised [N, C, H, W], channels last in memory."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        pad: int,
        flip: bool,
        device: torch.device,
    ) -> None:
        self.pad, self.flip = pad, flip
        shift = torch.tensor(mean, dtype=torch.float32) * 255
        self._fill = shift.round().to(torch.uint8).to(device)
        # A constant channel has no spread to divide by.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32)).clamp(min=1.0)
        self._shift = shift.to(device)[:, None, None]
        self._scale = scale.to(device)[:, None, None]

    def random(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """Crops from the image padded by zeros, flips if that keeps the label, normalises."""
        return self.plain(self._shifted(images, draws))

    def view(self, images: Tensor, policy: Policy, name: str, draws: Streams) -> Tensor:
        """Augments by a policy and normalises.

        `name` is the stream of crops, which are the same for all policies that shift; others have
        streams whose names begin with it. Pixels beyond the border of a moved image are the mean.
        """
        if policy.crop == "resized":
            shown = simclr(images, draws(f"{name}.simclr"), flip=self.flip)
        else:
            shown = self._shifted(images, draws(name))
        if policy.choice is not None:
            slots = policy.choice.draw(len(images), draws(f"{name}.choice"))
            shown = augmented(shown, slots, self._fill)
        planes = self.plain(shown)
        return cutout(planes, draws(f"{name}.cutout")) if policy.cutout else planes

    def _shifted(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """Crops and flips uint8 images [N, H, W, C]."""
        count, height, width, _ = images.shape
        top, left = torch.from_numpy(draws.integers(0, 2 * self.pad + 1, size=(2, count)))
        flip = torch.from_numpy((draws.random(count) < 0.5) & self.flip)
        padded = F.pad(images, (0, 0, self.pad, self.pad, self.pad, self.pad))
        return windows(padded, top, left, flip, size=(height, width))

    def plain(self, images: Tensor) -> Tensor:
        """Normalises only."""
        planes = images.permute(0, 3, 1, 2).to(torch.float32)
        return ((planes - self._shift) * self._scale).contiguous(memory_format=torch.channels_last)


def transform_of(spec: RunSpec, data: Dataset, device: torch.device) -> Transform:
    """Makes the transform of a run; `pad` is an eighth of the side and `flip` the set's if None.

    Images of a streamed set are random crops already: nothing is padded.
    """
    pad = data.resolution // 8 if spec.pad is None else spec.pad
    if as_files(data.train.images) is not None:
        pad = 0
    flip = data.flip if spec.flip is None else spec.flip
    return Transform(data.mean, data.std, pad=pad, flip=flip, device=device)


def windows(
    images: Tensor, top: Tensor, left: Tensor, flip: Tensor, *, size: tuple[int, int]
) -> Tensor:
    """Cuts one window of `size` (height, width) from each image, mirrored if `flip`.

    images: [N, H, W, C]; top, left: [N] int64, the corners of the windows; flip: [N] bool.
    """
    device = images.device
    top, left, flip = top.to(device), left.to(device), flip.to(device)
    down = torch.arange(size[0], device=device)
    across = torch.arange(size[1], device=device)
    rows = top[:, None] + down  # [N, height]
    columns = left[:, None] + torch.where(flip[:, None], size[1] - 1 - across, across)
    return taken(images, rows[:, :, None], columns[:, None, :])
