"""Buffers for the values that change every step, refilled before a captured step is replayed.

A CUDA graph repeats the same operators on the same memory. So everything that changes from step to
step (draws, labels, rows of real images, scheduled numbers) must stay at its address.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from stylegan_mix.rng import Draws

__all__ = ["Tape"]

_Entry = tuple[Tensor | None, Callable[[int], Tensor | None]]


class Tape:
    """The values that a step asks for, in the order of asking.

    The first time, at step `step`, every value is made and kept. After `rewind`, the same questions
    in the same order get the kept values. `refill` makes all of them anew, in place, for another
    `step`.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._entries: list[_Entry] = []
        self._kept: list[Tensor] | None = None
        self._asked = 0

    def value(self, make: Callable[[int], Tensor]) -> Tensor:
        """Returns the value of `make` for the step: a tensor of one fixed shape and dtype."""
        if self._kept is not None:
            self._asked += 1
            return self._kept[self._asked - 1]
        made = make(self.step)
        self._entries.append((made, make))
        return made

    def draws(self, draws: Draws, seed: Callable[[int], int]) -> Draws:
        """Puts `draws` on the tape; `seed` gives the seed of their generator at a step."""
        generator = draws.generator
        assert generator is not None, "draws of a training have a generator of their own"

        def begin(step: int) -> None:
            generator.manual_seed(seed(step))

        self._entries.append((None, begin))
        return self.answered(draws)

    def answered(self, draws: Draws) -> Draws:
        """Returns `draws` with values from the tape; after `rewind` they need no generator."""
        return dataclasses.replace(draws, hold=lambda draw: self.value(lambda _: draw()))

    @property
    def rewound(self) -> bool:
        """True once values come from the kept ones."""
        return self._kept is not None

    def rewind(self) -> None:
        """Returns the kept values from here on, the first one first."""
        self._kept = [kept for kept, _ in self._entries if kept is not None]
        self._asked = 0

    @torch.no_grad()
    def refill(self, step: int) -> None:
        """Makes all values anew for another step, in place."""
        self.step = step
        for kept, make in self._entries:
            made = make(step)
            if kept is not None and made is not None:
                kept.copy_(made)
