"""Batches of real images beside rows of a bank, for any training loop in PyTorch.

`B` rows of a batch, `K` classes, `C H W` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stylegan_mix import datasets
from stylegan_mix.banks.dataset import BankDataset, Rows
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.rng import stream

__all__ = ["HybridLoader", "Labelled"]


class Labelled(Protocol):
    """A map-style data set of pairs: image [C,H,W], and a class number or a soft label [K]."""

    def __len__(self) -> int:
        """Counts the images."""

    def __getitem__(self, row: int, /) -> Any:
        """Returns an image and its label."""


class HybridLoader(DataLoader[Any]):
    """A loader of batches that are half real images and half rows of a bank.

    It gives `images` [B,C,H,W] and `labels` float32 [B,K]: the first `real_rows` rows of a batch
    are real images with all weight on their class, the others are rows of the bank with soft
    labels. `torch.nn.functional.cross_entropy` takes such labels as they are.

    An epoch shows every real image once; its last batch is smaller, in the same proportion. The
    rows of the bank are taken in turn, each once before any comes again. Both orders are functions
    of `seed` and the number of the epoch, which counts up by itself; `set_epoch` chooses it, to go
    on with an interrupted training.

    `real` is a data set of this project, whose training part is taken, or any data set in PyTorch
    of images and class numbers. Its images must have the type and the shape of the bank's, after
    the transforms of both. All other options, such as `num_workers` and `pin_memory`, are those of
    `DataLoader`.

    Raises `InvalidInput` (exit code 3) if real images and bank do not fit each other: in split,
    classes, type or shape. Only the splits of this project's data sets can be compared. Raises
    `UsageFailure` (exit code 2) for an impossible batch.
    """

    def __init__(
        self,
        real: datasets.Dataset | Labelled,
        bank: BankDataset,
        *,
        batch: int = 128,
        bank_share: float = 0.5,
        seed: int = 0,
        **options: Any,
    ) -> None:
        from_bank = round(batch * bank_share) if 0 < bank_share < 1 else 0
        if not 0 < from_bank < batch:
            raise UsageFailure(
                f"a batch of {batch} with a bank's share of {bank_share:g} has {from_bank} rows of "
                "the bank; expected at least one, and at least one real image"
            )
        self.real_rows = batch - from_bank
        joined = _Joined(_as_pairs(real, bank), bank)
        joined.check()
        order = _Order(len(joined.real), len(bank), self.real_rows, from_bank, seed)
        super().__init__(joined, batch_sampler=order, collate_fn=_as_it_is, **options)
        self._order = order

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration gives, counted from 0."""
        self._order.epoch = epoch


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch


class _Order(Sampler[list[int]]):
    """Batches of row numbers: real images first, then rows of the bank, counted on from them."""

    def __init__(self, real: int, bank: int, real_rows: int, bank_rows: int, seed: int) -> None:
        self._real, self._bank, self._seed = real, bank, seed
        self._real_rows, self._bank_rows = real_rows, bank_rows
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self._real / self._real_rows)

    def __iter__(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        real = stream(self._seed, "hybrid.real", epoch).permutation(self._real)
        sizes = self._bank_sizes()
        bank = self._bank_positions(epoch * sum(sizes), sum(sizes))
        start = 0
        for number, size in enumerate(sizes):
            rows = real[number * self._real_rows : (number + 1) * self._real_rows]
            yield np.concatenate([rows, self._real + bank[start : start + size]])
            start += size

    def _bank_sizes(self) -> list[int]:
        """Lists the rows of the bank in each batch of an epoch."""
        whole, rest = divmod(self._real, self._real_rows)
        last = [max(round(rest * self._bank_rows / self._real_rows), 1)] if rest else []
        return [self._bank_rows] * whole + last

    def _bank_positions(self, start: int, count: int) -> np.ndarray:
        """Lists the rows at positions start .. start + count - 1 of the endless order."""
        parts = [np.empty(0, np.int64)]
        while count > 0:
            turn, offset = divmod(start, self._bank)
            order = stream(self._seed, "hybrid.bank", turn).permutation(self._bank)
            taken = order[offset : offset + count]
            parts.append(taken)
            start, count = start + len(taken), count - len(taken)
        return np.concatenate(parts)


class _Joined(Dataset[tuple[Tensor, Tensor]]):
    """Real images, then the rows of a bank, in one count."""

    def __init__(self, real: Labelled, bank: BankDataset) -> None:
        self.real, self._bank = real, bank

    def __len__(self) -> int:
        return len(self.real) + len(self._bank)

    def __getitems__(self, rows: np.ndarray) -> list[Tensor]:
        """Reads one batch: images [B,C,H,W], labels [B,K]."""
        first_of_bank = len(self.real)
        real, drawn = rows[rows < first_of_bank], rows[rows >= first_of_bank]
        parts = [
            self._stacked(_several(self.real, real), real),
            self._stacked(_several(self._bank, drawn - first_of_bank), drawn),
        ]
        return [torch.cat(both) for both in zip(*parts, strict=True)]

    def _stacked(self, pairs: Sequence[Any], rows: np.ndarray) -> tuple[Tensor, Tensor]:
        if isinstance(pairs, Rows):
            return pairs.images, pairs.labels
        labels = [self._soft(label, row) for (_, label), row in zip(pairs, rows, strict=True)]
        return torch.stack([image for image, _ in pairs]), torch.stack(labels)

    def _soft(self, label: Any, row: int) -> Tensor:
        """Converts a class number to a label [K]; a soft label stays."""
        classes = len(self._bank.classes)
        given = torch.as_tensor(label)
        if given.shape == (classes,) and given.is_floating_point():
            return given.float()
        if given.numel() != 1 or given.is_floating_point() or not 0 <= int(given) < classes:
            raise InvalidInput(
                f"the label of real image {row} is {label!r}; expected a class number from 0 to "
                f"{classes - 1}, or {classes} shares",
                remedy="the bank's `classes` names the classes in their order",
            )
        return torch.nn.functional.one_hot(given.reshape(()).long(), classes).float()

    def check(self) -> None:
        """Compares the first real image with the first row of the bank."""
        if not len(self.real):
            raise InvalidInput("the real data set has no images")
        real, bank = self.real[0], self._bank[0][0]
        if not (isinstance(real, tuple | list) and len(real) == 2):
            raise InvalidInput(
                f"the real data set gives {type(real).__name__}; expected pairs of image and label"
            )
        self._soft(real[1], 0)
        found, expected = _described(real[0]), _described(bank)
        if found != expected:
            raise InvalidInput(
                f"a real image is {found}, a row of the bank {expected}",
                remedy="bring both to one form with the transform of the real data set, or with "
                "BankDataset(..., transform=...), which gets a uint8 tensor [C,H,W]",
            )


def _described(image: Any) -> str:
    if not isinstance(image, Tensor):
        return f"of type {type(image).__name__}, no tensor"
    return f"a tensor {str(image.dtype).removeprefix('torch.')} {list(image.shape)}"


def _several(real: Labelled, rows: np.ndarray) -> Sequence[Any]:
    """Reads rows at once from a data set that can, else one by one."""
    read = getattr(real, "__getitems__", None)
    chosen = rows.tolist()
    found: Sequence[Any] = [real[row] for row in chosen] if read is None else read(chosen)
    return found


def _as_pairs(real: datasets.Dataset | Labelled, bank: BankDataset) -> Labelled:
    """Returns a data set of pairs, after comparing its split and classes with the bank's."""
    if isinstance(real, datasets.Dataset):
        bank.bank.require_split(real.split_id)
    named = getattr(real, "classes", None)
    if isinstance(named, list | tuple) and tuple(map(str, named)) != bank.classes:
        raise InvalidInput(
            f"the real data set has the classes {_few(named)}, the bank {_few(bank.classes)}",
            remedy="take the bank of this data set, and number the classes in the same order",
        )
    return _Part(real) if isinstance(real, datasets.Dataset) else real


def _few(names: Sequence[Any]) -> str:
    more = f", ... ({len(names)})" if len(names) > 5 else ""
    return ", ".join(map(str, list(names)[:5])) + more


class _Part(Dataset[tuple[Tensor, Tensor]]):
    """The training part of a data set of this project, in the form of a bank's rows."""

    def __init__(self, data: datasets.Dataset) -> None:
        self._images, self._labels = data.train.images, torch.as_tensor(data.train.labels)
        self._classes = data.num_classes

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> Rows:
        images = torch.from_numpy(self._images.take(rows, axis=0)).permute(0, 3, 1, 2)
        labels = torch.nn.functional.one_hot(self._labels[rows], self._classes).float()
        return Rows(images, labels)
