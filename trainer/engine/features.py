"""Forward passes of a step: from a batch to the student's outputs.

A forward is a frozen value of a stage. Most stages take `Plain`; the others mix or exchange
feature maps on the way. `N` judged rows of a batch, `D` features, `h w` places of the last maps.
No torch is needed to make one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trainer.engine.mixing import Streams, beside, blend, boxes, mix, overlay, shares
from trainer.models.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainer.engine.batch import Batch
    from trainer.models.classifier import Classifier

__all__ = [
    "Forward",
    "FromQueues",
    "GlobalAndLocal",
    "HeadToTail",
    "ManifoldMixup",
    "MetaSampled",
    "Plain",
]


class Forward:
    """The base of forwards: frozen dataclasses that ask a network about the judged rows of a batch.

    mixes: True if it sets labels and shares itself, so that nothing else may; unjudged: the number
    of draws without a loss that it reads; shows_views: True if it shows the further views of a
    batch to the network; splits: True if any rows of a batch, with the rows beside them in other
    draws, may pass alone.
    """

    mixes = False
    unjudged = 0
    shows_views = False
    splits = False

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        """Returns the outputs [N] of the judged rows, and the batch with labels and shares of them.

        state: that of the stage's objective; draws: random streams of this step.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Plain(Forward):
    """The forward that runs the network on the images of the batch, and on its further views.

    All pass in one go, so that batch norms see them together.
    """

    shows_views = True
    splits = True

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        if batch.views is None:
            return model(batch.images), batch
        return _together(model, batch.images, batch.views), batch


@dataclass(frozen=True)
class HeadToTail(Forward):
    """A forward that takes channels of the last maps from another draw (H2T, Li et al. 2024, 3.2).

    One random subset of floor(rho D) channels serves the whole batch; of several experts, each has
    one of its own. The judged draw, for example of balanced classes, takes them from the draw
    without a loss, row by row. Each draw passes the backbone separately, with its own batch-norm
    statistics.
    """

    rho: float = 0.25

    unjudged = 1
    splits = True

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        judged, donor = batch.sources
        maps = model.maps(batch.images[judged.rows]).clone()  # [N, D, h, w]
        given = model.maps(batch.images[donor.rows])
        width = model.width // model.parts
        order, count = draws("forward.channels"), int(self.rho * width)
        chosen = [part * width + order.permutation(width)[:count] for part in range(model.parts)]
        taken = beside(maps, np.concatenate(chosen))
        maps[:, taken] = given[:, taken]
        return model.answer(model.pool(maps)), batch


@dataclass(frozen=True)
class FromQueues(Forward):
    """A forward whose answering head sees kept features (EMANATE, Liu et al. 2022).

    Features and other heads are those of the images. The logits are of as many other features: a
    class is drawn evenly, then one of its features in the queues that are the objective's state.
    Their labels are the output "label", [N] int64; it is -1 where the class has no features yet,
    and the logits are of the row's own image.
    """

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        import torch

        from trainer.models.feature_queues import FeatureQueues

        assert isinstance(state, FeatureQueues)
        out = model(batch.images)
        count, classes = len(out.features), len(state.counts)
        label = beside(out.features, draws("forward.class").integers(classes, size=count))
        share = beside(out.features, draws("forward.place").random(count))
        kept, there = state.drawn(label, share)
        seen = model.answer(torch.where(there[:, None], kept, out.features))
        others = {**out.others, "label": torch.where(there, label, -1)}
        return out._replace(logits=seen.logits, others=others), batch


@dataclass(frozen=True)
class MetaSampled(Forward):
    """A forward of a head whose rows a learned sampler draws (BALMS, Ren et al. 2020, 3.2).

    As many rows as the judged draw has are drawn from it, with replacement, at the rates of their
    classes, which are the objective's state. The output "meta" are the logits, for the rows of the
    draw without a loss, of the head after one step at `rate` on these rows; the output "label" are
    the labels of that draw, [N] int64. "meta" has a gradient to the rates alone.
    """

    rate: float = 0.1

    unjudged = 1

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        from trainer.losses.meta import answered, drawn_by_rates, looked_ahead
        from trainer.models.class_rates import ClassRates

        assert isinstance(state, ClassRates)
        judged, even = (source.rows for source in batch.sources)
        features = model.pool(model.maps(batch.images))
        label, count = batch.label_a[judged], len(batch.label_a[judged])
        noise = beside(features, draws("forward.gumbel").gumbel(size=(count, count))).float()
        row, share = drawn_by_rates(state.raw, label, noise)
        ahead = looked_ahead(model.head, features[judged], label, share, state.counts, self.rate)
        others = {
            "meta": answered(model.head, ahead, features[even].detach()),
            "label": batch.label_a[even],
        }
        out = model.answer(features[judged][row])
        return out._replace(others=others), _redrawn(batch, judged, row)


def _redrawn(batch: Batch, rows: slice, row: Tensor) -> Batch:
    """Puts labels and places of drawn rows in the place of those of `rows`."""
    import torch

    def taken(values: Tensor) -> Tensor:
        return torch.cat([values[rows][row], values[rows.stop :]])

    return replace(
        batch,
        label_a=taken(batch.label_a),
        label_b=taken(batch.label_b),
        index=taken(batch.index),
        index_b=taken(batch.index_b),
    )


@dataclass(frozen=True)
class ManifoldMixup(Forward):
    """A forward that mixes images or last maps, at random (Verma et al. 2019, section 2).

    One of the two depths serves a whole batch. The share lam ~ Beta(alpha, alpha) is each row's
    own, where the paper draws one for a batch. The paper lets a network choose among more depths.
    """

    alpha: float = 1.0

    mixes = True

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        count = len(batch.lam)
        partner = beside(batch.images, draws("forward.perm").permutation(count))
        lam = beside(batch.images, shares(self.alpha, count, draws("forward.lam")))
        if draws("forward.depth").integers(2):
            maps = mix(model.maps(batch.images), partner, lam)
        else:
            maps = model.maps(mix(batch.images, partner, lam))
        return model.answer(model.pool(maps)), _mixed(batch, partner, lam)


@dataclass(frozen=True)
class GlobalAndLocal(Forward):
    """A forward that mixes whole images in one view, and boxes in another (Du et al. 2023).

    Row i of the judged draw is mixed with row i of the draw without a loss: by mixup in the images,
    by CutMix in the further view. Both have one share lam ~ Beta(alpha, alpha) for each row, which
    is that of the label too, also where a box is cut off at an edge. The outputs are those of the
    mixup; those of the CutMix are their view.
    """

    alpha: float = 0.5

    mixes = True
    unjudged = 1
    shows_views = True

    def __call__(
        self, model: Classifier, batch: Batch, state: nn.Module | None, draws: Streams
    ) -> tuple[Outputs, Batch]:
        judged, donor = (source.rows for source in batch.sources)
        assert batch.views is not None
        (view,) = batch.views
        count, (height, width) = judged.stop, view.shape[2:]
        share = shares(self.alpha, count, draws("forward.lam"))
        box = beside(view, boxes(share, height, width, draws("forward.box")))
        lam = beside(view, share)
        whole = blend(batch.images[judged], batch.images[donor], lam)
        cut = overlay(view[judged], view[donor], box)
        partner = beside(view, np.roll(np.arange(2 * count), count))  # each row of both draws
        return _together(model, whole, cut[None]), _mixed(batch, partner, lam.repeat(2))


def _mixed(batch: Batch, partner: Tensor, lam: Tensor) -> Batch:
    """Gives each row the share `lam` of its label beside that of row `partner`, both [N]."""
    judged, *others = batch.sources
    return replace(
        batch,
        label_b=batch.label_a[partner],
        lam=lam,
        index_b=batch.index[partner],
        sources=(replace(judged, mixed=True), *others),
    )


def _together(model: Classifier, images: Tensor, views: Tensor) -> Outputs:
    """Runs the network once on images [N, C, H, W] and further views of them [V, M, C, H, W]."""
    import torch

    shown = torch.cat([images, *views]).contiguous(memory_format=torch.channels_last)
    out, first, each = model(shown), len(images), views.shape[1]
    starts = [first + place * each for place in range(len(views))]
    seen = tuple(out.of(slice(start, start + each)) for start in starts)
    return out.of(slice(0, first))._replace(views=seen)
