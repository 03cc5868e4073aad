"""Augmentation policies by name: those of `--augment`, and of the further views of a stage.

A policy is a frozen value. Its draws are NumPy's, so they are the same on every device, and no
torch is needed to make one. `N` rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from trainer.engine.augmentation.operations import NAMES, Slot, values

__all__ = [
    "FORMS",
    "NUMBERS",
    "PLAIN",
    "VIEWS",
    "AutoAugment",
    "Choice",
    "Policy",
    "RandAugment",
    "View",
    "one_name",
    "policy",
]

View = Literal["plain", "strong", "simclr"]

# The policy that was found on CIFAR-10 (Cubuk et al. 2019, Table 7): 25 pairs of an operation, its
# probability in tenths, and its magnitude from 0 to 9.
_CIFAR10 = """
invert 1 7, contrast 2 6
rotate 7 2, translate-x 3 9
sharpness 8 1, sharpness 9 3
shear-y 5 8, translate-y 7 9
autocontrast 5 8, equalise 9 2
shear-y 2 7, posterise 3 7
colour 4 3, brightness 6 7
sharpness 3 9, brightness 7 9
equalise 6 5, equalise 5 1
contrast 6 7, sharpness 6 5
colour 7 7, translate-x 5 8
equalise 3 7, autocontrast 4 8
translate-y 4 3, sharpness 2 6
brightness 9 6, colour 2 8
solarise 5 2, invert 0 3
equalise 2 0, autocontrast 6 0
equalise 2 8, equalise 6 4
colour 9 9, equalise 6 6
autocontrast 8 4, solarise 2 8
brightness 1 3, colour 7 0
solarise 4 5, autocontrast 9 3
translate-y 9 9, translate-y 7 9
autocontrast 9 2, solarise 8 3
equalise 8 8, invert 1 3
translate-y 7 9, autocontrast 9 1
"""
_TABLE = [[part.split() for part in line.split(", ")] for line in _CIFAR10.split("\n") if line]
_OPERATION = np.array([[NAMES.index(name) for name, _, _ in line] for line in _TABLE])  # [25, 2]
_TENTHS = np.array([[int(tenths) for _, tenths, _ in line] for line in _TABLE])
_MAGNITUDE = np.array([[int(magnitude) for _, _, magnitude in line] for line in _TABLE])
_TOP_MAGNITUDE = 9

# All but "invert" (Cubuk et al. 2020, section 3).
_OF_RANDAUGMENT = np.array([NAMES.index(name) for name in NAMES if name != "invert"])
_TOP_OF_RANDAUGMENT = 10
_MOST_OPERATIONS = 8

# Channels of colour, and of colour with alpha.
_COLOURED = (3, 4)
_TOO_FEW_TO_EQUALISE = 255  # pixels, as Pillow counts


class Choice(Protocol):
    """A frozen value that draws the operations of `count` rows, slot after slot."""

    @property
    def name(self) -> str: ...

    def draw(self, count: int, draws: np.random.Generator) -> tuple[Slot, ...]: ...


@dataclass(frozen=True)
class AutoAugment:
    """One of 25 pairs of operations for each row, each with its probability (Cubuk et al. 2019)."""

    name = "autoaugment"

    def draw(self, count: int, draws: np.random.Generator) -> tuple[Slot, ...]:
        """Draws a pair for each row; an operation that does not happen is "identity"."""
        pair = draws.integers(len(_OPERATION), size=count)
        happens = draws.random((count, 2)) * 10 < _TENTHS[pair]
        operation = np.where(happens, _OPERATION[pair], NAMES.index("identity"))
        value = values(operation, _MAGNITUDE[pair] / _TOP_MAGNITUDE, _signs(count, 2, draws))
        return tuple(Slot(operation[:, place], value[:, place]) for place in range(2))


@dataclass(frozen=True)
class RandAugment:
    """`number` of 14 operations for each row, all alike, at one magnitude (Cubuk et al. 2020).

    The magnitude goes from 0 to 10, where ranges end. (2, 9) is the paper's setting for ImageNet.
    """

    number: int = 2
    magnitude: int = 9

    @property
    def name(self) -> str:
        """The name with both numbers, such as "randaugment-2-9"."""
        return f"randaugment-{self.number}-{self.magnitude}"

    def draw(self, count: int, draws: np.random.Generator) -> tuple[Slot, ...]:
        """Draws `number` operations for each row, with replacement."""
        operation = draws.choice(_OF_RANDAUGMENT, (count, self.number))
        strength = np.full(operation.shape, self.magnitude / _TOP_OF_RANDAUGMENT)
        value = values(operation, strength, _signs(count, self.number, draws))
        return tuple(Slot(operation[:, place], value[:, place]) for place in range(self.number))


def _signs(count: int, slots: int, draws: np.random.Generator) -> np.ndarray:
    return draws.integers(0, 2, (count, slots)) * 2 - 1


@dataclass(frozen=True)
class Policy:
    """The augmentation of all rows of a batch.

    crop: "shifted" after padding, or a box that is "resized" with its colours jittered, as in
    SimCLR; then a random flip. choice: operations on the result, drawn for each row. cutout: a
    square of half the side, filled with the mean, at last (DeVries & Taylor 2017).
    """

    crop: Literal["shifted", "resized"] = "shifted"
    choice: Choice | None = None
    cutout: bool = False

    @property
    def name(self) -> str:
        """The one name of this policy; `policy(name)` makes it again."""
        crop = "simclr" if self.crop == "resized" else ""
        parts = (crop, self.choice.name if self.choice else "", "cutout" if self.cutout else "")
        return "+".join(part for part in parts if part) or "plain"

    def idle(self, channels: int, pixels: int) -> tuple[str, ...]:
        """Lists the changes that leave images of so many channels and pixels as they are."""
        if self.crop == "resized":
            return () if channels in _COLOURED else ("colour", "hue", "grey")
        few = {"colour": channels == 1, "equalise": pixels <= _TOO_FEW_TO_EQUALISE}
        return tuple(name for name, idle in few.items() if idle and self.choice)


PLAIN = Policy()
"""The crop and the flip alone."""

VIEWS: dict[View, Policy] = {
    "plain": PLAIN,
    "strong": Policy(choice=AutoAugment(), cutout=True),
    "simclr": Policy(crop="resized"),
}
"""The policies of further views by their names in a stage."""

FORMS = (
    "plain",
    "cutout",
    "autoaugment",
    "autoaugment+cutout",
    "randaugment",
    "randaugment+cutout",
    "randaugment-N-M",
    "randaugment-N-M+cutout",
    "simclr",
)
"""The forms of a policy's name. Without numbers, N and M are those of `RandAugment`."""

NUMBERS = f"1 to {_MOST_OPERATIONS} and M 0 to {_TOP_OF_RANDAUGMENT}"
"""The numbers N and M that a name may hold, in words."""


def policy(name: str) -> Policy | None:
    """Makes the policy of a name in one of `FORMS`; None if there is none."""
    alone: dict[str, Policy] = {"simclr": VIEWS["simclr"], "cutout": Policy(cutout=True)}
    if name in ("plain", *alone):
        return alone.get(name, PLAIN)
    first, plus, last = name.partition("+")
    choice = _choice(first)
    if choice is None or (plus and last != "cutout"):
        return None
    return replace(PLAIN, choice=choice, cutout=bool(plus))


def one_name(name: str) -> str:
    """Returns the one name of a policy that has several; the name itself if there is none."""
    found = policy(name)
    return found.name if found else name


def _choice(name: str) -> Choice | None:
    """Reads "autoaugment", "randaugment" or "randaugment-N-M"."""
    if name == "autoaugment":
        return AutoAugment()
    kind, *numbers = name.split("-")
    if kind != "randaugment" or not all(map(_short_number, numbers)):
        return None
    if not numbers:
        return RandAugment()
    if len(numbers) != 2:
        return None
    number, magnitude = map(int, numbers)
    within = 1 <= number <= _MOST_OPERATIONS and magnitude <= _TOP_OF_RANDAUGMENT
    return RandAugment(number, magnitude) if within else None


def _short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 2
