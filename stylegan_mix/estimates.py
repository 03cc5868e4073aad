"""Estimates of long work from short measurements: a range of seconds, never one number.

A piece of work that is too slow to be tried is measured in smaller forms and scaled up. Its time
is taken for a sum of terms, each a power from 0 to 1 of the work: fixed costs, memory, arithmetic.
Such a sum is concave, so the line through two measurements bounds it from above. Over logarithms it
is convex, so the line there bounds it from below.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["ALLOWANCE", "Form", "Span", "measured"]

ALLOWANCE = 6.0
"""Seconds that a measurement may take before a plan is printed."""

# A first run chooses algorithms and fetches memory, so it takes up to three times as long.
_COLD = 3
# Growth of the time with the work, as an exponent, if one form was measured. A form that leaves no
# time for another does not consist of fixed costs alone.
_GROWTH_OF_ONE = 0.5
# Widest range around a measurement that a guess leaves.
_DOUBT = 4.0
# The least time that a run is taken to last, in seconds: a clock may stand still.
_TICK = 1e-6
# Threads make work faster by their number to this power, at best.
_GAIN_OF_THREADS = 0.75
# A range as wide as this says nothing about the time that somebody will wait.
_MEANINGLESS = 20.0


@dataclass(frozen=True)
class Span:
    """A range of seconds, from `low` to `high`."""

    low: float
    high: float

    def times(self, factor: float) -> Span:
        """Returns the range of work that is `factor` times as long."""
        return Span(self.low * factor, self.high * factor)

    def stretched(self, least: float, most: float) -> Span:
        """Returns a wider range, for work that adds between `least` and `most` times the time."""
        return Span(self.low * least, self.high * most)

    def in_threads(self, threads: int) -> Span:
        """Returns the range of work in several threads, if this one was measured in one."""
        return self.stretched(threads**-_GAIN_OF_THREADS, 1.0)

    @property
    def middle(self) -> float:
        """The geometric mean of both ends."""
        return math.sqrt(self.low * self.high)

    @property
    def says_something(self) -> bool:
        """False for a range that is too wide to plan with."""
        return self.high <= _MEANINGLESS * self.low

    def plain(self) -> list[float] | None:
        """Lists both ends, rounded, for JSON; None if they say nothing."""
        return [round(self.low, 1), round(self.high, 1)] if self.says_something else None

    def in_words(self) -> str:
        """Puts the range into words to plan with, such as "1.5 to 2.5 hours"."""
        if not self.says_something:
            return "an unknown time"
        unit, length = next(
            (unit, length) for unit, length, most in _UNITS if self.high < most * length
        )
        low, high = (_two_digits(seconds / length) for seconds in (self.low, self.high))
        return f"about {high} {unit}" if low == high else f"{low} to {high} {unit}"


# Unit, its length in seconds, and the number of it from which a larger unit reads better.
_UNITS = (
    ("seconds", 1.0, 120.0),
    ("minutes", 60.0, 120.0),
    ("hours", 3600.0, 48.0),
    ("days", 86400.0, math.inf),
)


def _two_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


@dataclass(frozen=True)
class Form:
    """A form of some work that can be measured: smaller than the work itself, or the work itself.

    `work` is its size; only ratios of sizes count. `prepare` returns a function that does it once.
    Up to `runs` runs of it are timed, after a first one that does not count.
    """

    work: float
    prepare: Callable[[], Callable[[], None]]
    runs: int = 3


def measured(
    forms: Sequence[Form],
    *,
    guess: Span | None = None,
    allowance: float = ALLOWANCE,
    clock: Callable[[], float] = time.perf_counter,
) -> Span:
    """Measures as large a form of some work as fits into `allowance` seconds; scales it up.

    `forms` ascend by their work; the last is the work itself. The first is measured on any machine,
    so it must be tiny, unless a `guess` of the time of the work says that even this takes too long.
    If the work itself is not measured, the guess also bounds the result: the one form may have been
    measured while the machine was busy.
    """
    until, whole = clock() + allowance, forms[-1].work
    if guess is not None and _COLD * guess.high * forms[0].work / whole > allowance:
        return guess
    known = [_timed(forms[0], math.inf, clock)]
    while known[-1].work < whole:
        left = until - clock()
        larger = [form for form in forms if form.work > known[-1].work]
        fits = [form for form in larger if (_COLD + 1) * _most(known, form.work) <= left]
        # One form cannot tell fixed costs from others, so the next one gets the benefit of doubt.
        if not fits and len(known) == 1 and (_COLD + 1) * _least(known, larger[0].work) <= left:
            fits = larger[:1]
        if not fits:
            break
        known.append(_timed(fits[-1], until, clock))
    least, most = _least(known, whole), _most(known, whole)
    if guess is not None and known[-1].work < whole:
        least = max(least, guess.low)
        most = min(most, max(guess.high, _DOUBT * least))
    return Span(least, max(least, most))


@dataclass(frozen=True)
class _Known:
    """The time of the fastest run of a form and the mean of all, in seconds.

    On a busy machine single runs take many times as long: the mean is the time to expect.
    """

    work: float
    fastest: float
    mean: float


def _timed(form: Form, until: float, clock: Callable[[], float]) -> _Known:
    """Times the runs of a form after a first one, which alone counts if it overruns."""
    run = form.prepare()
    times: list[float] = []
    for _ in range(1 + form.runs):
        began = clock()
        run()
        times.append(max(clock() - began, _TICK))
        if clock() >= until:
            break
    first, *others = times
    if not others:
        return _Known(form.work, first / _COLD, first)
    return _Known(form.work, min(others), sum(others) / len(others))


def _most(known: Sequence[_Known], work: float) -> float:
    """Bounds the time of `work` from above, in proportion or by the line through two forms."""
    last = known[-1]
    proportional = last.mean * work / last.work
    if len(known) == 1 or work == last.work:
        return proportional
    before = known[-2]
    slope = max(last.mean - before.fastest, 0.0) / (last.work - before.work)
    return min(last.mean + slope * (work - last.work), proportional)


def _least(known: Sequence[_Known], work: float) -> float:
    """Bounds the time of `work` from below, by the growth between the two largest forms."""
    last, growth = known[-1], _GROWTH_OF_ONE
    if len(known) > 1:
        before = known[-2]
        growth = math.log(last.fastest / before.fastest) / math.log(last.work / before.work)
    return last.fastest * (work / last.work) ** min(max(growth, 0.0), 1.0)
