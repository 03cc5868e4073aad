"""Shot groups: classes with many, with some and with few training images.

`K` classes. A rule says which class belongs to which group. Without one, the rule of the field is
taken (`shot_groups`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stylegan_mix.errors import UsageFailure

__all__ = [
    "GROUPS",
    "GroupRule",
    "Ranks",
    "ShotGroups",
    "Thresholds",
    "group_rule",
    "shot_groups",
    "telling",
]

GROUPS = ("many", "medium", "few")
FEW_CLASSES = 10

_EXAMPLES = (
    "write thresholds (--groups 100,20: many above 100 training images, few below 20), sizes of "
    "the groups (--groups 3/4/3: the 3 largest classes are many, the 3 smallest few), or "
    "--groups index (three tenths, the rest, three tenths)"
)


@dataclass(frozen=True)
class ShotGroups:
    """The many-, medium- and few-shot class indices, and the rule that groups them."""

    rule: str
    many: tuple[int, ...]
    medium: tuple[int, ...]
    few: tuple[int, ...]

    @property
    def members(self) -> dict[str, tuple[int, ...]]:
        """The class indices of each group by its name."""
        return {name: getattr(self, name) for name in GROUPS}


@dataclass(frozen=True)
class Thresholds:
    """A rule by training images (Kang et al. 2020): many > `many_above`, few < `few_below`."""

    many_above: int = 100
    few_below: int = 20

    def groups(self, counts: Sequence[int] | np.ndarray) -> ShotGroups:
        """Groups the classes of `counts` [K]."""
        high, low = self.many_above, self.few_below
        sizes = [int(count) for count in counts]
        return ShotGroups(
            f"train images: many > {high}, medium {low} to {high}, few < {low}",
            tuple(c for c, n in enumerate(sizes) if n > high),
            tuple(c for c, n in enumerate(sizes) if low <= n <= high),
            tuple(c for c, n in enumerate(sizes) if n < low),
        )


@dataclass(frozen=True)
class Ranks:
    """A rule by rank: so many of the largest classes, the next ones, and the smallest.

    `sizes` None means three tenths, the rest, and three tenths.
    """

    sizes: tuple[int, int, int] | None = None

    def groups(self, counts: Sequence[int] | np.ndarray) -> ShotGroups:
        """Groups the classes of `counts` [K]; `UsageFailure` if the sizes do not add to K.

        The published thirds are of class indices, which is meant for classes sorted by size. If
        they are not sorted, the classes are ranked by training images, and the rule says so.
        """
        images = [int(count) for count in counts]
        most, some, least = self.sizes or _three_tenths(len(images))
        if most + some + least != len(images):
            asked = f"{most}/{some}/{least}"
            raise UsageFailure(
                f"--groups {asked} is for {most + some + least} classes; here are {len(images)}",
                remedy=f"write three sizes that add to {len(images)}, such as "
                f"{'/'.join(map(str, _three_tenths(len(images))))}, or --groups index",
            )
        rank = sorted(range(len(images)), key=lambda c: -images[c])
        by = "index" if rank == list(range(len(images))) else "rank by train images"
        cut = len(images) - least
        return ShotGroups(
            f"{by} {most}/{some}/{least}",
            tuple(sorted(rank[:most])),
            tuple(sorted(rank[most:cut])),
            tuple(sorted(rank[cut:])),
        )


GroupRule = Thresholds | Ranks


def _three_tenths(classes: int) -> tuple[int, int, int]:
    third = round(0.3 * classes)
    return third, classes - 2 * third, third


def group_rule(text: str) -> GroupRule:
    """Reads a rule as a user types it: "100,20", "3/4/3" or "index".

    Raises `UsageFailure` (exit code 2) for any other text.
    """
    words = text.strip()
    if words == "index":
        return Ranks()
    if re.fullmatch(r"\d{1,9}(\s*/\s*\d{1,9}){2}", words, re.ASCII):
        most, some, least = (int(word) for word in words.split("/"))
        return Ranks((most, some, least))
    if re.fullmatch(r"\d{1,9}\s*,\s*\d{1,9}", words, re.ASCII):
        high, low = (int(word) for word in words.split(","))
        if high < low:
            raise UsageFailure(
                f"--groups {text}: the threshold of many comes first, and is not the smaller one",
                remedy=f"--groups {low},{high}",
            )
        return Thresholds(high, low)
    raise UsageFailure(f"--groups '{text}' is no rule of shot groups", remedy=_EXAMPLES)


def telling(
    counts: Sequence[int] | np.ndarray, members: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Selects the shot groups, by name, that say more than the mean over all classes.

    Empty groups are left out. None is left if all classes have as many training images, or if one
    group holds them all.
    """
    filled = {name: tuple(members[name]) for name in GROUPS if members[name]}
    return filled if len(filled) > 1 and len({int(count) for count in counts}) > 1 else {}


def shot_groups(counts: Sequence[int] | np.ndarray) -> ShotGroups:
    """Groups classes by training images (Kang et al. 2020); ten classes or fewer, by thirds.

    With few classes the thresholds put everything into one group. The field then takes fixed thirds
    of the class indices, 3/4/3 of ten.
    """
    rule: GroupRule = Thresholds() if len(counts) > FEW_CLASSES else Ranks()
    return rule.groups(counts)
