"""The budget of a training that is given as a time: measured once, then remembered.

Speed differs from one measurement to the next. So the choice lies beside the training, and the same
command finds it again: an interrupted training goes on with the budget that it began with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.estimates import ALLOWANCE, Span
from stylegan_mix.session import Session
from stylegan_mix.training.pace import Pace, pace_of
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.saves import Saves

__all__ = ["Chosen", "budget_for", "measurement_seconds", "rounded_down"]

# First digits of a readable budget. The one below 1 is there for a logarithm rounded up.
_DIGITS = (0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_MOST_KIMG = 1e9

Measure = Callable[[TrainPlan], Span]


@dataclass(frozen=True)
class Chosen:
    """A budget in kimg, with the reason in words; `pace` is that of steps, if measured now."""

    kimg: float
    why: str
    pace: Pace | None = None


def measurement_seconds(seconds: float) -> float:
    """Computes the time that the measurement for a training of `seconds` may take."""
    return min(max(0.02 * seconds, ALLOWANCE), 60.0)


def budget_for(
    plan: TrainPlan,
    seconds: float,
    measure: Measure,
    *,
    keep: bool,
    session: Session = Session(),
) -> Chosen:
    """Chooses the budget that this machine trains in `seconds` from where the training stands.

    `measure` gives the range of seconds of a step. With `keep` the choice is stored; a stored one
    is returned at once. Of several processes that ask at once, one measures. `UsageFailure` (exit
    code 2) if the time is too short for a step, `InvalidInput` (3) if the stored choices cannot be
    read.
    """
    if (known := _known(plan, seconds)) is not None:
        return known
    if not keep:
        return _measured(plan, seconds, measure)
    with store.locked(store.home() / "training" / f"{plan.key}.budgets.lock", session=session):
        if (known := _known(plan, seconds)) is not None:
            return known
        chosen = _measured(plan, seconds, measure)
        store.write_json(_path(plan), {**_stored(plan), f"{seconds:g}": chosen.kimg})
        return chosen


def rounded_down(kimg: float) -> float:
    """Rounds a budget down to a number that is easy to read, such as 25, 150 or 1200."""
    power = 10.0 ** math.floor(math.log10(kimg))
    return float(f"{max(one * power for one in _DIGITS if one * power <= kimg):.2g}")


def _measured(plan: TrainPlan, seconds: float, measure: Measure) -> Chosen:
    """Chooses by a measurement, without a look at stored choices."""
    start, pace = _stands_at(plan), pace_of(plan, measure)
    before = plan.steps_for(start) if start else 0
    steps = pace.steps_in(seconds, after=before)
    if steps < 1:
        raise UsageFailure(
            f"a time of {seconds:g} s is too short: one step of {plan.preset.batch} images takes "
            f"{pace.between(before, before + 1).in_words()} on this machine",
            remedy="a longer --time, or --kimg",
        )
    more = min(steps * plan.preset.batch / 1000, _MOST_KIMG)
    whole = rounded_down(start + more)
    kimg = whole if whole > start else start + rounded_down(more)
    taken = pace.between(before, plan.steps_for(kimg))
    from_where = f" from {start:g} thousand images on" if start else ""
    return Chosen(
        kimg, f"--kimg {kimg:g} for the time: {taken.in_words()}{from_where} on this machine", pace
    )


def _stands_at(plan: TrainPlan) -> float:
    """Reads the thousands of images of the newest saved state."""
    return Saves(plan.folder).newest_step * plan.preset.batch / 1000


def _known(plan: TrainPlan, seconds: float) -> Chosen | None:
    """Finds the stored choice for a time."""
    kimg = _stored(plan).get(f"{seconds:g}")
    if kimg is None:
        return None
    return Chosen(kimg, f"--kimg {kimg:g}, as it was chosen for this time before")


def _stored(plan: TrainPlan) -> dict[str, float]:
    """Reads all stored choices: kimg by the time in seconds."""
    path = _path(plan)
    if not path.exists():
        return {}
    remedy = f"move {path} away, and the budget is measured anew; or give --kimg"
    try:
        found = store.read_json(path)
    except InvalidInput as error:
        raise InvalidInput(str(error), remedy=remedy) from error
    sound = isinstance(found, dict) and all(
        type(kimg) in (int, float) and 0 < kimg <= 2 * _MOST_KIMG for kimg in found.values()
    )
    if not sound:
        raise InvalidInput(
            f"{path} must hold budgets in thousands of images by their time in seconds, got "
            f"{found!r:.80}",
            remedy=remedy,
        )
    return found


def _path(plan: TrainPlan) -> Path:
    return plan.folder / "budgets.json"
