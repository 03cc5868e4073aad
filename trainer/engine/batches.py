"""Real rows and rows of a bank become one batch, a function of the step alone.

`N` rows of a batch, the real ones first; `C H W` channels and pixels. Images lie as uint8 (on the
device, or mapped from the disk where they do not fit) and are cropped, flipped and normalised for
the whole batch at once; rows of a bank pass through exactly the same transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.rng import stream
from trainer.engine import mixing, samplers
from trainer.recipes.stage import Stage
from trainer.spec import RunSpec

__all__ = ["Batch", "Batches", "Images", "Transform", "transform_of", "windows"]

# Above this, images stay on the disk and are gathered batch by batch.
RESIDENT_BYTES = 8 << 30


@dataclass(frozen=True)
class Batch:
    """One step's rows; the first `real` come from the training set, the others from a bank.

    images: [N, C, H, W] float32, normalised; label_a, label_b: [N] int64; lam: [N] float32, the
    share of label_a; index, index_b: [N] int64, the row of its source that label_a, label_b came
    from; mixed: whether any real row is mixed with another.
    """

    images: Tensor
    label_a: Tensor
    label_b: Tensor
    lam: Tensor
    index: Tensor
    index_b: Tensor
    real: int
    mixed: bool

    @property
    def from_bank(self) -> Tensor:
        """Which rows come from the bank, [N] bool."""
        return torch.arange(len(self.lam), device=self.lam.device) >= self.real

    @property
    def sources(self) -> tuple[slice, ...]:
        """The rows of each source that the batch holds: real, and a bank where there is one."""
        count = len(self.lam)
        real, bank = slice(0, self.real), slice(self.real, count)
        return (real,) if self.real == count else (real, bank)


class Images:
    """uint8 images (N, H, W, C) of a part or a bank, gathered by row onto a device."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self._device = device
        self._mapped = images
        self._resident: Tensor | None = None
        if device.type != "cpu" and images.nbytes <= RESIDENT_BYTES:
            self._resident = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self._mapped)

    def take(self, rows: np.ndarray) -> Tensor:
        """The images of `rows`, [len(rows), H, W, C] uint8 on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._device)]
        return torch.from_numpy(np.asarray(self._mapped[rows])).to(self._device)


class Transform:
    """uint8 images [N, H, W, C] to normalised [N, C, H, W], channels last in memory."""

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
        # A channel that never changes has no spread to divide by.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32)).clamp(min=1.0)
        self._shift = shift.to(device)[:, None, None]
        self._scale = scale.to(device)[:, None, None]

    def random(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """Cropped from the image padded by zeros, and flipped where that keeps the label."""
        count, height, width, _ = images.shape
        top, left = torch.from_numpy(draws.integers(0, 2 * self.pad + 1, size=(2, count)))
        flip = torch.from_numpy((draws.random(count) < 0.5) & self.flip)
        padded = F.pad(images, (0, 0, self.pad, self.pad, self.pad, self.pad))
        return self.plain(windows(padded, top, left, flip, size=(height, width)))

    def plain(self, images: Tensor) -> Tensor:
        """Normalised only."""
        planes = images.permute(0, 3, 1, 2).to(torch.float32)
        return ((planes - self._shift) * self._scale).contiguous(memory_format=torch.channels_last)


def transform_of(spec: RunSpec, data: Dataset, device: torch.device) -> Transform:
    """The transform of a run: its own `pad` and `flip`, or an eighth of the side and the set's."""
    pad = data.resolution // 8 if spec.pad is None else spec.pad
    flip = data.flip if spec.flip is None else spec.flip
    return Transform(data.mean, data.std, pad=pad, flip=flip, device=device)


def windows(
    images: Tensor, top: Tensor, left: Tensor, flip: Tensor, *, size: tuple[int, int]
) -> Tensor:
    """One window of `size` (height, width) of each image, mirrored where `flip` says.

    images: [N, H, W, C]; top, left: [N] int64, where windows begin; flip: [N] bool.
    """
    device = images.device
    top, left, flip = top.to(device), left.to(device), flip.to(device)
    down = torch.arange(size[0], device=device)
    across = torch.arange(size[1], device=device)
    rows = top[:, None] + down  # [N, height]
    columns = left[:, None] + torch.where(flip[:, None], size[1] - 1 - across, across)
    sample = torch.arange(len(images), device=device)[:, None, None]
    return images[sample, rows[:, :, None], columns[:, None, :]]


class Batches:
    """The batches of one stage: `batches(step)` for step 0 .. steps - 1.

    In arms with mixing or a bank, the last `final_real_fraction` of the steps, and all steps of a
    stage that asks for real rows, hold real unmixed rows only.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: Dataset,
        *,
        stage: Stage,
        number: int,
        bank: Bank | None,
        steps: int,
        device: torch.device,
    ) -> None:
        self._spec, self._number, self._device = spec, number, device
        self._classes = data.num_classes
        follows_arm = stage.rows == "arm" and spec.aug != "none"
        last = round(steps * spec.final_real_fraction)
        self._plain_from = steps - last if follows_arm else 0
        self._bank_rows = spec.bank_rows
        self._bank = bank if follows_arm and self._bank_rows else None
        self._transform = transform_of(spec, data, device)
        self._labels = np.asarray(data.train.labels)
        self._images = Images(data.train.images, device)
        self._order = self._order_of(stage.sampler)
        if self._bank is not None:
            self._bank_images = Images(self._bank.images, device)
            self._bank_order = samplers.instance(len(self._bank), spec.seed, "bank.order", number)

    def _order_of(self, sampler: str) -> samplers.Order:
        seed, number = self._spec.seed, self._number
        if sampler == "class":
            return samplers.balanced(self._labels, self._classes, seed, "data.class", number)
        return samplers.instance(len(self._labels), seed, "data.order", number)

    def __call__(self, step: int) -> Batch:
        arm = step < self._plain_from
        before = min(step, self._plain_from)
        used = self._bank_rows if self._bank is not None else 0
        real = self._spec.batch - (used if arm else 0)
        start = before * (self._spec.batch - used) + (step - before) * self._spec.batch
        index = self._order.rows(start, real)
        images, label_a = self._images.take(index), self._labels[index]
        partner, lam = np.arange(real), np.ones(real, np.float32)
        mixed = arm and self._spec.mixes_real
        if mixed:
            partner = stream(self._spec.seed, "mix.perm", self._number, step).permutation(real)
            draws = stream(self._spec.seed, "mix.lam", self._number, step)
            lam = mixing.shares(self._spec.alpha, real, draws)
        pair, index_b = np.stack([label_a, label_a[partner]], 1), index[partner]
        if arm and self._bank is not None:
            rows = self._bank_order.rows(step * used, used)
            images = torch.cat([images, self._bank_images.take(rows)])
            pair = np.concatenate([pair, self._bank.pair[rows].astype(np.int64)])
            lam = np.concatenate([lam, self._bank.lam[rows]])
            index, index_b = np.concatenate([index, rows]), np.concatenate([index_b, rows])
        planes = self._transform.random(
            images, stream(self._spec.seed, "data.augment", self._number, step)
        )
        put = self._put
        share = put(lam)
        if mixed:
            planes[:real] = mixing.mix(planes[:real], put(partner), share[:real])
        label_a, label_b = np.ascontiguousarray(pair.T)
        return Batch(
            planes, put(label_a), put(label_b), share, put(index), put(index_b), real, mixed
        )

    def refresh(self, number: int) -> Tensor:
        """Unmixed real images in natural proportion for batch-norm statistics, [N, C, H, W]."""
        order = samplers.instance(len(self._labels), self._spec.seed, "refresh.order", self._number)
        rows = order.rows(number * self._spec.batch, self._spec.batch)
        draws = stream(self._spec.seed, "refresh.augment", self._number, number)
        return self._transform.random(self._images.take(rows), draws)

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)
