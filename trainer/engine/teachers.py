"""Teachers in the loop: frozen, with answers of their kind only.

`N` rows of a batch, `K` classes, `D` features. An objective cannot reach inside a label-only
teacher: `label_only` returns classes and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.engine.batch import Batch
from trainer.engine.loop import Answers, Sides
from trainer.models import Outputs
from trainer.models.classifier import Classifier
from trainer.objectives import TeacherAnswer

__all__ = ["Ask", "LabelTeacher", "OpenTeacher", "VotesTeacher", "frozen", "label_only"]

Ask = Callable[[Tensor], Tensor]
"""Images [N, C, H, W] -> classes [N] int64."""


def frozen(model: Classifier) -> Callable[[Tensor], Outputs]:
    """Makes a function from a model: evaluation mode, no gradient, for every caller."""
    model.requires_grad_(False)

    def ask(images: Tensor) -> Outputs:
        model.eval()
        with torch.no_grad():
            outputs: Outputs = model(images)
        return outputs

    return ask


def label_only(model: Classifier) -> Ask:
    """Makes a function to classes [N] int64 from a frozen model."""
    ask = frozen(model)
    return lambda images: ask(images).logits.argmax(1)


class OpenTeacher:
    """A teacher with logits, class and features for the same view that the student sees."""

    def __init__(self, model: Classifier) -> None:
        self._ask = frozen(model)

    def __call__(self, batch: Batch) -> Answers:
        out = self._ask(batch.images)
        answers = {}
        for source in batch.judged:
            own = out.of(source.rows)
            said = TeacherAnswer(own.logits, own.logits.argmax(1), features=own.features)
            answers[source.name] = (said, said)  # about the image, for either label
        return answers


class LabelTeacher:
    """A teacher with only its class for the same view that the student sees."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __call__(self, batch: Batch) -> Answers:
        label = self._ask(batch.images)
        answers = {}
        for source in batch.judged:
            said = TeacherAnswer(label=label[source.rows])
            answers[source.name] = (said, said)
        return answers


class VotesTeacher:
    """A teacher with stored votes on views of each training image; for bank rows, its class now.

    votes: [images, K], on the device. A mixed row gets the votes on both of its images, so its
    target is mixed like its label; so does a row of a bank that is mixed with a training image.
    """

    def __init__(self, votes: Tensor, ask: Ask) -> None:
        self._votes, self._ask = votes, ask

    def __call__(self, batch: Batch) -> Answers:
        answers: dict[str, Sides] = {}
        for source in batch.judged:
            rows = source.rows
            if source.bank:
                now = TeacherAnswer(label=self._ask(batch.images[rows]))
                answers[source.name] = (now, now)
                if source.name in batch.partners:
                    index = batch.partners[source.name].index
                    answers[source.name] += (TeacherAnswer(votes=self._votes[index]),)
            else:
                a = TeacherAnswer(votes=self._votes[batch.index[rows]])
                b = TeacherAnswer(votes=self._votes[batch.index_b[rows]])
                answers[source.name] = (a, b)
        return answers
