"""The plan of a bank: the options of `generate` become a request, a generator, a bank to find.

Torch is loaded if a bank has to be written or a generator trained. A bank that exists is found
without it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix.banks import near, store
from stylegan_mix.banks.pair_file import read_pairs
from stylegan_mix.banks.policy import classes_in_words, lam_in_words
from stylegan_mix.banks.request import Request, command_words
from stylegan_mix.console import DEFAULT_DATASET
from stylegan_mix.datasets.asked import AskedDraw, dataset_of
from stylegan_mix.datasets.embedded import EMBEDDED
from stylegan_mix.datasets.loading import prepared_names
from stylegan_mix.datasets.records import draw_name
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.estimates import Span
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.budget import in_thousands, short
from stylegan_mix.generators.card import rounding, trained_for
from stylegan_mix.generators.collapse import warning
from stylegan_mix.generators.store import Published
from stylegan_mix.latents.pairing import PAIRINGS
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.launched import own_device
from stylegan_mix.numerics import Numerics
from stylegan_mix.process import resolve_device, slow_precision
from stylegan_mix.training.plan import TrainPlan, plan_training, start_of

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = ["Asked", "Means", "Plan", "Training", "decide"]


# Seconds of the longest training that begins unasked, and the data sets that have no such limit.
_LONGEST_UNASKED = 4 * 3600
_TRAINED_AS_TYPED = (DEFAULT_DATASET, "cifar10_lt")


@dataclass(frozen=True)
class Asked:
    """The options of `generate` that describe the bank, and the means of making it.

    `generator` is a hash or the beginning of one; None takes the newest of the split. `exact` takes
    an existing bank only if it has the numerics of this machine. `train` False makes a missing
    generator an error, and True trains it however long that takes; None trains it if that is short
    (`Plan.require_short`). `pairs` is a name of `PAIRINGS` or the path of a file of pairs.
    """

    draw: AskedDraw = AskedDraw()
    n: int = 50_000
    space: str = "w"
    alpha: float = 1.0
    truncation: float = 1.0
    seed: int = 0
    generator: str | None = None
    precision: str = "float32"
    exact: bool = False
    train: bool | None = None
    device: str = "auto"
    fill: str = "uniform"
    pairs: str = "uniform"
    unmixed: float = 0.0
    lam: str = "beta"

    def request(
        self,
        *,
        generator: str,
        split_id: str,
        classes: Sequence[str],
        counts: Sequence[int],
        resolution: int,
        channels: int,
        judge: str = "",
    ) -> Request:
        """Makes the request to a generator, given by its hash, split, classes and images.

        `judge` is the key of the judge of the split, for pairs that it chooses.
        """
        listed = self.pairs_file is not None
        return Request(
            generator=generator,
            split_id=split_id,
            classes=len(classes),
            resolution=resolution,
            channels=channels,
            n=self.n,
            space=self.space,
            alpha=self.alpha,
            truncation=self.truncation,
            seed=self.seed,
            fill=self.fill,
            pairs="listed" if listed else self.pairs,
            unmixed=self.unmixed,
            lam=self.lam,
            counts=tuple(int(count) for count in counts),
            listed=read_pairs(self.pairs_file, classes) if self.pairs_file and classes else (),
            listed_in=self.pairs if listed else "",
            judge=judge if self.judged else "",
        )

    @property
    def judged(self) -> bool:
        """True if a judge chooses the pairs."""
        return self.pairs in PAIRINGS and PAIRINGS[self.pairs].reads == "judge"

    @property
    def pairs_file(self) -> Path | None:
        """The file of pairs, if `pairs` names one.

        Raises `UsageFailure` (exit code 2) if it is neither a pairing nor a file.
        """
        known = sorted(set(PAIRINGS) - {"listed"})
        if self.pairs in known:
            return None
        path = Path(self.pairs)
        if self.pairs == "listed" or not os.path.isfile(path):
            raise UsageFailure(
                f"--pairs: no pairing, and no file, '{self.pairs}'{nearest(self.pairs, known)}",
                remedy="a file of pairs has lines a,b or a,b,weight",
            )
        return path


@dataclass(frozen=True)
class Means:
    """The device that decodes a bank, and its numerics class."""

    device: str
    numerics: Numerics


@dataclass(frozen=True)
class Training:
    """The training before a bank; it goes on from `start` thousand images."""

    plan: TrainPlan
    start: float


@dataclass(frozen=True)
class Plan:
    """A decided bank: one of `published` and `training`, and `existing` if it is there already.

    Without a generator there is no request yet. `means` are None if nothing is to be decoded.
    `why` are reasons and warnings to print.
    """

    asked: Asked
    request: Request
    published: Published | None = None
    training: Training | None = None
    existing: store.Record | None = None
    means: Means | None = None
    why: tuple[str, ...] = ()

    def of(self, published: Published) -> Plan:
        """Completes the plan once its generator is trained."""
        return _with_generator(self.asked, published, why=())

    @property
    def limited(self) -> bool:
        """True if the training before this bank begins unasked, so only if it is short.

        That of a small built-in data set begins as typed.
        """
        if self.training is None or self.asked.train is not None:
            return False
        return self.training.plan.dataset.name not in _TRAINED_AS_TYPED

    def require_short(self, left: Span) -> None:
        """Raises `InvalidInput` (exit code 3) if a training of `left` seconds is too long unasked.

        As with `train` False, the generator that the bank needs is missing.
        """
        if self.training is None or not self.limited or left.high <= _LONGEST_UNASKED:
            return
        plan = self.training.plan
        raise InvalidInput(
            f"no finished generator of {plan.dataset.name}, and to train one takes "
            f"{left.in_words()} on this machine; without being asked, generate trains for up to "
            f"{_LONGEST_UNASKED // 3600} hours",
            remedy=f"{plan.command} trains it, with --time 4h as far as that goes; --train insists "
            "that this command does",
        )

    def command(self) -> list[str]:
        """Composes the command that requests this bank again, as words."""
        if self.published is not None:
            return command_words(self.request, self.published.card, self.asked.precision)
        draw = {**self.asked.draw.draw, "dataset": self.asked.draw.dataset or DEFAULT_DATASET}
        return command_words(self.request, draw, self.asked.precision)

    def lines(self) -> list[str]:
        """Puts the plan into words."""
        return [*self.why, *([] if self.published is None else self._bank_lines(self.published))]

    def _bank_lines(self, published: Published) -> list[str]:
        request, card = self.request, published.card
        height, width, channels = request.image_shape
        draw = f"{draw_name(card.get('imbalance'))}, split {request.split_id[:12]}"
        rows = (
            f"{request.n:,} images of {card['dataset']} ({draw}), {height}x{width}x{channels}, "
            f"{request.bytes / 1e6:,.1f} MB"
        )
        mixing = (
            f"space {request.space}: {SPACES[request.space].about}; alpha {request.alpha:g}, "
            f"truncation {request.truncation:g}, seed {request.seed}"
        )
        return [rows, mixing, *_policy_lines(request), *_generator_lines(published)]


def decide(asked: Asked) -> Plan:
    """Resolves all open options, by the generators and banks that exist.

    Raises `UsageFailure` (exit code 2) for an impossible request, `InvalidInput` (3) for a
    generator of another split, or a missing one that may not be trained, `MissingEnvironment` (4)
    for absent data.
    """
    # Bounds are checked before anything is read.
    asked.request(generator="", split_id="", classes=(), counts=(), resolution=1, channels=1)
    if asked.generator:
        published = generator_store.load(asked.generator)
        _check_asked(published, asked.draw)
        _check_split(published, asked.draw)
        return _with_generator(asked, published, why=())
    dataset = asked.draw.load()
    why = (*asked.draw.why, *dataset.notes, *generator_store.left_out())
    found = generator_store.find(split_id=dataset.split_id)
    if found:
        return _with_generator(asked, found[0], why=(*why, *_trained_longer(found)))
    return _with_training(asked, dataset, why=why)


def _with_generator(asked: Asked, published: Published, *, why: tuple[str, ...]) -> Plan:
    card = published.card
    request = asked.request(
        judge=near.judge_of(card) if asked.judged else "",
        generator=published.hash,
        split_id=card["split_id"],
        classes=card["classes"],
        counts=card["counts"],
        resolution=card["resolution"],
        channels=card["channels"],
    )
    plan = Plan(asked, request, published, why=why)
    there = store.find(request_key=request.key)
    if there and not asked.exact:
        return replace(plan, existing=there[0])
    means = _means(asked)
    key = request.exact_key(means.numerics)
    same = next((one for one in there if one.key == key), None)
    slow = "" if same else slow_precision(asked.precision, means.device)
    why = (*why, slow) if slow else why
    return replace(plan, existing=same, means=means, why=why)


def _means(asked: Asked) -> Means:
    from stylegan_mix.numerics import numerics_class

    device = own_device(resolve_device(asked.device))
    return Means(device, numerics_class(device, asked.precision))


def _with_training(asked: Asked, dataset: Dataset, *, why: tuple[str, ...]) -> Plan:
    """Plans to train the default generator of a split first."""
    train = shlex.join(["stylegan-mix", "train", *dataset.options])
    imported = _imported(dataset)
    if asked.train is False:
        raise InvalidInput(
            f"{generator_store.none_of(dataset)}{imported}",
            remedy=f"{train} trains one; without --no-train this command does it first",
        )
    plan = plan_training(
        dataset, preset=None, kimg=None, seed=0, device=asked.device, command=train
    )
    request = asked.request(
        judge=near.judge_for(dataset) if asked.judged else "",
        generator="",
        split_id=dataset.split_id,
        classes=dataset.classes,
        counts=dataset.counts.tolist(),
        resolution=dataset.resolution,
        channels=dataset.channels,
    )
    first = f"no finished generator of {dataset.name}: this one is trained first{imported}"
    training = Training(plan, start_of(plan))
    return Plan(asked, request, training=training, why=(*why, *plan.warnings, first))


def _check_asked(published: Published, draw: AskedDraw) -> None:
    """Raises `InvalidInput` for a generator of another data set or split than the requested one.

    Also for one without classes: the rows of a bank need labels.
    """
    if not published.card["classes"]:
        raise InvalidInput(
            f"generator {published.hash[:12]} is unconditional: it draws images of no known "
            "class, and the rows of a bank need two classes",
            remedy=f"look at what it draws in {published.folder / 'grid.png'}; for a bank, train "
            "or import a class-conditional one",
        )
    for name, asked in {"dataset": draw.dataset, **draw.draw}.items():
        has = published.card.get(name)
        if asked is not None and asked != has:
            raise InvalidInput(
                f"generator {published.hash[:12]} was trained with {name.replace('_', ' ')} "
                f"{has}, not {asked}",
                remedy="leave out --generator, or ask for the data that it was trained on",
            )


def _check_split(published: Published, draw: AskedDraw) -> None:
    """Raises `InvalidInput` if the data set that was named has another split than the generator.

    Where no data set was named, or is not there, nothing can be compared.
    """
    if draw.dataset in (*EMBEDDED, *prepared_names()):
        dataset_of(published.card, f"generator {published.hash[:12]}")


def _trained_longer(found: Sequence[Published]) -> list[str]:
    """Names the generator that saw the most images, if it is not the newest, which is taken."""
    newest, longest = found[0], max(found, key=lambda one: float(one.card["kimg"]))
    if longest.card["kimg"] <= newest.card["kimg"]:
        return []
    told = (
        f"the newest generator saw {in_thousands(newest.card['kimg'])}, an older one "
        f"{longest.card['kimg']:,g}: --generator {longest.hash[:12]} takes that one"
    )
    return [told]


def _imported(dataset: Dataset) -> str:
    """Hints at an imported generator declared for this split, which is only taken if named."""
    for one in generator_store.find():
        if one.imported and one.card["split_id"] == dataset.split_id:
            return f"; an imported one is taken if named: --generator {one.hash[:12]}"
    return ""


def _policy_lines(request: Request) -> list[str]:
    """Describes how classes and lam are drawn, where that differs from the defaults."""
    spec = request.spec()
    chosen = {"fill", "pairs", "unmixed", "lam"} & set(spec)
    return [f"{classes_in_words(spec)}; lam: {lam_in_words(spec)}"] if chosen else []


def _generator_lines(published: Published) -> list[str]:
    card, name = published.card, published.hash[:12]
    if published.imported:
        split = published.imported["split"]
        return [f"generator {name}, imported; that it was trained on this split is {split}"]
    found = warning(dict(enumerate(card.get("diversity") or ())), card["classes"])
    line = f"generator {name}, {trained_for(card)}{_least_diverse(card)}"
    if rounded := rounding(card):
        line += f", {rounded}"
    seen = "it began with weights that were trained on images of another split"
    warned = [f"warning: {text}" for text in (published.others and seen, short(card)) if text]
    return [line, *warned, *([found] if found else [])]


def _least_diverse(card: Mapping[str, Any]) -> str:
    known = [
        (ratio, name)
        for ratio, name in zip(card.get("diversity") or (), card["classes"], strict=False)
        if ratio is not None
    ]
    return f", diversity at least {min(known)[0]:.2f} ({min(known)[1]})" if known else ""
