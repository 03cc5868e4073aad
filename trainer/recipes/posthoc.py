"""Corrections of a finished network, between training and its test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trainer.models.classifier import Classifier
    from trainer.objectives import Task

__all__ = ["PostHoc"]


class PostHoc(Protocol):
    """A frozen value that changes a finished network in place, for example the norms of its head.

    `tunes` says whether it reads validation images: only then are they asked for
    (``--val-per-class``), and `validate` gives the network's accuracy on them in percent. Test
    images are out of its reach. Returns the numbers it set, which stand in the network's facts.
    """

    @property
    def tunes(self) -> bool: ...

    def __call__(
        self, model: Classifier, task: Task, validate: Callable[[], float] | None
    ) -> dict[str, Any]: ...
