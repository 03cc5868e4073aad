"""Random crops of images that are files, and their views at test, decoded ahead of their use.

A crop is a function of the seed, the stage, the step and the place in the batch. Threads, and the
number of files that are decoded ahead, change no bit of it. `n` rows, `S` pixels, `C` channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.datasets.decoders import Pending
from stylegan_mix.datasets.streamed import FileImages

__all__ = ["Crops", "box", "views_of"]

# Shares of an image's area, and ratios of width to height, that a crop may have.
LEAST_AREA, MOST_AREA = 0.08, 1.0
RATIO = 4 / 3
# Draws of a crop before the largest one in the middle is taken.
TRIES = 10
# Images that are decoded, or wait for it, before their step.
AHEAD = 512


def box(width: int, height: int, draws: np.ndarray) -> tuple[float, float, float, float]:
    """Chooses a crop of random area and shape -> left, top, right, bottom in pixels.

    Szegedy et al. 2015, section 6: the area is uniform in [0.08, 1] of the image's, the logarithm
    of width / height in [log 3/4, log 4/3], and the place uniform. A crop that does not fit is
    drawn again; after ten draws it is the largest one in the middle whose shape is in range.
    draws: [TRIES, 4], uniform in [0, 1): area, shape, and both places of each try.
    """
    for area, shape, across, down in draws.tolist():
        pixels = (LEAST_AREA + (MOST_AREA - LEAST_AREA) * area) * width * height
        ratio = RATIO ** (2 * shape - 1)
        wide, tall = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
        if wide <= width and tall <= height:
            left, top = across * (width - wide), down * (height - tall)
            return left, top, min(left + wide, width), min(top + tall, height)
    wide, tall = min(width, height * RATIO), min(height, width * RATIO)
    left, top = (width - wide) / 2, (height - tall) / 2
    return left, top, left + wide, top + tall


@dataclass(frozen=True, eq=False)
class _Box:
    """A crop whose draws are made, of an image whose size is not yet known."""

    draws: np.ndarray

    def __call__(self, width: int, height: int) -> tuple[float, float, float, float]:
        return box(width, height, self.draws)


class Crops:
    """The training images of a stage as random crops, uint8 [n, S, S, C] on the device.

    `draws` gives the random stream of a name and a step. `expect` begins to decode rows, `take`
    waits for them.
    """

    def __init__(
        self,
        files: FileImages,
        draws: Callable[[str, int], np.random.Generator],
        device: torch.device,
    ) -> None:
        self._files, self._draws, self._device = files, draws, device
        self._expected: dict[tuple[str, int], list[Pending[np.ndarray]]] = {}

    def ahead(self, batch: int) -> int:
        """Computes the steps that are decoded ahead; one at least."""
        return max(AHEAD // batch, 1)

    def expect(self, rows: np.ndarray, name: str, step: int) -> None:
        """Begins to decode the rows that `take` will be asked for, unless that was done before."""
        if (name, step) not in self._expected:
            self._expected[name, step] = self._asked(rows, name, step)

    def take(self, rows: np.ndarray, name: str, step: int) -> Tensor:
        """Gathers crops of `rows`, keyed by `name` and `step`; raises as `FileImages` does."""
        asked = self._expected.pop((name, step), None) or self._asked(rows, name, step)
        return torch.from_numpy(self._files.gathered(asked)).to(self._device)

    def _asked(self, rows: np.ndarray, name: str, step: int) -> list[Pending[np.ndarray]]:
        draws = self._draws(f"data.crop.{name}", step).random((len(rows), TRIES, 4))
        return self._files.ask(rows, [_Box(one) for one in draws])


def views_of(files: FileImages, batch: int) -> Iterator[np.ndarray]:
    """Yields the views at test of all files, uint8 [n, S, S, C], `batch` at once.

    While one batch is used, the next one is decoded.
    """
    starts = range(0, len(files), batch)
    parts = [range(start, min(start + batch, len(files))) for start in starts]
    asked = files.ask(parts[0]) if parts else []
    for following in [*parts[1:], range(0)]:
        coming = files.ask(following)
        yield files.gathered(asked)
        asked = coming
