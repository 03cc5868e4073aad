"""The batches of a step: real images, and labels to generate, drawn by class power.

K classes, B batch. Class c is drawn with probability in proportion to n_c ** power (1 follows
the data, 0 is uniform), then an image uniformly inside it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stylegan_mix import rng
from stylegan_mix.datasets import Part
from stylegan_mix.datasets.class_weights import class_probabilities
from stylegan_mix.world import World

__all__ = ["RealImages", "draw_labels", "sent"]


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Copies `numbers` from the CPU to `device`; a GPU need not finish its work first."""
    if device.type != "cuda":
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)


def draw_labels(
    counts: np.ndarray, power: float, batch: int, *, seed: int, name: str, index: tuple[int, ...]
) -> np.ndarray:
    """Draws the labels of one batch by class power, int64 [B], from (seed, name, index)."""
    draw = rng.stream(seed, name, *index).random(batch)
    edges = np.cumsum(class_probabilities(counts, power))
    return np.minimum(np.searchsorted(edges, draw, side="right"), len(counts) - 1)


class RealImages:
    """The training part on the device, the source of each step's real batch."""

    def __init__(self, part: Part, *, classes: int, power: float, device: torch.device) -> None:
        order = np.argsort(part.labels, kind="stable")
        self.counts = np.bincount(part.labels, minlength=classes)
        self._starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        images = torch.from_numpy(np.ascontiguousarray(part.images[order]))
        self._labels = torch.from_numpy(part.labels[order].astype(np.int64)).to(device)
        self._images = images.permute(0, 3, 1, 2).contiguous().to(device)
        self._power = power

    def rows(
        self, size: int, *, seed: int, index: tuple[int, ...], world: World = World()
    ) -> Tensor:
        """Draws this process's images of a step: rows of B = `size`, int64 [rows] for `at`."""
        labels = draw_labels(
            self.counts, self._power, size, seed=seed, name="gan.real.class", index=index
        )
        inside = rng.stream(seed, "gan.real.image", *index).random(size)
        rows = self._starts[labels] + (inside * self.counts[labels]).astype(np.int64)
        return sent(world.own(torch.from_numpy(rows)), self._images.device)

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gathers images [rows,C,H,W] float in [-1,1] and labels int64 [rows], on the device."""
        return self._images[rows].float().div_(127.5).sub_(1.0), self._labels[rows]
