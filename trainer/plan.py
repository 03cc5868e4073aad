"""The plan of a run: the options of `trainer run` become a `RunSpec`, seeds, folders; no torch.

Every default that depends on data or on the store is decided here, in one place, with a reason that
can be printed.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import datasets
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.datasets.pool import find_folder
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from trainer import choices, defaults, models
from trainer.asked import SPLIT, Asked
from trainer.choices import Choice
from trainer.differences import flat
from trainer.engine.arms import ARMS
from trainer.inputs import (
    Judged,
    annotations_of,
    bank_reference,
    require_fitting,
    teacher_reference,
)
from trainer.recipes.catalogue import recipe
from trainer.reports import records
from trainer.settings import check, refuse_unread, require_memory
from trainer.spec import (
    ACCEPTED,
    ALL_ROWS,
    FEWEST_IN_BATCH,
    AcceptRef,
    BankRef,
    DataSpec,
    LabelRef,
    RunSpec,
    VoteSpec,
)

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset
    from trainer.reports.records import Result

__all__ = ["Asked", "Plan", "decide", "expected", "fitting_batch", "requested"]

_MOST_SEEDS = 10_000
# Settings that an option names, and that the store gives.
_REFERENCES = {"bank", "teacher", "accept", "label"}
# Settings later than the first choices that were kept: at their default they change no request.
_LATER = {
    name: getattr(RunSpec, name)
    for name in (
        *("accept", "label", "fair", "bank_schedule", "mix_bank_real"),
        *("drw", "head_epochs", "h2t", "augment", "aug_version"),
    )
}


@dataclass(frozen=True)
class Plan:
    """A decided run: `spec` of the first seed, the number of seeds, and the folder.

    `why` are reasons to print, `decided` the options that a bank decided, `request` the settings
    that were asked for (see `requested`).
    """

    asked: Asked
    spec: RunSpec
    seeds: tuple[int, ...]
    root: Path
    why: tuple[str, ...]
    data: Dataset
    request: Mapping[str, Any]
    decided: tuple[str, ...] = ()

    def keep_choice(self) -> None:
        """Writes down the data set, bank and annotations that were left open, so that they stay."""
        draw, named = {}, self.asked.named_bank is not None
        if "dataset" not in self.request and not named:
            told = {name: getattr(self.asked, name) for name in choices.DRAW}
            draw = {name: value for name, value in told.items() if value is not None}
            draw = {name: value for name, value in draw.items() if name not in self.request}
        bank = self.spec.bank.key if self.spec.bank and not named else None
        read = self.spec.accept or self.spec.label
        annotations = Path(read.folder).name if read else None
        if draw or bank or annotations:
            command = self.command(self.seeds[0])
            choices.keep(self.root, self.request, Choice(draw, bank, annotations), command)

    def of_seed(self, seed: int) -> RunSpec:
        """Returns the same run with another seed."""
        return replace(self.spec, seed=seed)

    def folder(self, seed: int) -> Path:
        """Returns the run folder of a seed."""
        name = self.asked.name
        below = self.of_seed(seed).folder
        return self.root / (f"{name}/seed-{seed}" if name else below)

    def finished(self, seed: int) -> Result | None:
        """Finds the result of a seed, or None; raises the errors of `records.finished`."""
        return records.finished(self.folder(seed), self.of_seed(seed), self.data)

    def lock(self, seed: int) -> Path:
        """Returns the file that the process holds that works on a seed."""
        return self.folder(seed) / records.LOCK_FILE

    def words(self, seed: int) -> list[str]:
        """Composes the command that repeats the run of one seed, as words."""
        spec = self.spec
        # Named even at their defaults, which may change, as the newest bank does.
        told: dict[str, Any] = {"aug": spec.aug, "model": spec.model, "epochs": spec.epochs}
        if spec.bank is not None and self.asked.named_bank is None:
            told["bank"] = spec.bank.key[:12]
        return replace(self.asked, seed=seed, **told).words()

    def command(self, seed: int) -> str:
        """Composes the command that repeats the run of one seed, as it is typed."""
        return shlex.join(self.words(seed))

    def sources(self, options: Mapping[str, str]) -> dict[str, str]:
        """Names the source of each setting of the run; `options` has those of given ones."""
        by_data = defaults.by_data_set(self.spec.data.name)
        by_arm = defaults.by_arm(self.spec.aug)
        found = {}
        for name in flat(self.spec.plain()):
            first, _, rest = name.partition(".")
            option = {"data": rest, "votes": rest}.get(first, first)
            option = {"name": "dataset"}.get(option, option)
            source = options.get(option, "default")
            if source == "default" and first in by_data:
                source = f"default of {self.spec.data.name}"
            elif source == "default" and first in by_arm:
                source = f"default of --aug {self.spec.aug}"
            elif source == "default" and (
                self.spec.bank if first == "bank" else option in self.decided
            ):
                source = "named bank" if self.asked.named_bank else "newest bank"
            found[name] = source
        return found


def decide(asked: Asked, *, preferred: Sequence[str] = ()) -> Plan:
    """Resolves all open options, by the data sets and banks that exist.

    What the same command chose before in the same `out` is chosen again. Else the first bank is
    taken that has one of the keys `preferred` and fits, else the newest.

    Raises `UsageFailure` (exit code 2) for an impossible request, `InvalidInput` (3) for a bank
    that is missing or comes from another split, `MissingEnvironment` (4) for absent data and for
    votes that the memory cannot hold.
    """
    if not 1 <= asked.seeds <= _MOST_SEEDS:
        raise UsageFailure(f"--seeds must be at least 1, at most {_MOST_SEEDS:,}")
    if asked.name is not None and not _names_a_folder(asked.name):
        raise UsageFailure(f"--name must name a folder below --out, got {asked.name!r}")
    # Before any data are loaded.
    recipe(asked.recipe or RunSpec.recipe)
    for name in (asked.model, asked.teacher_model):
        models.require(name or RunSpec.model)
    refuse_unread(vars(asked))
    request = requested(asked)
    before = choices.recall(Path(asked.out), request)
    asked, because, decided = _with_dataset(asked, before)
    assert asked.dataset is not None
    split = {name: getattr(asked, name) for name in SPLIT}
    data = _loaded(asked.dataset, _stamp(asked.dataset), **split)
    bank, which = _bank(asked, data, (before and before.bank) or None, preferred)
    judged, newer = _annotations(asked, bank, before.annotations if before else None)
    spec = _spec(asked, data, bank, judged)
    require_memory(check(spec), data, spec.votes.views)
    require_fitting(spec, data)
    seeds = tuple(range(asked.seed, asked.seed + asked.seeds))
    smaller = _smaller_batch(asked.batch, len(data.train))
    why = tuple(text for text in (because, *data.notes, which, newer, smaller) if text)
    return Plan(asked, spec, seeds, Path(asked.out), why, data, request, decided)


def fitting_batch(wanted: int | None, images: int) -> int:
    """Limits a batch, None for the default, to the number of training images.

    A batch with images twice would make an epoch longer than the real images.
    """
    asked = RunSpec.batch if wanted is None else wanted
    return min(asked, max(images, FEWEST_IN_BATCH))


def _smaller_batch(wanted: int | None, images: int) -> str:
    """Tells that the training part is smaller than the batch that was asked for; else ""."""
    asked = RunSpec.batch if wanted is None else wanted
    batch = fitting_batch(wanted, images)
    told = f"batch {batch}, not {asked}: the training part has {images:,} images"
    return told if batch < asked else ""


def _names_a_folder(name: str) -> bool:
    path = Path(name)
    below = path.parts and not path.is_absolute() and ".." not in path.parts
    short = all(len(os.fsencode(part)) <= 255 for part in path.parts)
    return bool(below) and short and name.isprintable()


@functools.lru_cache(maxsize=4)
def _loaded(name: str, stamp: int, **split: Any) -> Dataset:
    """Loads the set that was prepared at `stamp`; a sweep asks for the same one many times."""
    return datasets.load(name, **split, streamed=True)


def _stamp(name: str) -> int:
    """Returns the time at which a set was prepared, 0 for an embedded one."""
    folder = find_folder(name)
    return 0 if folder is None else folder.stat().st_ctime_ns


def expected(asked: Asked) -> dict[str, Any]:
    """Collects the settings of the requested run, as far as they are known without any data.

    By their names in `RunSpec` and `DataSpec`, without those that depend on data, bank or teacher.
    """
    own = {field.name: field.default for field in fields(RunSpec)}
    by_place = defaults.defaults(asked.aug, asked.dataset)
    found: dict[str, Any] = {}
    for field in fields(Asked):
        value = getattr(asked, field.name)
        if field.name in own.keys() - _REFERENCES:
            default = by_place.get(field.name, own[field.name])
            found[field.name] = default if value is None else value
        elif field.name in SPLIT and value is not None:
            found[f"data.{field.name}"] = value
    versions = defaults.versions(found["aug"], found["recipe"])
    return {**found, **versions, "data.name": asked.dataset}


def requested(asked: Asked) -> dict[str, Any]:
    """Collects the settings that a command asks for, seeds and `out` aside, as plain data.

    Two commands with the same ones ask for the same run, also where one names a default.
    """
    as_typed = {name: value for name, value in vars(asked).items() if value is not None}
    found = {
        **as_typed,
        **expected(asked),
        "bank": bank_store.space_named(asked.bank) or asked.bank,
        "accept": asked.accepted,
        "label": asked.judge_share,
    }
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in found.items()
        if name not in ("seed", "seeds", "out") and (name not in _LATER or value != _LATER[name])
    }


def _with_dataset(asked: Asked, before: Choice | None) -> tuple[Asked, str, tuple[str, ...]]:
    """Chooses the data set: as named, else the named bank's, that of `before`, of the newest bank.

    Without any bank it is the digits. Returns the completed options, the reason, and the options
    that the bank decided.
    """
    if asked.dataset is not None:
        return asked, f"data set {asked.dataset}: as asked", ()
    if asked.named_bank is not None:
        bank = open_bank(bank_store.resolve(asked.named_bank), verify=False)
        facts, reason = bank.facts, f"that of bank {bank.key[:12]}"
    elif before is not None and "dataset" in before.draw:
        told = f"data set {before.draw['dataset']}: as this command took it before"
        newest = bank_store.find()[:1]
        if newest and newest[0].facts["dataset"] != before.draw["dataset"]:
            told += f", while the newest bank is of {newest[0].facts['dataset']}"
        return replace(asked, **before.draw), f"{told} (choose with --dataset)", tuple(before.draw)
    else:
        banks = bank_store.find()
        if not banks:
            reason = "data set digits_lt: there is no bank yet, and it is built in"
            return replace(asked, dataset="digits_lt"), reason, ()
        facts = banks[0].facts
        reason = f"that of the newest bank, {banks[0].key[:12]}"
    taken = {
        name: facts[name]
        for name in ("dataset", "imbalance", "profile", "split_seed")
        if getattr(asked, name) is None and facts.get(name) is not None
    }
    # Natural class sizes have no factor: naming the one drops the other.
    if asked.profile == "natural":
        taken.pop("imbalance", None)
    if asked.imbalance is not None and taken.get("profile") == "natural":
        del taken["profile"]
    text = f"data set {taken['dataset']}: {reason} (choose with --dataset)"
    return replace(asked, **taken), text, tuple(taken)


def _bank(
    asked: Asked, data: Dataset, before: str | None, preferred: Sequence[str]
) -> tuple[BankRef | None, str]:
    """Chooses the bank: as named, else that of `before`, else of `preferred`, else the newest.

    Returns a reference to it, and the reason.
    """
    if asked.aug not in ARMS or not ARMS[asked.aug].bank:
        return None, ""
    if asked.named_bank is not None:
        return _checked(bank_store.resolve(asked.named_bank), data, "as asked")
    banks = bank_store.find(dataset=data.name, split_id=data.split_id)
    if asked.bank is None:
        fitting = [one for one in banks if not one.control]
        kind = ""
    else:
        fitting = [one for one in banks if one.is_of(asked.bank)]
        kind = f" of space '{bank_store.space_named(asked.bank)}'"
    if not fitting:
        raise _missing_bank(data, asked, kind)
    by_key = {one.key: one for one in fitting}
    for key in (before, *preferred):
        if key in by_key:
            why = "as this command took it before" if key == before else "as the rest of the sweep"
            return _checked(by_key[key].folder, data, why + _newer(by_key[key], fitting[0]))
    reason = f"the newest{kind} for this split"
    if before is not None:
        reason += (
            f", as bank {before[:12]}, which this command took before, does not fit or is gone"
        )
    if asked.bank is None and fitting[0] != banks[0]:
        reason = "the newest of a mixing space for this split; controls are taken only by name"
    return _checked(fitting[0].folder, data, reason)


def _newer(taken: bank_store.Record, newest: bank_store.Record) -> str:
    """Says how to take the newest bank, if it is not the one that is taken."""
    if newest == taken:
        return ""
    return f"; a newer one is there, --bank {newest.key[:12]} takes it"


def _checked(folder: Path, data: Dataset, reason: str) -> tuple[BankRef, str]:
    """Opens a bank after the leak guard: its generator must have seen this training split only."""
    bank = open_bank(folder, verify=False)
    bank.require_split(data.split_id)
    text = f"bank {bank.key[:12]}: {reason} ({len(bank):,} rows, space {bank.space})"
    if bank.facts.get("generator_imported"):
        text += "; its generator was imported, and only declared to be of this split"
    if bank.facts.get("generator_others"):
        text += "; warning: its generator began with weights trained on images of another split"
    return bank_reference(folder), text


def _missing_bank(data: Dataset, asked: Asked, kind: str) -> InvalidInput:
    """Makes the error for a run without a fitting bank, with the command that makes one."""
    command = _generate(data, bank_store.space_named(asked.bank))
    remedy = f"make one: {command}\n  {bank_store.TRAINS_FIRST}"
    if asked.val_per_class or asked.drop_overlap:
        remedy = (
            "generators are trained on whole splits only: leave out --val-per-class and "
            "--drop-overlap, or use --aug none or mixup"
        )
    return InvalidInput(
        f"there is no bank{kind} for {data.name}, split {data.split_id[:12]}", remedy=remedy
    )


def _generate(data: Dataset, space: str | None) -> str:
    words = ["stylegan-mix", "generate", *data.options, "--n", "50000"]
    return " ".join(words + (["--space", space] if space else []))


def _spec(asked: Asked, data: Dataset, bank: BankRef | None, judged: Judged | None) -> RunSpec:
    own = {field.name for field in fields(RunSpec)}
    said = {
        field.name: getattr(asked, field.name)
        for field in fields(Asked)
        if field.name in own - _REFERENCES and getattr(asked, field.name) is not None
    }
    part = DataSpec(
        name=data.name,
        imbalance=None if data.imbalance is None else float(data.imbalance),
        profile=data.profile,
        split_seed=data.split_seed,
        drop_overlap=asked.drop_overlap,
        val_per_class=asked.val_per_class,
    )
    by_place = defaults.defaults(asked.aug, data.name)
    versions = defaults.versions(asked.aug, asked.recipe)
    votes = {} if asked.views is None else {"votes": VoteSpec(views=asked.views)}
    teacher = teacher_reference(Path(asked.teacher)) if asked.teacher else None
    batch = fitting_batch(asked.batch, len(data.train))
    own_settings = {**by_place, **said, **votes, **versions, "batch": batch}
    return RunSpec(
        data=part,
        bank=bank,
        teacher=teacher,
        accept=_accept(asked, judged),
        label=_label(asked, judged),
        **own_settings,
    )


def _annotations(
    asked: Asked, bank: BankRef | None, before: str | None
) -> tuple[Judged | None, str]:
    """Finds the annotations of the bank, if its judge is asked: those of `before`, else the newest.

    Returns them, and the reason if there are newer ones.
    """
    if bank is None or not (asked.accepted or asked.judge_share):
        return None, ""
    rule = asked.accepted
    if rule is not None and rule not in ACCEPTED:
        raise UsageFailure(f"accept '{rule}' is unknown{nearest(rule, (ALL_ROWS, *ACCEPTED))}")
    without = f"it is not known which rows are {rule}" if rule else "no judge has labelled its rows"
    found = annotations_of(bank, before, without)
    told = "judge: as this command took it before; a newer one is there, another --out takes it"
    return found, told if found.newer else ""


def _accept(asked: Asked, judged: Judged | None) -> AcceptRef | None:
    """Refers to the annotations that choose the rows of the bank; None for all rows."""
    rule = asked.accepted
    return AcceptRef(rule, judged.sha256, judged.folder) if judged and rule else None


def _label(asked: Asked, judged: Judged | None) -> LabelRef | None:
    """Refers to the annotations that label the rows of the bank; None for labels by lam."""
    share = asked.judge_share
    return LabelRef(share, judged.sha256, judged.folder) if judged and share else None
