"""Requests to stop long work, which reads them between two steps.

`StopSignals` listens to signals, in the main thread only; a `StopEvent` is set by any thread.
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
        """The reason to stop, such as "SIGTERM" or "minutes"; None: go on."""

    def failure(self, *, saved: bool, what: str) -> Failure:
        """Makes the exception to raise once the loop has stopped; `what` describes its progress."""


class StopEvent:
    """A request by any thread, or a time limit of `minutes` from now on."""

    def __init__(self, minutes: float | None = None) -> None:
        self._deadline = float("inf")
        self._reason: str | None = None
        self._limit(minutes)

    def _limit(self, minutes: float | None) -> None:
        if minutes is not None:
            self._deadline = time.monotonic() + 60.0 * minutes

    def set(self, reason: str = "request") -> None:
        """Requests a stop."""
        self._reason = reason

    @property
    def requested(self) -> str | None:
        """The reason to stop; see `StopRequest`."""
        if self._reason is not None:
            return self._reason
        return "minutes" if time.monotonic() >= self._deadline else None

    def failure(self, *, saved: bool, what: str) -> Failure:
        """Makes the exception to raise; see `StopRequest`."""
        remedy = "run the same command to go on" if saved else "nothing was saved"
        return Stopped(f"stopped ({self.requested}): {what}", remedy=remedy)


class _Never(StopEvent):
    """A request that is never made."""

    def set(self, reason: str = "request") -> None:
        raise ValueError("NEVER is for work that nobody stops; make a StopEvent")


NEVER = _Never()


class StopSignals(StopEvent):
    """A request by a signal or a time limit, for a loop to read.

    The signals are SIGINT, SIGTERM, SIGUSR1, SIGQUIT, and SIGHUP, which a closed terminal sends.
    Inside the context the first signal only sets `requested`; a second SIGINT acts at once. SIGHUP
    stays ignored if it was before, as under `nohup`.
    `minutes` counts from entering the context. Signals reach the main thread alone, so only the
    main thread can enter the context. Work in other threads takes a `StopEvent`.
    """

    _HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT, signal.SIGHUP)

    def __init__(self, minutes: float | None = None) -> None:
        super().__init__()
        self._minutes = minutes
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._limit(self._minutes)
        for number in self._HANDLED:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
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
        """Makes the exception: `Interrupted` for SIGINT, and for a signal with nothing saved."""
        if self._signal == signal.SIGINT or (self._signal is not None and not saved):
            remedy = "run the same command to go on" if saved else "nothing was saved"
            return Interrupted(f"interrupted: {what}", int(self._signal), remedy=remedy)
        return super().failure(saved=saved, what=what)
