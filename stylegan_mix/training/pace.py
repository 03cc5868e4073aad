"""The pace of a training: the seconds of its steps, fewer while images have half the size.

The cost of a plan and the budget of a time follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from stylegan_mix.estimates import Span
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.schedules import half_steps

__all__ = ["Pace", "pace_of"]

# More thousands of images than any budget: a training that stays at half the size.
_NEVER = 1e12
_NONE = Span(0.0, 0.0)


@dataclass(frozen=True)
class Pace:
    """The ranges of seconds of a step at full size, and of the first `half_steps` at half."""

    whole: Span
    half: Span = _NONE
    half_steps: int = 0

    def between(self, first: int, last: int) -> Span:
        """Computes the seconds of the steps from `first` up to `last`."""
        small = max(min(last, self.half_steps) - first, 0)
        half, whole = self.half.times(small), self.whole.times(last - first - small)
        return Span(half.low + whole.low, half.high + whole.high)

    def steps_in(self, seconds: float, *, after: int) -> float:
        """Computes how many steps `seconds` allow, after so many."""
        small = max(self.half_steps - after, 0)
        if small and seconds < small * self.half.middle:
            return seconds / self.half.middle
        spent = small * self.half.middle if small else 0.0
        return small + (seconds - spent) / self.whole.middle


def pace_of(plan: TrainPlan, measure: Callable[[TrainPlan], Span]) -> Pace:
    """Measures the pace of a plan; `measure` gives the seconds of a plan's first step."""
    if not plan.preset.grow_end:
        return Pace(measure(plan))
    whole = replace(plan, preset=replace(plan.preset, grow_start=0.0))
    half = replace(plan, preset=replace(plan.preset, grow_start=_NEVER, grow_end=_NEVER))
    first = half_steps(plan.preset)
    return Pace(measure(whole), measure(half) if first else _NONE, first)
