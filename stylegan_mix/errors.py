"""The failures that a user can act on, each with its exit code.

Failure                  1  a bug of ours
    UsageFailure         2  the command or its configuration
    InvalidInput         3  a file that is read
    MissingEnvironment   4  data, device, compiler, disk, memory
    Diverged             5  a training without usable numbers
    Stopped             75  on request, state saved
        Busy            75  another process does this work
    Interrupted      128+n  by signal n
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from stylegan_mix.showing import one_line

__all__ = [
    "Busy",
    "Diverged",
    "Failure",
    "Interrupted",
    "InvalidInput",
    "MissingEnvironment",
    "Stopped",
    "UsageFailure",
    "fitting",
    "is_out_of_memory",
    "nearest",
]


class Failure(Exception):
    """A failure that the user can act on: the event, its place, and a remedy."""

    code: ClassVar[int] = 1
    # True if only one of several processes that do the same has met it.
    of_one_process = False

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.remedy = remedy


class UsageFailure(Failure):
    """An impossible request by the command or its configuration (exit code 2)."""

    code = 2


class InvalidInput(Failure):
    """A damaged or unsuitable file, bank, split or checkpoint (exit code 3)."""

    code = 3


class MissingEnvironment(Failure):
    """Missing data, device, compiler, disk space or memory (exit code 4)."""

    code = 4


class Diverged(Failure):
    """A training without usable numbers (exit code 5)."""

    code = 5


class Stopped(Failure):
    """A stop on request, with the state saved; the same command goes on (exit code 75)."""

    code = 75


class Busy(Stopped):
    """An end before the work began, as another process does it (exit code 75)."""


class Interrupted(Failure):
    """A stop by a signal; `number` gives the exit code 128 + number."""

    def __init__(self, what: str, number: int, *, remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.number = number


def nearest(name: str, known: Iterable[str]) -> str:
    """Ends an error about an unknown name: the nearest known name, and all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else "."
    return f"{guess} Known: {', '.join(names) or 'none'}"


def is_out_of_memory(error: Exception) -> bool:
    """Tells if an exception means that memory, of a CPU or a GPU, ran out."""
    # PyTorch raises RuntimeErrors: a class for CUDA, a sentence for the CPU.
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return memory or "can't allocate memory" in str(error)


@contextmanager
def fitting(what: str, *, remedy: str | None = None) -> Iterator[None]:
    """Turns the exceptions of values that do not fit into `InvalidInput` (exit code 3).

    For code that takes values out of a file whose hash is right: anyone can write such a file.
    `what` begins the message.
    """
    try:
        yield
    except _MISFITS as error:
        if is_out_of_memory(error):
            raise
        why = one_line(f"{type(error).__name__}: {error}")[:_LONGEST_REASON]
        raise InvalidInput(f"{what}: {why}", remedy=remedy) from error


_MISFITS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_LONGEST_REASON = 400
