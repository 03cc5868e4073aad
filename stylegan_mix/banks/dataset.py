"""The rows of a bank as a PyTorch data set: images with soft labels.

`N` rows, `K` classes, `C H W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_mix.banks import store
from stylegan_mix.banks.reader import Bank, open_bank, reopen

__all__ = ["BankDataset", "Rows"]


class BankDataset(Dataset[tuple[Tensor, Tensor]]):
    """The rows of a bank, for a `DataLoader`: image uint8 [C,H,W], soft label float32 [K].

    `bank` is the folder of a bank, its key, or the beginning of the key. `transform` changes each
    image, for example to floating point. With `verify` all bytes are checked against their hash
    once. A worker process of a loader opens the bank by itself, at its first row.

    Raises `InvalidInput` (exit code 3) for a bank that is missing or damaged, and in a worker, if
    the folder holds another bank by then.
    """

    def __init__(
        self,
        bank: str | Path,
        *,
        transform: Callable[[Tensor], Any] | None = None,
        verify: bool = True,
    ) -> None:
        opened = open_bank(store.resolve(str(bank)), verify=verify)
        self.folder = opened.folder.absolute()
        self.transform = transform
        self._content = opened.content_sha256
        self._opened: Bank | None = opened

    @property
    def bank(self) -> Bank:
        """The opened bank, with its facts."""
        if self._opened is None:
            self._opened = reopen(self.folder, self._content)
        return self._opened

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        return self.bank.classes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return len(self.bank)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        found = self.batch([row])
        image, label = found.images[0], found.labels[0]
        return image if self.transform is None else self.transform(image), label

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> Sequence[Sequence[Tensor]]:
        """Reads several rows at once, as a `DataLoader` asks for them."""
        found = self.batch(rows)
        if self.transform is None:
            return found
        return [(self.transform(image), label) for image, label in found]

    def batch(self, rows: Sequence[int] | np.ndarray) -> Rows:
        """Reads rows without `transform`; negative numbers count from the end.

        Raises `IndexError` for a row that the bank does not have.
        """
        bank, chosen = self.bank, np.asarray(rows, np.int64)
        images = bank.images.take(chosen, axis=0).transpose(0, 3, 1, 2)
        return Rows(torch.from_numpy(images), torch.from_numpy(bank.soft_labels(chosen)))

    def fill(self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Writes rows, which the bank must have, into images uint8 [N,H,W,C] and labels [N,K].

        Without `transform`. It spares `HybridLoader` a copy of each batch.
        """
        # NumPy writes straight into `out` only if it need not refuse a number.
        self.bank.images.take(rows, axis=0, out=images, mode="clip")
        labels[:] = self.bank.soft_labels(rows)


class Rows(Sequence[Sequence[Tensor]]):
    """Rows of a bank: a sequence of (image, label), which PyTorch need not collate one by one.

    `images` uint8 [N,C,H,W], in the memory order of channels-last; `labels` float32 [N,K].
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self._count = len(images)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> _Row: ...
    @overload
    def __getitem__(self, row: slice) -> Rows: ...
    def __getitem__(self, row: int | slice) -> _Row | Rows:
        if isinstance(row, slice):
            return Rows(self.images[row], self.labels[row])
        if not -self._count <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        return _Row(self, row)


class _Row(Sequence[Tensor]):
    """A row of `Rows`: image and label. Its type leads `default_collate` to `_collate`.

    Its tensors are made only if they are asked for: to collate a batch asks for none.
    """

    def __init__(self, rows: Rows, number: int) -> None:
        self._rows, self._number = rows, number

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, part: int) -> Tensor: ...
    @overload
    def __getitem__(self, part: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, part: int | slice) -> Tensor | tuple[Tensor, ...]:
        return (self._rows.images[self._number], self._rows.labels[self._number])[part]


def _collate(batch: Sequence[Sequence[Tensor]], **_: Any) -> list[Tensor]:
    if isinstance(batch, Rows):
        return [batch.images, batch.labels]
    images, labels = zip(*batch, strict=True)
    return [torch.stack(images), torch.stack(labels)]


def _register() -> None:
    """Announces `_collate` to PyTorch; without it, its own way gives the same, more slowly."""
    try:
        from torch.utils.data._utils.collate import default_collate_fn_map
    except ImportError:
        return
    default_collate_fn_map[_Row] = _collate


_register()
