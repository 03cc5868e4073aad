"""Teachers as the loop sees them: frozen, and saying no more than their kind may.

`N` rows of a batch, `K` classes. What a label-only teacher computes inside is out of reach of an
objective: `LabelOnly` hands out classes, and nothing else leaves it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.engine.batches import Batch
from trainer.engine.loop import Answers
from trainer.objectives import TeacherAnswer

__all__ = ["Ask", "LabelTeacher", "LogitsTeacher", "VotesTeacher", "label_only", "logits_only"]

Ask = Callable[[Tensor], Tensor]
"""Images [N, C, H, W] -> logits [N, K], or classes [N]."""


def logits_only(model: nn.Module) -> Ask:
    """A frozen model as a function to logits: evaluation mode, no gradient, whoever calls."""
    model.requires_grad_(False)

    def ask(images: Tensor) -> Tensor:
        model.eval()
        with torch.no_grad():
            logits: Tensor = model(images).logits
        return logits

    return ask


def label_only(model: nn.Module) -> Ask:
    """A frozen model as a function to classes [N] int64."""
    ask = logits_only(model)
    return lambda images: ask(images).argmax(1)


def _alike(answers: list[TeacherAnswer]) -> Answers:
    """For answers that regard the image alone, and so both its labels."""
    return tuple((answer, answer) for answer in answers)


class LogitsTeacher:
    """Says its logits for the very view that the student sees."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __call__(self, batch: Batch) -> Answers:
        logits = self._ask(batch.images)
        return _alike([TeacherAnswer(logits[r], logits[r].argmax(1)) for r in batch.sources])


class LabelTeacher:
    """Says its class for the very view that the student sees."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __call__(self, batch: Batch) -> Answers:
        label = self._ask(batch.images)
        return _alike([TeacherAnswer(label=label[rows]) for rows in batch.sources])


class VotesTeacher:
    """Says how it once voted on views of each training image; for a bank's rows, its class now.

    votes: [images, K], on the device. A mixed row gets the votes on both of its images, so its
    target is mixed as its label is.
    """

    def __init__(self, votes: Tensor, ask: Ask) -> None:
        self._votes, self._ask = votes, ask

    def __call__(self, batch: Batch) -> Answers:
        real, *bank = batch.sources
        about = (
            TeacherAnswer(votes=self._votes[batch.index[real]]),
            TeacherAnswer(votes=self._votes[batch.index_b[real]]),
        )
        live = [TeacherAnswer(label=self._ask(batch.images[rows])) for rows in bank]
        return (about, *_alike(live))
