"""Batches of real images beside rows of a bank, for any training loop in PyTorch.

`B` rows of a batch, `K` classes, `C H W` pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, distributed
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

    In a training of several processes each is given its own rows of these orders: `rank` of
    `world_size` processes, by default those of `torch.distributed`, where it is initialised.
    `batch` is that of one process: together they see the real images that one process would see
    with a batch `world_size` times as large. All have as many batches, of the same sizes; so in an
    epoch up to `world_size - 1` real images are left out, others each time.

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
        rank: int | None = None,
        world_size: int | None = None,
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
        share = _share(rank, world_size)
        order = _Order((len(joined.real), len(bank)), (self.real_rows, from_bank), share, seed)
        if not len(order):
            raise InvalidInput(
                f"{len(joined.real)} real images cannot be shared by {share[1]} processes"
            )
        super().__init__(joined, batch_sampler=order, collate_fn=_as_it_is, **options)
        self._joined, self._order = joined, order

    def __iter__(self) -> Any:
        return super().__iter__() if self.num_workers or self.pin_memory else self._batches()

    def _batches(self) -> Iterator[list[Tensor]]:
        """Reads the batches of an epoch here.

        PyTorch's own iterator takes as long for a batch of small images as to read them.
        """
        # It takes a number for its workers even if it has none. So does this one: whatever else is
        # drawn is the same with workers and without.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        for rows in self._order:
            yield self._joined.__getitems__(rows)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration gives, counted from 0."""
        self._order.epoch = epoch


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch


def _share(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Returns rank and number of the processes, by default those of `torch.distributed`."""
    running = distributed.is_available() and distributed.is_initialized()
    own = distributed.get_rank() if running else 0
    size = distributed.get_world_size() if running else 1
    rank = own if rank is None else rank
    world_size = size if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise UsageFailure(
            f"there is no process {rank} of {world_size}; they are counted from 0",
            remedy="give both rank and world_size, or neither",
        )
    return rank, world_size


class _Order(Sampler[Any]):
    """Batches of row numbers: those of real images, and those of the bank.

    `there` are the numbers of both, `rows` those in a batch; `share` is rank and number of the
    processes.
    """

    def __init__(
        self, there: tuple[int, int], rows: tuple[int, int], share: tuple[int, int], seed: int
    ) -> None:
        (self._real, self._bank), (self._real_rows, self._bank_rows) = there, rows
        (self._rank, self._world), self._seed = share, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._sizes())

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        sizes = self._sizes()
        drawn = self._world * sum(of_bank for _, of_bank in sizes)
        real = stream(self._seed, "hybrid.real", epoch).permutation(self._real)
        bank = self._bank_positions(epoch * drawn, drawn)
        for of_real, of_bank in sizes:
            yield self._own(real, of_real), self._own(bank, of_bank)
            real, bank = real[self._world * of_real :], bank[self._world * of_bank :]

    def _own(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Takes this process's rows of the next batch of all processes."""
        return rows[self._rank * count : (self._rank + 1) * count]

    def _sizes(self) -> list[tuple[int, int]]:
        """Lists the rows of both kinds in each batch of an epoch, the same in each process."""
        whole, rest = divmod(self._real // self._world, self._real_rows)
        last = max(round(rest * self._bank_rows / self._real_rows), 1)
        return [(self._real_rows, self._bank_rows)] * whole + ([(rest, last)] if rest else [])

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
    """Real images and the rows of a bank."""

    def __init__(self, real: Labelled, bank: BankDataset) -> None:
        self.real, self._bank = real, bank

    def __len__(self) -> int:
        return len(self.real) + len(self._bank)

    def __getitems__(self, rows: tuple[np.ndarray, np.ndarray]) -> list[Tensor]:
        """Reads one batch: images [B,C,H,W], labels [B,K]."""
        real, drawn = rows
        if isinstance(self.real, _Part) and self._bank.transform is None:
            return self._filled(self.real, real, drawn)
        parts = [
            self._stacked(_several(self.real, real), real),
            self._stacked(_several(self._bank, drawn), drawn),
        ]
        return [torch.cat(both) for both in zip(*parts, strict=True)]

    def _filled(self, part: _Part, real: np.ndarray, drawn: np.ndarray) -> list[Tensor]:
        """Reads a batch of plain arrays, without a copy between."""
        size, count = len(real) + len(drawn), len(real)
        images = np.empty((size, *self._bank.bank.images.shape[1:]), np.uint8)
        labels = np.zeros((size, len(self._bank.classes)), np.float32)
        part.fill(real, images[:count], labels[:count])
        self._bank.fill(drawn, images[count:], labels[count:])
        return [torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(labels)]

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


class _Part(Dataset[tuple[Tensor, int]]):
    """The training part of a data set of this project, in the form of a bank's rows."""

    def __init__(self, data: datasets.Dataset) -> None:
        self._images, self._labels = np.asarray(data.train.images), data.train.labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self._images[row].copy()).permute(2, 0, 1), int(self._labels[row])

    def fill(self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Writes rows into images uint8 [N,H,W,C] and labels [N,K], which hold zeros."""
        self._images.take(rows, axis=0, out=images, mode="clip")
        labels[np.arange(len(rows)), self._labels[rows]] = 1
