"""What no two steps share, recorded once, so that a captured step can be played again with it.

A graph of a GPU repeats the same operators on the same memory: everything that changes from step
to step, draws, labels, rows of real images, numbers on a schedule, must lie where it lay.
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

    The first time, at step `step`, every value is made and kept. After `rewind` the same questions
    in the same order are answered from what is kept; `refill` makes all of it anew, in place, for
    another `step`.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._entries: list[_Entry] = []
        self._kept: list[Tensor] | None = None
        self._asked = 0

    def value(self, make: Callable[[int], Tensor]) -> Tensor:
        """What `make` gives for the step: a tensor that is always of one shape and dtype."""
        if self._kept is not None:
            self._asked += 1
            return self._kept[self._asked - 1]
        made = make(self.step)
        self._entries.append((made, make))
        return made

    def draws(self, draws: Draws, seed: Callable[[int], int]) -> Draws:
        """`draws` by way of the tape; `seed` gives what their generator starts from at a step."""
        generator = draws.generator
        assert generator is not None, "draws of a training have a generator of their own"

        def begin(step: int) -> None:
            generator.manual_seed(seed(step))

        self._entries.append((None, begin))
        return self.answered(draws)

    def answered(self, draws: Draws) -> Draws:
        """`draws` whose values the tape gives; once it is rewound, they need no generator."""
        return dataclasses.replace(draws, hold=lambda draw: self.value(lambda _: draw()))

    @property
    def rewound(self) -> bool:
        """Whether values are answered from what is kept."""
        return self._kept is not None

    def rewind(self) -> None:
        """From here on values are answered from what is kept, the first one first."""
        self._kept = [kept for kept, _ in self._entries if kept is not None]
        self._asked = 0

    @torch.no_grad()
    def refill(self, step: int) -> None:
        """Makes everything anew for another step, where it lies."""
        self.step = step
        for kept, make in self._entries:
            made = make(step)
            if kept is not None and made is not None:
                kept.copy_(made)
