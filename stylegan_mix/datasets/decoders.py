"""Threads that read and decode images, with a limit of time for each image.

Pillow decodes and resamples without Python's lock, so threads use all cores and share the pixels
with their caller; processes would have to send them. The threads are daemons: one that waits for a
dead disk does not keep the program from ending.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from stylegan_mix.errors import MissingEnvironment

__all__ = ["SECONDS", "Decoders", "Pending", "decoders"]

SECONDS = 120.0
"""The longest time that reading and decoding one image may take."""

# Seconds between two looks at the clock while waiting.
_LOOK = 0.5

Result = TypeVar("Result")


class Pending(Generic[Result]):
    """Work on one image that is to be done, is being done, or is done."""

    def __init__(self, work: Callable[[], Result], what: str) -> None:
        self.what = what
        self.began: float | None = None
        self._work = work
        self._done = threading.Event()
        self._result: list[Result] = []
        self._error: Exception | None = None

    def run(self) -> None:
        """Does the work; its error, if there is one, is kept for the caller."""
        self.began = time.monotonic()
        try:
            self._result.append(self._work())
        except Exception as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._error = error
        self._done.set()

    def done(self, seconds: float) -> bool:
        """Waits for so long, and tells if the work is done."""
        return self._done.wait(seconds)

    def take(self) -> Result:
        """Returns the result of work that is done, or raises its error."""
        if self._error is not None:
            raise self._error
        return self._result[0]


class Decoders:
    """Threads that take work in the order in which it is given."""

    def __init__(self, threads: int, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._waiting: queue.SimpleQueue[Pending[Any]] = queue.SimpleQueue()
        self._current: dict[int, Pending[Any]] = {}
        for number in range(threads):
            name = f"decoder-{number}"
            threading.Thread(target=self._serve, args=(number,), name=name, daemon=True).start()

    def give(self, work: Callable[[], Result], what: str) -> Pending[Result]:
        """Adds work on the image that is called `what` in an error."""
        pending = Pending(work, what)
        self._waiting.put(pending)
        return pending

    def result(self, pending: Pending[Result]) -> Result:
        """Waits for work, and returns its result or raises its error.

        Raises `MissingEnvironment` (exit code 4), naming the image, if an image takes too long.
        """
        while not pending.done(_LOOK):
            for one in list(self._current.values()):
                took = time.monotonic() - (one.began or time.monotonic())
                if took > self._seconds:
                    raise MissingEnvironment(
                        f"{one.what} was not read and decoded within {self._seconds:g} seconds",
                        remedy="see if its disk or network answers, and type the same command "
                        "again: it goes on from the saved state",
                    )
        return pending.take()

    def _serve(self, number: int) -> None:
        while True:
            pending = self._waiting.get()
            self._current[number] = pending
            pending.run()
            del self._current[number]
            del pending  # or the pixels stay until the next image


@functools.cache
def _of_process(process: int) -> Decoders:
    return Decoders(len(os.sched_getaffinity(0)))


def decoders() -> Decoders:
    """Returns the threads of this process, one for each processor that it may use."""
    return _of_process(os.getpid())
