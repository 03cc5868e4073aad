"""Two experiments by the difference of their paired seeds; no torch.

Runs of the same seed share their initial weights and the order of their data, so their difference
varies less than two independent runs do. `n` pairs, differences A - B in points of accuracy.

Choice of the interval. With few seeds the percentile bootstrap is too narrow. It resamples the
observed differences, whose spread it takes with n instead of n - 1, and it lacks the allowance of
Student's quantile for an estimated spread. On normal differences its "95 %" covers 75 % at n = 3,
84 % at n = 5, 93 % at n = 20 (simulated). So below `BOOTSTRAP_FROM` pairs Student's t decides,
which is exact for normal differences. From there on the bootstrap decides, which assumes no shape.
Both are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stylegan_mix.errors import UsageFailure
from stylegan_mix.rng import stream
from trainer.differences import differing, flat
from trainer.reports import figures
from trainer.reports.records import Result, data_ids
from trainer.reports.tables import aligned, comparable

__all__ = [
    "BOOTSTRAP_FROM",
    "Comparison",
    "Difference",
    "bootstrap_interval",
    "compare_runs",
    "difference",
    "t_interval",
]

BOOTSTRAP_FROM = 20
RESAMPLES = 10_000
_SIDES = ("in A", "in B")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The difference A - B of one figure (`part`), in points; see `figures.FIGURES`.

    `bootstrap` and `t` are intervals at the comparison's level; `decides` names the one that
    counts. All are None with a single pair, which says nothing about chance.
    """

    part: str
    mean: float
    each: tuple[float, ...]
    bootstrap: Interval | None
    t: Interval | None
    decides: str | None

    @property
    def interval(self) -> Interval | None:
        """The interval that counts."""
        return self.t if self.decides == "t" else self.bootstrap

    @property
    def distinguishable(self) -> bool:
        """True if that interval excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Comparison:
    """Two experiments: their common seeds, their differences by figure, and by settings.

    `headings` says of each figure what it averages.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    level: float
    differences: tuple[Difference, ...]
    headings: dict[str, str]
    settings: tuple[str, ...]
    left_out: tuple[str, ...]
    margin: float | None = None

    @property
    def deciding(self) -> Difference:
        """The difference that decides: "overall", or "balanced" where the test part is uneven."""
        return self.differences[0]

    @property
    def verdict(self) -> str:
        """The finding in one sentence, for all images and for the mean over classes."""
        first, second = self.differences[:2]
        return f"{self._verdict(first)}; {self._in_brief(second)}"

    def _verdict(self, one: Difference) -> str:
        n, points = len(self.seeds), f"{one.mean:+.2f} points {one.part}"
        if one.interval is None:
            return f"one seed: {points}, and nothing to say how much is chance"
        low, high = one.interval
        span = f"interval [{low:+.2f}, {high:+.2f}] over {n} paired seeds"
        if self.margin is not None:
            return f"{self._equivalence(one)} within {self.margin:g} points: {points}, {span}"
        if not one.distinguishable:
            return f"not distinguishable: {points}, {span}"
        word = "better" if one.mean > 0 else "worse"
        return f"{self.a} is {word} than {self.b}: {points}, {span}"

    def _in_brief(self, one: Difference) -> str:
        told = f"{one.part} {one.mean:+.2f}"
        if one.interval is None:
            return told
        low, high = one.interval
        span = f"{told} [{low:+.2f}, {high:+.2f}]"
        if self.margin is not None:
            return f"{span}, {self._equivalence(one)}"
        return span if one.distinguishable else f"{span}, not distinguishable"

    def _equivalence(self, one: Difference) -> str:
        """Names the finding of equivalence of a difference that has an interval."""
        assert one.interval is not None and self.margin is not None
        within = -self.margin < one.interval[0] and one.interval[1] < self.margin
        return "equivalent" if within else "not shown to be equivalent"

    def text(self) -> str:
        """Renders the comparison for a terminal."""
        percent = f"{100 * self.level:g} %"
        lines = [["A - B", "n", "difference", f"{percent} t", f"{percent} bootstrap", ""]]
        for one in self.differences:
            word = "" if one.distinguishable else "not distinguishable"
            lines.append(
                [
                    self.headings[one.part],
                    str(len(one.each)),
                    f"{one.mean:+.2f}",
                    _span(one.t),
                    _span(one.bootstrap),
                    word,
                ]
            )
        return "\n".join(
            [
                f"A: {self.a}",
                f"B: {self.b}",
                *(f"  differ in {line}" for line in self.settings),
                *self.left_out,
                "",
                *aligned(lines),
                "",
                self.verdict,
                _caveat(self.deciding.decides),
            ]
        )

    def plain(self) -> dict[str, Any]:
        """Returns the comparison as JSON values, schema `trainer-compare/1`."""
        differences = [
            {**asdict(one), "distinguishable": one.distinguishable} for one in self.differences
        ]
        return {
            "schema": "trainer-compare/1",
            **asdict(self),
            "differences": differences,
            "deciding": self.deciding.part,
            "verdict": self.verdict,
        }


def _span(interval: Interval | None) -> str:
    return "n/a" if interval is None else f"[{interval[0]:+.2f}, {interval[1]:+.2f}]"


def _caveat(decides: str | None) -> str:
    if decides is None:
        return "run more seeds: trainer run ... --seeds 3"
    why = (
        f"with fewer than {BOOTSTRAP_FROM} pairs the t interval decides (the bootstrap is too "
        "narrow there)"
        if decides == "t"
        else "the bootstrap interval decides"
    )
    return (
        f"{why}; it covers the chance of the classifier's seed only, not that of another split, "
        "generator or bank"
    )


def compare_runs(
    a: Sequence[Result], b: Sequence[Result], *, level: float = 0.95, margin: float | None = None
) -> Comparison:
    """Compares the runs of two experiments, seed by seed.

    With `margin` the question is equivalence: the 90 % interval, which is two one-sided tests at
    5 %, must lie within +- margin points. Raises `UsageFailure` (exit code 2) if data, split or
    budget differ, if there is no common seed, or if both are the same experiment.
    """
    for name, group in (("A", a), ("B", b)):
        if len({(result.key, *data_ids(result)) for result in group}) != 1:
            raise UsageFailure(
                f"{name} must be one experiment on the same images, got {len(group)} results of "
                "several"
            )
    _require_comparable(a[0], b[0])
    if a[0].key == b[0].key:
        raise UsageFailure("A and B are the same experiment; nothing can differ but chance")
    left = {result.seed: result for result in a}
    right = {result.seed: result for result in b}
    seeds = tuple(sorted(left.keys() & right.keys()))
    if not seeds:
        raise UsageFailure(
            f"no seed is in both: A has {sorted(left)}, B has {sorted(right)}",
            remedy="run both with the same --seed and --seeds",
        )
    found = []
    for part in figures.shown([*a, *b]):
        pairs = [(left[seed].accuracy(part), right[seed].accuracy(part)) for seed in seeds]
        each = [one - other for one, other in pairs if one is not None and other is not None]
        if each:
            found.append(difference(part, each, level=level, grain=_grain(a[0], part)))
    return Comparison(
        a=_name(a[0]),
        b=_name(b[0]),
        seeds=seeds,
        level=level,
        differences=tuple(found),
        headings={one.part: figures.heading(one.part, [*a, *b]) for one in found},
        settings=tuple(differing(_told(a[0]), _told(b[0]), names=_SIDES)),
        left_out=tuple(
            f"seeds of {name} without a partner: {sorted(set(own) - set(seeds))}"
            for name, own in (("A", left), ("B", right))
            if set(own) - set(seeds)
        ),
        margin=margin,
    )


def _require_comparable(a: Result, b: Result) -> None:
    lines = differing(comparable(a), comparable(b), names=_SIDES)
    if lines:
        raise UsageFailure("A and B cannot be compared:\n  " + "\n  ".join(lines))


def _name(result: Result) -> str:
    return f"{result.arm} {result.recipe} {result.model} ({result.key})"


def _told(result: Result) -> dict[str, Any]:
    """Selects the settings and the machine of a result that interest a reader."""
    told = flat({**result.spec.identity(), "arm": result.arm})
    unsaid = {"aug", "bank", "bank.content_sha256", "bank.request_key"}
    machine = {name: result.record["environment"].get(name) for name in ("device", "numerics")}
    return {name: value for name, value in told.items() if name not in unsaid} | machine


def _grain(result: Result, part: str) -> float:
    """Computes the least points by which one test image moves a figure.

    One other than "overall" is the mean over its classes that have test images.
    """
    data = result.dataset
    if part == "overall":
        return 100.0 / int(data["test_images"])
    counts = _test_counts(result)
    members = range(len(counts)) if part == "balanced" else data["groups"][part]
    tested = [counts[index] for index in members if counts[index]]
    return 100.0 / (max(tested) * len(tested)) if tested else 0.0


def _test_counts(result: Result) -> Sequence[float]:
    """Counts the test images of each class [K].

    Committed records of an older version may lack them; the classes then share the test part
    evenly, as in the data sets that these records are of.
    """
    counts = result.test_counts
    if counts is not None:
        return counts
    tested = sum(value is not None for value in result.per_class)
    each = result.dataset["test_images"] / max(tested, 1)
    return [0 if value is None else each for value in result.per_class]


def difference(part: str, each: Sequence[float], *, level: float, grain: float = 0.0) -> Difference:
    """Averages paired differences, with both intervals.

    `grain` is the effect of one image. Equal differences do not prove that there is no spread, only
    that it is finer than the test part shows. So both intervals take the spread as at least half of
    that.
    """
    values = np.asarray(each, np.float64)
    if len(values) < 2:
        return Difference(part, float(values.mean()), tuple(map(float, each)), None, None, None)
    return Difference(
        part,
        float(values.mean()),
        tuple(map(float, each)),
        bootstrap_interval(values, level=level, least_sd=grain / 2),
        t_interval(values, level=level, least_sd=grain / 2),
        "t" if len(values) < BOOTSTRAP_FROM else "bootstrap",
    )


def t_interval(values: np.ndarray, *, level: float, least_sd: float = 0.0) -> Interval:
    """Computes mean +- t s / sqrt(n), t of Student's distribution with n - 1 degrees."""
    from scipy.special import stdtrit

    n = len(values)
    sd = max(float(values.std(ddof=1)), least_sd)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * sd / math.sqrt(n)
    mean = float(values.mean())
    return mean - half, mean + half


def bootstrap_interval(values: np.ndarray, *, level: float, least_sd: float = 0.0) -> Interval:
    """Computes the percentile bootstrap of the mean (Efron 1979), with the same draws always.

    It reaches at least as far to both sides as the mean of n normal values of deviation `least_sd`
    does.
    """
    from scipy.special import ndtri

    draws = stream(0, "compare.bootstrap", len(values))
    rows = draws.integers(len(values), size=(RESAMPLES, len(values)))
    means = values[rows].mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    mean = float(values.mean())
    half = float(ndtri(0.5 + level / 2)) * least_sd / math.sqrt(len(values))
    return min(float(low), mean - half), max(float(high), mean + half)
