"""The surroundings of long work: who may stop it, and who is told how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_mix.progress import TERMINAL, Reporter, Track
from stylegan_mix.stopping import NEVER, StopRequest

__all__ = ["Session"]


@dataclass(frozen=True)
class Session:
    """A request to stop and a reporter, handed down to whatever computes.

    Work reads signals and writes to the terminal through these alone, so that it runs in any
    thread: give it a `StopEvent`, and `SILENT` or `JsonLines`.
    """

    stop: StopRequest = NEVER
    reporter: Reporter = TERMINAL

    def say(self, text: str) -> None:
        """Tells a line to the person who watches."""
        self.reporter.say(text)

    def track(self, total: float, unit: str, label: str, *, start: float = 0.0) -> Track:
        """Begins to follow work of `total` units, of which `start` are done."""
        return self.reporter.track(total, unit, label, start=start)

    def go_on(self, what: str) -> None:
        """Raises the failure of a requested stop: `what`, which is not saved, ends here."""
        if self.stop.requested is not None:
            raise self.stop.failure(saved=False, what=what)
