"""Lines for the person who watches, progress of long work, and requests to stop it."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

from stylegan_mix.errors import Failure, Interrupted, Stopped

__all__ = ["Progress", "StopSignals", "in_words", "say"]


def say(text: str) -> None:
    """Prints a line for the person who watches (stderr)."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Says how far, how fast and how long yet, on stderr.

    On a terminal one line is rewritten; elsewhere a line appears every 30 s. `total`, and the
    `done` of `update`, are counted in `unit`.
    """

    def __init__(self, total: float, unit: str, label: str, *, start: float = 0.0) -> None:
        self._total, self._unit, self._label = total, unit, label
        self._start, self._began = start, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next = self._began + (0.0 if self._terminal else 30.0)
        self._shown = False

    def update(self, done: float, **facts: object) -> None:
        """Reports that `done` units of the total are finished."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.5 if self._terminal else 30.0)
        rate = (done - self._start) / max(now - self._began, 1e-9)
        left = (self._total - done) / rate if rate > 0 else float("inf")
        numbers = "  ".join(f"{name} {value}" for name, value in facts.items())
        text = (
            f"{self._label}: {_three(done)} of {_three(self._total)} {self._unit}, "
            f"{_three(rate)} {self._unit}/s, {_duration(left)} left  {numbers}"
        ).rstrip()
        if self._terminal:
            sys.stderr.write("\r\x1b[K" + text[: max(_columns() - 1, 20)])
            sys.stderr.flush()
            self._shown = True
        else:
            say(text)

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80


def _three(number: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def in_words(seconds: float) -> str:
    """A time to plan with, in minutes, hours or days."""
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.1f} minutes"
    return f"{minutes / 60:.1f} hours" if minutes < 48 * 60 else f"{minutes / 1440:,.1f} days"


class StopSignals:
    """Turns SIGINT, SIGTERM, SIGUSR1 and a time limit into a request that a loop can read.

    Inside the context the first signal only sets `requested`; a second SIGINT acts at once.
    `minutes` counts from entering the context.
    """

    _HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, minutes: float | None = None) -> None:
        self._minutes = minutes
        self._deadline = float("inf")
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self._minutes is not None:
            self._deadline = time.monotonic() + 60.0 * self._minutes
        for number in self._HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            say("\nstopping after this step and saving; Ctrl-C again stops at once")
        self._signal = number

    @property
    def requested(self) -> str | None:
        """What asks for a stop: "SIGINT", "SIGTERM", "SIGUSR1", "minutes", or None."""
        if self._signal is not None:
            return signal.Signals(self._signal).name
        return "minutes" if time.monotonic() >= self._deadline else None

    def failure(self, *, saved: bool, what: str) -> Failure:
        """The exception to raise once the loop has stopped; `what` says where it stands."""
        remedy = "run the same command to go on" if saved else "nothing was saved"
        if self._signal == signal.SIGINT or (self._signal is not None and not saved):
            return Interrupted(f"interrupted: {what}", int(self._signal), remedy=remedy)
        return Stopped(f"stopped ({self.requested}): {what}", remedy=remedy)
