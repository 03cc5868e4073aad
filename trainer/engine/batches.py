"""The batches of a stage, from training images and a bank: a function of the step alone.

`N` rows of a batch; `C H W` channels and pixels. Images lie as uint8 on the device, or mapped from
the disk if they do not fit; of a streamed set they are files (`crops`). They are cropped, flipped,
augmented by the run's policy and normalised for the whole batch at once. Rows of a bank pass
through exactly the same transform.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.banks.reader import Bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.streamed import as_files
from stylegan_mix.rng import stream
from trainer.engine import samplers
from trainer.engine.arms import ARMS
from trainer.engine.augmentation.policies import VIEWS, Policy
from trainer.engine.batch import Batch, Partners, Source
from trainer.engine.crops import Crops, views_of
from trainer.engine.mixing import Mixer, beside, shares
from trainer.engine.portions import Portions
from trainer.engine.second_draw import Joiner
from trainer.engine.transform import transform_of
from trainer.recipes.stage import Draw, Stage
from trainer.spec import RunSpec

__all__ = ["Batches", "Images", "source_names"]

# The name of the source of real rows that are drawn evenly and added to a batch.
_EVEN = "even"
# Above this size, images stay on the disk and are gathered batch by batch.
RESIDENT_BYTES = 8 << 30


class Images:
    """uint8 images (N, H, W, C) of a part or a bank, gathered by row onto a device."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self._device = device
        self._mapped = images
        self._resident: Tensor | None = None
        self._files = as_files(images)
        if device.type != "cpu" and self._files is None and images.nbytes <= RESIDENT_BYTES:
            self._resident = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self._mapped)

    def take(self, rows: np.ndarray) -> Tensor:
        """Gathers the images of `rows`, [len(rows), H, W, C] uint8 on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._device)]
        return torch.from_numpy(np.asarray(self._mapped[rows])).to(self._device)

    def each(self, batch: int) -> Iterator[Tensor]:
        """Yields all images in order, `batch` at once, [n, H, W, C] uint8 on the device."""
        if self._files is not None:
            for views in views_of(self._files, batch):
                yield torch.from_numpy(views).to(self._device)
            return
        for start in range(0, len(self), batch):
            yield self.take(np.arange(start, min(start + batch, len(self))))


@dataclass(frozen=True)
class _Part:
    """The rows of one source before they are put together: two labels and images each.

    images: [n, H, W, C] uint8; labels, index: [n, 2] int64, of a and of b; lam: [n] float32. The
    source has no places in the batch yet.
    """

    source: Source
    images: Tensor
    labels: np.ndarray
    lam: np.ndarray
    index: np.ndarray


def source_names(stage: Stage, aug: str) -> tuple[str, ...]:
    """Lists the names of all sources that a stage's batches may have in an arm, with a bank's."""
    real = [_real(place) for place in range(len(stage.draws))]
    return (real[0], "bank", *real[1:], *([_EVEN] if ARMS[aug].even else []))


def _real(place: int) -> str:
    """Names a draw of a stage."""
    return f"real-{place + 1}" if place else "real"


def _twice(values: np.ndarray) -> np.ndarray:
    """Makes an unmixed row its own partner: [n] -> [n, 2]."""
    return np.stack([values, values], 1)


def _one_after_another(parts: Sequence[_Part]) -> tuple[Source, ...]:
    """Places the rows of the parts one after another; returns their sources."""
    ends = list(accumulate(len(part.lam) for part in parts))
    return tuple(
        replace(part.source, rows=slice(end - len(part.lam), end))
        for part, end in zip(parts, ends, strict=True)
    )


class Batches:
    """The batches of one stage: `batches(step)` for step 0 .. steps - 1.

    The first of the stage's draws is the source "real", further ones are "real-2" and so on, and
    the rows of a bank are "bank". Draws without a loss come last. In arms with mixing or a bank,
    the last `final_real_fraction` of the steps hold real unmixed rows only, and so do all steps of
    a stage that asks for real rows. `accepted` are the rows of the bank that are used; None means
    all of them. `posterior` [rows of the bank, K] is a judge's, None where labels are by lam. In a
    balanced arm, real rows are drawn evenly in every step.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: Dataset,
        *,
        stage: Stage,
        number: int,
        bank: Bank | None,
        steps: int,
        device: torch.device,
        accepted: np.ndarray | None = None,
        posterior: np.ndarray | None = None,
    ) -> None:
        self._spec, self._stage, self._number, self._device = spec, stage, number, device
        self._counts = np.asarray(data.counts)
        self._portions = Portions(spec, stage, images=len(data.train.labels), steps=steps)
        self._steps = steps
        follows_arm = self._portions.plain_from > 0
        arm = ARMS[spec.aug]
        self._mixer = arm.mixer(spec.alpha) if arm.mixer else None
        self._joiner = arm.joiner(spec.alpha) if arm.joiner else None
        self._balanced = arm.balanced and stage.rows == "arm"
        self._crosses = spec.mix_bank_real and "mix_bank_real" in arm.reads
        self._bank = bank if follows_arm else None
        self._posterior = posterior
        self._transform = transform_of(spec, data, device)
        self._policy = spec.policy
        self._labels = np.asarray(data.train.labels)
        self._images = Images(data.train.images, device)
        files = as_files(data.train.images)
        self._crops = None if files is None else Crops(files, self._stream, device)
        own = [Draw("class")] if self._balanced else stage.draws
        self._orders = [self._order(place, draw) for place, draw in enumerate(own)]
        self._even = self._order(len(stage.draws), Draw("class")) if arm.even else None
        if self._joiner is not None:
            self._others = samplers.balanced(
                self._labels, len(self._counts), spec.seed, "mix.class", number
            )
        if self._bank is not None:
            self._bank_images = Images(self._bank.images, device)
            self._accepted = np.arange(len(self._bank)) if accepted is None else accepted
            self._bank_order = samplers.instance(
                len(self._accepted), spec.seed, "bank.order", number
            )

    def _order(self, place: int, draw: Draw) -> samplers.Order:
        seed, number = self._spec.seed, self._number
        further = f"-{place + 1}" if place else ""
        if draw.sampler == "instance":
            return samplers.instance(len(self._labels), seed, f"data.order{further}", number)
        name = f"data.class{further}"
        if draw.sampler == "class":
            return samplers.balanced(self._labels, len(self._counts), seed, name, number)
        passes = self._portions.real(draw, self._steps)[0] / len(self._labels)

        def shares(one_pass: int) -> np.ndarray:
            return samplers.class_shares(draw.sampler, self._counts, min(one_pass / passes, 1.0))

        return samplers.weighted(self._labels, shares, seed, name, number)

    def __call__(self, step: int) -> Batch:
        self._look_ahead(step)
        parts = [self._drawn(place, step) for place in range(len(self._orders))]
        parts += self._extra(step)
        images = torch.cat([part.images for part in parts])
        planes = self._seen(images, self._policy, "data.augment", step)
        partners: dict[str, Partners] = {}
        if step < self._portions.plain_from:  # an arm has one draw, the first rows
            if self._crosses and len(parts) > 1:
                partners[parts[1].source.name] = self._crossed(parts[0], parts[1], planes, step)
            if self._mixer is not None:
                parts = self._mixed(self._mixer, parts, planes, step)
            if self._joiner is not None:
                parts[0] = self._joined(self._joiner, parts[0], planes, step)
        labels = np.concatenate([part.labels for part in parts])
        index = np.concatenate([part.index for part in parts])
        lam = np.concatenate([part.lam for part in parts])
        label_a, label_b, index_a, index_b = map(self._put, [*labels.T, *index.T])
        return Batch(
            planes,
            label_a,
            label_b,
            self._put(lam),
            index_a,
            index_b,
            _one_after_another(parts),
            self._views(parts, step),
            self._targets(parts),
            partners,
        )

    def _drawn(self, place: int, step: int) -> _Part:
        """Draws the rows of one of the stage's draws, not yet mixed."""
        judged = self._stage.draws[place].judged
        source = Source(_real(place), slice(0), judged=judged, even=self._balanced)
        return self._unmixed(source, self._rows(place, step), step)

    def _rows(self, place: int, step: int) -> np.ndarray:
        """Draws the rows of the training part for one of the stage's draws."""
        return self._orders[place].rows(*self._portions.real(self._stage.draws[place], step))

    def _unmixed(self, source: Source, rows: np.ndarray, step: int) -> _Part:
        """Gathers training images by their rows."""
        ones = np.ones(len(rows), np.float32)
        images = self._gathered(rows, source.name, step)
        return _Part(source, images, _twice(self._labels[rows]), ones, _twice(rows))

    def _look_ahead(self, step: int) -> None:
        """Begins to decode the images of this step and of the next ones, if they are files."""
        if self._crops is None:
            return
        last = min(step + self._crops.ahead(self._spec.batch) + 1, self._steps)
        for coming in range(step, last):
            for place in range(len(self._orders)):
                self._crops.expect(self._rows(place, coming), _real(place), coming)

    def _gathered(self, rows: np.ndarray, name: str, step: int) -> Tensor:
        """Gathers training images; files as random crops, keyed by `name` and `step`."""
        if self._crops is None:
            return self._images.take(rows)
        return self._crops.take(rows, name, step)

    def _extra(self, step: int) -> list[_Part]:
        """Draws the rows of a bank, or the real ones in their place; none if a step has none."""
        start, count = self._portions.extra(step)
        if not count:
            return []
        weight = self._portions.weight(step)
        if self._even is not None:
            source = Source(_EVEN, slice(0), weight=weight, even=True)
            return [self._unmixed(source, self._even.rows(start, count), step)]
        return [self._from_bank(self._bank, start, count, weight)] if self._bank else []

    def _from_bank(self, bank: Bank, start: int, count: int, weight: float) -> _Part:
        rows = self._accepted[self._bank_order.rows(start, count)]
        return _Part(
            Source("bank", slice(0), bank=True, mixed=True, weight=weight),
            self._bank_images.take(rows),
            bank.pair[rows].astype(np.int64),
            bank.lam[rows],
            _twice(rows),
        )

    def _crossed(self, real: _Part, bank: _Part, planes: Tensor, step: int) -> Partners:
        """Mixes each row of a bank with a real one that is still unmixed, in place."""
        count, first = len(bank.lam), len(real.lam)
        order = self._stream("cross.perm", step).permutation(first)
        partner = np.resize(order, count)  # from its start again, if there are more rows
        own = shares(self._spec.alpha, count, self._stream("cross.lam", step))
        rows, share = slice(first, first + count), beside(planes, own)
        planes[rows] = torch.lerp(planes[partner], planes[rows], share[:, None, None, None])
        return Partners(
            self._put(real.labels[partner, 0]), self._put(real.index[partner, 0]), share
        )

    def _targets(self, parts: Sequence[_Part]) -> Mapping[str, Tensor]:
        """Makes the labels of a bank's rows as shares of all classes, where a judge gives them."""
        if self._posterior is None or self._spec.label is None:
            return {}
        share, found = self._spec.label.judge_share, {}
        for part in parts:
            if part.source.bank:
                judged = self._posterior[part.index[:, 0]].astype(np.float32)  # [n, K]
                target = share * judged / judged.sum(1, keepdims=True)
                rows = np.arange(len(part.lam))
                for label, of in zip(part.labels.T, (part.lam, 1 - part.lam), strict=True):
                    target[rows, label] += (1 - share) * of
                found[part.source.name] = self._put(target)
        return found

    def _mixed(
        self, mixer: Mixer, parts: Sequence[_Part], planes: Tensor, step: int
    ) -> list[_Part]:
        """Mixes the real rows of each part among themselves, in place; sets their labels."""
        mixed, start = [], 0
        for part in parts:
            rows = slice(start, start + len(part.lam))
            mixed.append(part if part.source.bank else self._mix(mixer, part, planes[rows], step))
            start = rows.stop
        return mixed

    def _mix(self, mixer: Mixer, part: _Part, planes: Tensor, step: int) -> _Part:
        label, index = part.labels[:, 0], part.index[:, 0]
        # Of a stream of their own, so that the real rows are mixed as in the arm without others.
        of = f"{_EVEN}." if part.source.name == _EVEN else ""
        mixed = mixer(planes, label, self._counts, lambda name: self._stream(f"{of}{name}", step))
        planes.copy_(mixed.planes)
        return replace(
            part,
            source=replace(part.source, mixed=True),
            labels=np.stack([label, label[mixed.partner]], 1),
            lam=mixed.lam,
            index=np.stack([index, index[mixed.partner]], 1),
        )

    def _joined(self, joiner: Joiner, part: _Part, planes: Tensor, step: int) -> _Part:
        """Mixes the real rows, the first, with as many of a second draw, in place."""
        count = len(part.lam)
        start, _ = self._portions.real(self._stage.draws[0], step)
        rows = self._others.rows(start, count)
        images = self._gathered(rows, "mix", step)
        others = self._seen(images, self._policy, "mix.augment", step)
        joined = joiner(planes[:count], others, lambda name: self._stream(name, step))
        planes[:count] = joined.planes
        return replace(
            part,
            source=replace(part.source, mixed=True, even_partners=True),
            labels=np.stack([part.labels[:, 0], self._labels[rows]], 1),
            lam=joined.lam,
            index=np.stack([part.index[:, 0], rows], 1),
        )

    def _views(self, parts: Sequence[_Part], step: int) -> Tensor | None:
        """Makes the further views of training images that the stage asks for, [V, M, C, H, W]."""
        if not self._stage.views:
            return None
        own = [part for part in parts if not part.source.bank]
        views = []
        for place, view in enumerate(self._stage.views):
            images = torch.cat([self._again(part, f"view-{place}", step) for part in own])
            views.append(self._seen(images, VIEWS[view], "data.view", step, place))
        return torch.stack(views)

    def _again(self, part: _Part, view: str, step: int) -> Tensor:
        """Crops the training images of a part anew, if they are files."""
        if self._crops is None:
            return part.images
        return self._crops.take(part.index[:, 0], f"{view}.{part.source.name}", step)

    def _seen(self, images: Tensor, policy: Policy, name: str, *index: int) -> Tensor:
        """Augments by a policy, with the random streams of `name` and `index`."""
        return self._transform.view(images, policy, name, lambda one: self._stream(one, *index))

    def refresh(self, number: int) -> Tensor:
        """Draws unmixed real images in natural proportion for batch-norm statistics."""
        order = samplers.instance(len(self._labels), self._spec.seed, "refresh.order", self._number)
        rows = order.rows(number * self._spec.batch, self._spec.batch)
        draws = self._stream("refresh.augment", number)
        return self._transform.random(self._gathered(rows, "refresh", number), draws)

    def _stream(self, name: str, *index: int) -> np.random.Generator:
        return stream(self._spec.seed, name, self._number, *index)

    def _put(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
