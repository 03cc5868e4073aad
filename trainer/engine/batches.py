"""The batches of a stage, from training images and a bank: a function of the step alone.

`N` rows of a batch; `C H W` channels and pixels. Images lie as uint8 on the device, or mapped from
the disk if they do not fit. They are cropped, flipped and normalised for the whole batch at once.
Rows of a bank pass through exactly the same transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.rng import stream
from trainer.engine import samplers
from trainer.engine.batch import Batch, Source
from trainer.engine.mixing import ARMS, Mixer
from trainer.recipes.stage import Draw, Stage
from trainer.spec import RunSpec

__all__ = ["Batches", "Images", "Transform", "source_names", "transform_of", "windows"]

# Above this size, images stay on the disk and are gathered batch by batch.
RESIDENT_BYTES = 8 << 30


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
        """Gathers the images of `rows`, [len(rows), H, W, C] uint8 on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._device)]
        return torch.from_numpy(np.asarray(self._mapped[rows])).to(self._device)


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
        # A constant channel has no spread to divide by.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32)).clamp(min=1.0)
        self._shift = shift.to(device)[:, None, None]
        self._scale = scale.to(device)[:, None, None]

    def random(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """Crops from the image padded by zeros, flips if that keeps the label, normalises."""
        count, height, width, _ = images.shape
        top, left = torch.from_numpy(draws.integers(0, 2 * self.pad + 1, size=(2, count)))
        flip = torch.from_numpy((draws.random(count) < 0.5) & self.flip)
        padded = F.pad(images, (0, 0, self.pad, self.pad, self.pad, self.pad))
        return self.plain(windows(padded, top, left, flip, size=(height, width)))

    def plain(self, images: Tensor) -> Tensor:
        """Normalises only."""
        planes = images.permute(0, 3, 1, 2).to(torch.float32)
        return ((planes - self._shift) * self._scale).contiguous(memory_format=torch.channels_last)


def transform_of(spec: RunSpec, data: Dataset, device: torch.device) -> Transform:
    """Makes the transform of a run; `pad` is an eighth of the side and `flip` the set's if None."""
    pad = data.resolution // 8 if spec.pad is None else spec.pad
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
    sample = torch.arange(len(images), device=device)[:, None, None]
    return images[sample, rows[:, :, None], columns[:, None, :]]


@dataclass(frozen=True)
class _Part:
    """The rows of one source before they are put together: two labels and images each.

    images: [n, H, W, C] uint8; labels, index: [n, 2] int64, of a and of b; lam: [n] float32. The
    source has no places in the batch yet.
    """

    source: Source
    images: Tensor
    labels: np.ndarray
    lam: np.ndarray
    index: np.ndarray


def source_names(stage: Stage) -> tuple[str, ...]:
    """Lists the names of all sources that a stage's batches may have, including a bank."""
    real = [_real(place) for place in range(len(stage.draws))]
    return (real[0], "bank", *real[1:])


def _real(place: int) -> str:
    """Names a draw of a stage."""
    return f"real-{place + 1}" if place else "real"


def _twice(values: np.ndarray) -> np.ndarray:
    """Makes an unmixed row its own partner: [n] -> [n, 2]."""
    return np.stack([values, values], 1)


def _one_after_another(parts: Sequence[_Part]) -> tuple[Source, ...]:
    """Places the rows of the parts one after another; returns their sources."""
    ends = list(accumulate(len(part.lam) for part in parts))
    return tuple(
        replace(part.source, rows=slice(end - len(part.lam), end))
        for part, end in zip(parts, ends, strict=True)
    )


class Batches:
    """The batches of one stage: `batches(step)` for step 0 .. steps - 1.

    The first of the stage's draws is the source "real", further ones are "real-2" and so on, and
    the rows of a bank are "bank". Draws without a loss come last. In arms with mixing or a bank,
    the last `final_real_fraction` of the steps hold real unmixed rows only, and so do all steps of
    a stage that asks for real rows. `accepted` are the rows of the bank that are used; None means
    all of them.
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
        accepted: np.ndarray | None = None,
    ) -> None:
        self._spec, self._stage, self._number, self._device = spec, stage, number, device
        self._counts = np.asarray(data.counts)
        follows_arm = stage.rows == "arm" and spec.aug != "none"
        last = round(steps * spec.final_real_fraction)
        self._steps = steps
        self._plain_from = steps - last if follows_arm else 0
        make_mixer = ARMS[spec.aug].mixer
        self._mixer = make_mixer(spec.alpha) if make_mixer else None
        self._bank = bank if follows_arm and spec.bank_rows else None
        self._used = spec.bank_rows if self._bank is not None else 0
        self._transform = transform_of(spec, data, device)
        self._labels = np.asarray(data.train.labels)
        self._images = Images(data.train.images, device)
        self._orders = [self._order(place, draw) for place, draw in enumerate(stage.draws)]
        if self._bank is not None:
            self._bank_images = Images(self._bank.images, device)
            self._accepted = np.arange(len(self._bank)) if accepted is None else accepted
            self._bank_order = samplers.instance(
                len(self._accepted), spec.seed, "bank.order", number
            )

    def _order(self, place: int, draw: Draw) -> samplers.Order:
        seed, number = self._spec.seed, self._number
        further = f"-{place + 1}" if place else ""
        if draw.sampler == "instance":
            return samplers.instance(len(self._labels), seed, f"data.order{further}", number)
        name = f"data.class{further}"
        if draw.sampler == "class":
            return samplers.balanced(self._labels, len(self._counts), seed, name, number)
        passes = self._rows_before(draw, self._steps) / len(self._labels)

        def shares(one_pass: int) -> np.ndarray:
            return samplers.class_shares(draw.sampler, self._counts, min(one_pass / passes, 1.0))

        return samplers.weighted(self._labels, shares, seed, name, number)

    def __call__(self, step: int) -> Batch:
        in_arm = step < self._plain_from
        parts = [self._drawn(place, step) for place in range(len(self._orders))]
        if in_arm and self._bank is not None:
            parts.append(self._from_bank(self._bank, step))
        images = torch.cat([part.images for part in parts])
        planes = self._transform.random(images, self._stream("data.augment", step))
        if in_arm and self._mixer is not None:  # an arm has one draw, the first rows
            parts[0] = self._mixed(self._mixer, parts[0], planes, step)
        labels = np.concatenate([part.labels for part in parts])
        index = np.concatenate([part.index for part in parts])
        lam = np.concatenate([part.lam for part in parts])
        label_a, label_b, index_a, index_b = map(self._put, [*labels.T, *index.T])
        return Batch(
            planes,
            label_a,
            label_b,
            self._put(lam),
            index_a,
            index_b,
            _one_after_another(parts),
            self._views(images, step),
        )

    def _drawn(self, place: int, step: int) -> _Part:
        """Draws the rows of one of the stage's draws, not yet mixed."""
        draw = self._stage.draws[place]
        start, end = (self._rows_before(draw, one) for one in (step, step + 1))
        rows = self._orders[place].rows(start, end - start)
        return _Part(
            Source(_real(place), slice(0), judged=draw.judged),
            self._images.take(rows),
            _twice(self._labels[rows]),
            np.ones(len(rows), np.float32),
            _twice(rows),
        )

    def _rows_before(self, draw: Draw, step: int) -> int:
        """Counts the rows of a draw in all steps before `step`: fewer where a bank has its part."""
        in_arm, plain = (
            round(draw.share * n) for n in (self._spec.batch - self._used, self._spec.batch)
        )
        before = min(step, self._plain_from)
        return before * in_arm + (step - before) * plain

    def _from_bank(self, bank: Bank, step: int) -> _Part:
        rows = self._accepted[self._bank_order.rows(step * self._used, self._used)]
        return _Part(
            Source("bank", slice(0), bank=True, mixed=True, weight=self._spec.bank_weight),
            self._bank_images.take(rows),
            bank.pair[rows].astype(np.int64),
            bank.lam[rows],
            _twice(rows),
        )

    def _mixed(self, mixer: Mixer, part: _Part, planes: Tensor, step: int) -> _Part:
        """Mixes the first rows of `planes` among themselves, in place; returns their labels."""
        rows, label, index = slice(0, len(part.lam)), part.labels[:, 0], part.index[:, 0]
        mixed = mixer(planes[rows], label, self._counts, lambda name: self._stream(name, step))
        planes[rows] = mixed.planes
        return replace(
            part,
            source=replace(part.source, mixed=True),
            labels=np.stack([label, label[mixed.partner]], 1),
            lam=mixed.lam,
            index=np.stack([index, index[mixed.partner]], 1),
        )

    def _views(self, images: Tensor, step: int) -> Tensor | None:
        """Makes the further views that the stage asks for, [V, N, C, H, W]."""
        if not self._stage.views:
            return None
        views = [
            self._transform.random(images, self._stream("data.view", step, place))
            for place, _ in enumerate(self._stage.views)
        ]
        return torch.stack(views)

    def refresh(self, number: int) -> Tensor:
        """Draws unmixed real images in natural proportion for batch-norm statistics."""
        order = samplers.instance(len(self._labels), self._spec.seed, "refresh.order", self._number)
        rows = order.rows(number * self._spec.batch, self._spec.batch)
        draws = self._stream("refresh.augment", number)
        return self._transform.random(self._images.take(rows), draws)

    def _stream(self, name: str, *index: int) -> np.random.Generator:
        return stream(self._spec.seed, name, self._number, *index)

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
