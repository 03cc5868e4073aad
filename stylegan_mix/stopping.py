"""Requests to stop long work, which asks for them between two steps.

`StopSignals` listens to signals, in the main thread alone; a `StopEvent` is set by any thread.
"""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from stylegan_mix.errors import Failure, Interrupted, Stopped
from stylegan_mix.progress import say

__all__ = ["NEVER", "StopEvent", "StopRequest", "StopSignals"]


class StopRequest(Protocol):
    """A request to stop, which a loop reads between two steps."""

    @property
    def requested(self) -> str | None:
        """The reason for which to stop, such as "SIGTERM" or "minutes"; None: go on."""

    def failure(self, *, saved: bool, what: str) -> Failure:
        """The exception to raise once the loop has stopped; `what` says where it stands."""


class StopEvent:
    """A request that any thread can make, or a time limit of `minutes`, from now on."""

    def __init__(self, minutes: float | None = None) -> None:
        self._deadline = float("inf")
        self._reason: str | None = None
        self._limit(minutes)

    def _limit(self, minutes: float | None) -> None:
        if minutes is not None:
            self._deadline = time.monotonic() + 60.0 * minutes

    def set(self, reason: str = "request") -> None:
        """Asks for a stop."""
        self._reason = reason

    @property
    def requested(self) -> str | None:
        """See `StopRequest`."""
        if self._reason is not None:
            return self._reason
        return "minutes" if time.monotonic() >= self._deadline else None

    def failure(self, *, saved: bool, what: str) -> Failure:
        """See `StopRequest`."""
        remedy = "run the same command to go on" if saved else "nothing was saved"
        return Stopped(f"stopped ({self.requested}): {what}", remedy=remedy)


class _Never(StopEvent):
    """No request, ever."""

    def set(self, reason: str = "request") -> None:
        raise ValueError("NEVER is for work that nobody stops; make a StopEvent")


NEVER = _Never()


class StopSignals(StopEvent):
    """Turns SIGINT, SIGTERM, SIGUSR1 and a time limit into a request that a loop can read.

    Inside the context the first signal only sets `requested`; a second SIGINT acts at once.
    `minutes` counts from entering the context. Signals reach the main thread alone, so the
    context can be entered in no other one: work of other threads takes a `StopEvent`.
    """

    _HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, minutes: float | None = None) -> None:
        super().__init__()
        self._minutes = minutes
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._limit(self._minutes)
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
        self.set(signal.Signals(number).name)

    def failure(self, *, saved: bool, what: str) -> Failure:
        """As of any request; `Interrupted` for SIGINT, and for a signal when nothing is saved."""
        if self._signal == signal.SIGINT or (self._signal is not None and not saved):
            remedy = "run the same command to go on" if saved else "nothing was saved"
            return Interrupted(f"interrupted: {what}", int(self._signal), remedy=remedy)
        return super().failure(saved=saved, what=what)
