"""Progress of long work: an argument of all code that computes, without effect on its results.

A `Reporter` receives the progress: `Terminal` shows it to the user, `JsonLines` appends it to a
file for programs.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from stylegan_mix import special_files
from stylegan_mix.errors import MissingEnvironment, UsageFailure
from stylegan_mix.showing import printable

__all__ = [
    "SILENT",
    "TERMINAL",
    "Both",
    "JsonLines",
    "Progress",
    "Reporter",
    "Silent",
    "Terminal",
    "Track",
    "reporter_for",
    "say",
]


def say(text: str) -> None:
    """Prints a line for the user (stderr), without acting on the terminal (`printable`)."""
    _print(printable(text) + "\n")


def _print(text: str) -> None:
    """Writes to stderr. If nobody can read it, such as in a closed terminal, the work goes on."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # What waits to be written would fail again, at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# Reporters


class Track(Protocol):
    """The progress of one piece of work."""

    def update(self, done: float, **facts: object) -> None:
        """Reports that `done` units of the total are finished."""

    def close(self) -> None:
        """Ends the report."""


class Reporter(Protocol):
    """A listener to long work."""

    def say(self, text: str) -> None:
        """Takes a line for the user."""

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins to follow work of `total` units, of which `start` are done."""


class Progress:
    """The progress of work on stderr: done, speed, time left.

    On a terminal one line is rewritten; elsewhere a line appears every 30 s. `total`, and the
    `done` of `update`, are counted in `unit`.
    """

    def __init__(self, total: float, unit: str, label: str, *, start: float = 0.0) -> None:
        self._pace = _Pace(total, unit, label, start, time.monotonic())
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0.0 if self._terminal else 30.0)
        self._shown = False

    def update(self, done: float, **facts: object) -> None:
        """Reports progress; see `Track`."""
        now = time.monotonic()
        self._pace.report(done, now)
        if now < self._next:
            return
        self._next = now + (0.5 if self._terminal else 30.0)
        text = self._pace.text(done, now, facts)
        if self._terminal:
            _print("\r\x1b[K" + printable(text)[: max(_columns() - 1, 20)])
            self._shown = True
        else:
            say(text)

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self._shown:
            _print("\r\x1b[K")
            self._shown = False


class _Pace:
    """The pace of a piece of work, counted from its first report on.

    The first report comes late: it holds the loading of code, and the choice of algorithms.
    """

    def __init__(self, total: float, unit: str, label: str, start: float, began: float) -> None:
        self.total, self.unit, self.label = total, unit, label
        self._since = (start, began)
        self._reports = 0

    def report(self, done: float, now: float) -> None:
        """Takes a report at `now` (monotonic, s)."""
        if self._reports == 0:
            self._first = (done, now)
        elif self._reports == 1:
            self._since = self._first
        self._reports += 1

    def rate(self, done: float, now: float) -> float:
        """Computes units a second."""
        return (done - self._since[0]) / max(now - self._since[1], 1e-9)

    def is_known(self, done: float) -> bool:
        """Tells if enough was done to know the pace: many reports, or a part of the whole."""
        part = (done - self._since[0]) / self.total if self.total else 0.0
        return self._reports > _ENOUGH_REPORTS or (self._reports > 2 and part >= _ENOUGH_PART)

    def text(self, done: float, now: float, facts: dict[str, object]) -> str:
        """Puts progress on one line."""
        pace = "time left not known yet"
        rate = self.rate(done, now)
        if self.is_known(done) and rate > 0:
            left = _duration((self.total - done) / rate)
            pace = f"{_three(rate)} {self.unit}/s, {left} left"
        numbers = "  ".join(f"{name} {value}" for name, value in facts.items())
        so_far = f"{self.label}: {_three(done)} of {_three(self.total)} {self.unit}"
        return f"{so_far}, {pace}  {numbers}".rstrip()


# Reports after which the pace is known. A training takes its regularisers every 16 steps.
_ENOUGH_REPORTS = 16
_ENOUGH_PART = 0.05


class Terminal:
    """A reporter that shows lines and progress to the user, on stderr."""

    def __init__(self) -> None:
        self._last: Progress | None = None

    def say(self, text: str) -> None:
        """Prints a line, after clearing that of a running progress."""
        if self._last is not None:
            self._last.close()
        say(text)

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins a `Progress`."""
        self._last = Progress(total, unit, label, start=start)
        return self._last


class Silent:
    """A reporter that shows nothing."""

    def say(self, text: str) -> None:
        """Drops the line."""

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins a progress that shows nothing."""
        return _Tracks(())


class JsonLines:
    """A reporter that appends lines and progress to a file, one JSON object a line.

    `{"time", "say"}` is a line; `{"time", "label", "unit", "done", "total", "rate", "facts"}` is
    progress: `time` is UTC in ISO 8601, `rate` in units a second. Progress is written at most once
    a second, and at its end. Every line is one write at the end of the file, so several processes
    may share it, and a reader sees whole lines. A device or a pipe is opened once, and kept.

    `UsageFailure` (exit code 2) if the file cannot be opened, `MissingEnvironment` (4) if it cannot
    be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._special = special_files.opened(path)
            if self._special is None:
                os.close(self._open())
        except OSError as error:
            raise UsageFailure(f"cannot write progress to {path}: {error.strerror}") from error

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def say(self, text: str) -> None:
        """Appends a line of text."""
        self.append({"say": text})

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins to append progress."""
        return _JsonTrack(self, _Pace(total, unit, label, start, time.monotonic()))

    def append(self, entry: dict[str, Any]) -> None:
        """Appends an object with the time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **entry}, allow_nan=False) + "\n"
        try:
            if self._special is not None:
                os.write(self._special, line.encode())
                return
            # Opened each time: a file that was moved away begins again under its name.
            file = self._open()
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
        except OSError as error:
            raise MissingEnvironment(
                f"cannot write progress to {self._path}: {error.strerror}"
            ) from error


class _JsonTrack:
    """Progress that is appended to a file."""

    _EVERY = 1.0  # s

    def __init__(self, lines: JsonLines, pace: _Pace) -> None:
        self._lines, self._pace = lines, pace
        self._next = 0.0
        self._waiting: tuple[float, dict[str, object]] | None = None

    def update(self, done: float, **facts: object) -> None:
        """Reports progress; see `Track`."""
        self._waiting, now = (done, facts), time.monotonic()
        self._pace.report(done, now)
        if now >= self._next:
            self._write()

    def close(self) -> None:
        """Appends the last state, if it has not been written."""
        self._write()

    def _write(self) -> None:
        if self._waiting is None:
            return
        done, facts = self._waiting
        self._waiting, now = None, time.monotonic()
        self._next = now + self._EVERY
        self._lines.append(
            {
                "label": self._pace.label,
                "unit": self._pace.unit,
                "done": done,
                "total": self._pace.total,
                "rate": self._pace.rate(done, now),
                "facts": {name: _plain(value) for name, value in facts.items()},
            }
        )


def _plain(value: object) -> object:
    """Converts a fact to JSON: finite numbers, and text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


class Both:
    """A reporter that passes everything to several others."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def say(self, text: str) -> None:
        """Passes the line to each of them."""
        for one in self._reporters:
            one.say(text)

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins a progress with each of them."""
        return _Tracks([one.track(total, unit, label, start=start) for one in self._reporters])


class _Tracks:
    """Several progresses as one."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._tracks = tracks

    def update(self, done: float, **facts: object) -> None:
        """Reports progress to each; see `Track`."""
        for one in self._tracks:
            one.update(done, **facts)

    def close(self) -> None:
        """Closes each of them."""
        for one in self._tracks:
            one.close()


TERMINAL = Terminal()
SILENT = Silent()


def reporter_for(path: Path | None) -> Reporter:
    """Makes the reporter of a command: the terminal, and the file of `--progress` if named."""
    return TERMINAL if path is None else Both(TERMINAL, JsonLines(path))


# Numbers for people


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 80


def _three(number: float) -> str:
    """Formats with three digits, or all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
