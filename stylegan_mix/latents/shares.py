"""The distributions of lam, the share of class a in a row.

A law is typed as its name, with numbers where it takes some: `beta`, `fixed:0.7`, `grid:0.1,0.5`,
`window:0.25,0.75`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stylegan_mix.errors import UsageFailure, nearest

__all__ = ["LAWS", "Law", "law_of"]


@dataclass(frozen=True)
class Kind:
    """A kind of law: `usual` are its numbers if none are typed.

    `draw` takes draws, alpha, the numbers and the count of rows, and gives lam [rows]; `fault`
    tells what is wrong with numbers, "" if nothing is. `alpha` is True if the law reads alpha.
    """

    name: str
    about: str
    draw: Callable[[np.random.Generator, float, tuple[float, ...], int], np.ndarray]
    usual: tuple[float, ...] = ()
    fault: Callable[[tuple[float, ...]], str] = lambda numbers: "takes no numbers" * bool(numbers)
    alpha: bool = False


@dataclass(frozen=True)
class Law:
    """A distribution of lam: a kind of `LAWS` and its numbers."""

    kind: str = "beta"
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        numbers = ",".join(repr(number) for number in self.numbers)
        return f"{self.kind}:{numbers}" if numbers else self.kind

    @property
    def reads_alpha(self) -> bool:
        """True if the law depends on alpha."""
        return LAWS[self.kind].alpha

    def draw(self, draws: np.random.Generator, alpha: float, rows: int) -> np.ndarray:
        """Draws lam [rows] float32 in [0, 1]."""
        return LAWS[self.kind].draw(draws, alpha, self.numbers, rows).astype(np.float32)

    def possible(self, alpha: float) -> bool:
        """Tells if at least one of a million draws of Beta(alpha, alpha) fits the law."""
        return self.kind != "window" or _mass(alpha, *self.numbers) >= 1e-6

    def in_words(self, alpha: float | None) -> str:
        """Describes the law, with alpha where it is read."""
        numbers = ", ".join(format(number, "g") for number in self.numbers)
        return LAWS[self.kind].about.format(alpha=alpha, numbers=numbers)


def law_of(text: str) -> Law:
    """Reads a law as it is typed; `UsageFailure` (exit code 2) says what is wrong with it."""
    name, colon, typed = text.partition(":")
    if name not in LAWS:
        raise UsageFailure(
            f"--lam: no law '{name}'{nearest(name, LAWS)}", remedy=f"laws are {', '.join(LAWS)}"
        )
    kind = LAWS[name]
    try:
        numbers = tuple(float(word) for word in typed.split(",")) if colon else kind.usual
    except ValueError:
        raise UsageFailure(f"--lam {text}: '{typed}' is not a list of numbers") from None
    if fault := kind.fault(numbers):
        raise UsageFailure(f"--lam {text}: {name} {fault}")
    return Law(name, numbers)


def _beta(
    draws: np.random.Generator, alpha: float, numbers: tuple[float, ...], rows: int
) -> np.ndarray:
    return draws.beta(alpha, alpha, rows)


def _chosen(
    draws: np.random.Generator, alpha: float, numbers: tuple[float, ...], rows: int
) -> np.ndarray:
    return np.array(numbers)[draws.integers(0, len(numbers), rows)]


def _window(
    draws: np.random.Generator, alpha: float, numbers: tuple[float, ...], rows: int
) -> np.ndarray:
    """Draws Beta(alpha, alpha) given that it lies in the window, by its inverse."""
    from scipy.special import betainc, betaincinv  # loads slowly; only this law needs it

    low, high = numbers
    begin, end = betainc(alpha, alpha, low), betainc(alpha, alpha, high)
    inside = betaincinv(alpha, alpha, begin + draws.random(rows) * (end - begin))
    return np.clip(inside, low, high)


def _mass(alpha: float, low: float, high: float) -> float:
    from scipy.special import betainc

    return float(betainc(alpha, alpha, high) - betainc(alpha, alpha, low))


def _shares(count: int | None) -> Callable[[tuple[float, ...]], str]:
    def fault(numbers: tuple[float, ...]) -> str:
        if not numbers or (count is not None and len(numbers) != count):
            return f"takes {count or 'some'} number{'s' * (count != 1)}"
        outside = [number for number in numbers if not 0 <= number <= 1]
        return f"takes numbers from 0 to 1, got {outside[0]:g}" if outside else ""

    return fault


def _ends(numbers: tuple[float, ...]) -> str:
    wrong = _shares(2)(numbers)
    return wrong or ("takes a smaller and a larger number" * (numbers[0] >= numbers[1]))


LAWS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("beta", "Beta({alpha:g}, {alpha:g}), drawn per row", _beta, alpha=True),
        Kind("fixed", "{numbers} in every row", _chosen, (0.5,), _shares(1)),
        Kind(
            "grid",
            "one of {numbers}, drawn evenly per row",
            _chosen,
            (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            _shares(None),
        ),
        Kind(
            "window",
            "Beta({alpha:g}, {alpha:g}) between {numbers}, drawn per row",
            _window,
            (0.25, 0.75),
            _ends,
            alpha=True,
        ),
    )
}
"""All kinds of law by name; a new one is a line here."""
