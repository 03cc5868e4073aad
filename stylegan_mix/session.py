"""The session of long work: a request to stop it, and a reporter of its progress."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_mix.progress import TERMINAL, Reporter, Track
from stylegan_mix.stopping import NEVER, StopRequest

__all__ = ["Session"]


@dataclass(frozen=True)
class Session:
    """A request to stop and a reporter, passed down to all code that computes.

    Work reads signals and writes to the terminal through these alone. So it runs in any thread, if
    given a `StopEvent`, and `SILENT` or `JsonLines`.
    """

    stop: StopRequest = NEVER
    reporter: Reporter = TERMINAL

    def say(self, text: str) -> None:
        """Prints a line for the user."""
        self.reporter.say(text)

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins to follow work of `total` units, of which `start` are done."""
        return self.reporter.track(total, unit, label, start=start)

    def go_on(self, what: str) -> None:
        """Raises the failure of a requested stop, if there is one: `what` ends here, unsaved."""
        if self.stop.requested is not None:
            raise self.stop.failure(saved=False, what=what)
