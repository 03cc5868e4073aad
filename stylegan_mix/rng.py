"""Randomness as a function: every draw depends on (seed, stream name, absolute index) alone.

There is no global generator and no generator state to save. A run that resumes at step 1000, or a
bank written by three processes, asks for the same (seed, name, index) and gets the same numbers as
an undisturbed one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Draws", "stream", "torch_generator", "torch_seed"]


def stream(seed: int, name: str, *index: int) -> np.random.Generator:
    """Makes a NumPy generator for the draw named by `(seed, name, index)`.

    `seed` and every `index` are integers of any size and sign; `name` is a dotted stream name
    such as ``"data.order"``. The bit generator is Philox 4x64 (Salmon et al. 2011), keyed by
    the first 128 bits of the SHA-256 of its arguments: streams of different names or indices
    are independent for every purpose.
    """
    key = np.frombuffer(_digest(seed, name, index)[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def torch_generator(
    seed: int, name: str, *index: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Makes a torch generator on `device` for the draw named by `(seed, name, index)`."""
    import torch

    return torch.Generator(device=device).manual_seed(torch_seed(seed, name, *index))


def torch_seed(seed: int, name: str, *index: int) -> int:
    """Computes the seed of `torch_generator`."""
    return int.from_bytes(_digest(seed, name, index)[16:24], "little") >> 1


def _drawn(draw: Callable[[], torch.Tensor]) -> torch.Tensor:
    return draw()


@dataclass(frozen=True)
class Draws:
    """Random tensors for the rows of a batch that this process holds.

    Process `rank` of `world` holds the rows rank, rank + world, ... of the whole batch. Every
    process draws the numbers of the whole batch and keeps its rows, so the number of processes
    cannot change a draw. Without a `generator` torch's default one is used. Every draw goes through
    `hold`, which may keep the values for later. `whole` counts the rows of the batch where they are
    not as many in each process.
    """

    generator: torch.Generator | None = None
    rank: int = 0
    world: int = 1
    hold: Callable[[Callable[[], torch.Tensor]], torch.Tensor] = _drawn
    whole: int | None = None

    def of(self, whole: int | None) -> Draws:
        """Makes the same draws for a batch of `whole` rows; None: as many in each process."""
        return self if whole == self.whole else replace(self, whole=whole)

    def normal(self, rows: int, *shape: int, device: str | torch.device = "cpu") -> torch.Tensor:
        """Draws standard normal float32 [rows, *shape]; `rows` counts those of this process."""
        import torch

        whole = (self._rows(rows), *shape)
        return self._own(lambda: torch.randn(whole, generator=self.generator, device=device))

    def uniform(self, rows: int, *shape: int, device: str | torch.device = "cpu") -> torch.Tensor:
        """Draws uniform float32 in [0, 1), [rows, *shape]."""
        import torch

        whole = (self._rows(rows), *shape)
        return self._own(lambda: torch.rand(whole, generator=self.generator, device=device))

    def integers(
        self, low: int, high: int, rows: int, *shape: int, device: str | torch.device = "cpu"
    ) -> torch.Tensor:
        """Draws uniform int64 from `low` to `high` - 1, [rows, *shape]."""
        import torch

        whole = (self._rows(rows), *shape)
        return self._own(
            lambda: torch.randint(low, high, whole, generator=self.generator, device=device)
        )

    def _rows(self, rows: int) -> int:
        return rows * self.world if self.whole is None else self.whole

    def _own(self, whole: Callable[[], torch.Tensor]) -> torch.Tensor:
        return self.hold(whole)[self.rank :: self.world]


def _digest(seed: int, name: str, index: tuple[int, ...]) -> bytes:
    text = "\x1f".join([str(int(seed)), name, *(str(int(i)) for i in index)])
    return hashlib.sha256(text.encode()).digest()
