"""The rows of one step: images, labels, and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Batch", "Partners", "Source"]


@dataclass(frozen=True)
class Source:
    """The rows of a batch with one origin.

    rows: their places in the batch; bank: True for rows of a bank, whose classes are equal, False
    for the training set; judged: True if they have a loss; mixed: True if that is
    lam loss(label_a) + (1 - lam) loss(label_b); weight: of each row in the mean of losses; even:
    True for training images drawn evenly over the classes; even_partners: True if the images that
    they are mixed with, of label_b, are drawn evenly; in_all: the number of its rows in all
    processes, None if this one has all of them.
    """

    name: str
    rows: slice
    bank: bool = False
    judged: bool = True
    mixed: bool = False
    weight: float = 1.0
    even: bool = False
    even_partners: bool = False
    in_all: int | None = None


@dataclass(frozen=True)
class Partners:
    """The training images that the rows of a source are mixed with, after all other mixing.

    label: [n] int64; index: [n] int64, their rows in the training part; own: [n] float32, the share
    of the row itself.
    """

    label: Tensor
    index: Tensor
    own: Tensor


@dataclass(frozen=True)
class Batch:
    """The rows of one step, source after source; those without a loss come last.

    images: [N, C, H, W] float32, normalised; label_a, label_b: [N] int64; lam: [N] float32, the
    share of label_a; index, index_b: [N] int64, the row of its source that label_a, label_b came
    from; views: [V, M, C, H, W], further views of the training images among the rows, which are
    the first M, before mixing, if the stage asks for them. By the name of a source: targets, the
    shares of all classes [n, K] float32 that take the place of its labels and their lam; partners,
    the training images that its rows are mixed with.
    """

    images: Tensor
    label_a: Tensor
    label_b: Tensor
    lam: Tensor
    index: Tensor
    index_b: Tensor
    sources: tuple[Source, ...]
    views: Tensor | None = None
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    partners: Mapping[str, Partners] = field(default_factory=dict)

    @property
    def judged(self) -> tuple[Source, ...]:
        """The sources whose rows have a loss."""
        return tuple(source for source in self.sources if source.judged)
