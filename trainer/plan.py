"""The plan of a run: the options of `trainer run` become a `RunSpec`, seeds, folders; no torch.

Every default that depends on data or on the store is decided here, in one place, with a reason that
can be printed.
"""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import datasets
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.console import as_typed
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from trainer import models
from trainer.differences import flat
from trainer.engine.mixing import ARMS
from trainer.inputs import bank_reference, teacher_reference
from trainer.recipes.catalogue import recipe
from trainer.reports.records import LOCK_FILE
from trainer.spec import FEWEST_IN_BATCH, BankRef, DataSpec, RunSpec, VoteSpec

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = ["Asked", "Plan", "decide", "expected", "fitting_batch"]

# Defaults that depend on the data set; RunSpec holds the protocol of the field for all others.
_BY_DATASET: dict[str, dict[str, Any]] = {
    "digits_lt": {"model": "resnet8", "epochs": 100},
}


_SPLIT = ("imbalance", "profile", "split_seed", "drop_overlap", "val_per_class")


@dataclass(frozen=True)
class Asked:
    """The options of `trainer run` that describe the run; None for options not given.

    `split_seed` is 0 if only a data set is named; without a data set it can be a bank's, as the
    data set is. `bank` is a key, the beginning of one, a path, or a space or control, meaning the
    newest bank of that space for the data set and split. `teacher` is the folder of a finished
    run; `views` is the number of questions to a label-only teacher about each image.
    """

    dataset: str | None = None
    imbalance: float | None = None
    profile: str | None = None
    split_seed: int | None = None
    drop_overlap: bool = False
    val_per_class: int = 0
    aug: str | None = None
    recipe: str | None = None
    model: str | None = None
    bank: str | None = None
    teacher: str | None = None
    teacher_model: str | None = None
    views: int | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    precision: str | None = None
    warmup_epochs: float | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    alpha: float | None = None
    bank_share: float | None = None
    bank_weight: float | None = None
    final_real_fraction: float | None = None
    bn_refresh_batches: int | None = None
    pad: int | None = None
    flip: bool | None = None
    eval_every: int | None = None
    seed: int = 0
    seeds: int = 1
    out: str = "runs"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.dataset is not None and self.split_seed is None:
            object.__setattr__(self, "split_seed", DataSpec.split_seed)

    @property
    def named_bank(self) -> str | None:
        """The value of `bank` if it names one bank, not the newest of a space."""
        return None if bank_store.space_named(self.bank) else self.bank

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str) -> Asked:
        """Reads a table of a file; `UsageFailure` for an unknown name or a wrong type."""
        known = {field.name: str(field.type) for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in known:
                raise UsageFailure(f"{where}: no option '{key}'{nearest(name, known)}")
            values[name] = _typed(value, known[name], f"{where}: '{key}'")
        return cls(**values)

    def words(self) -> list[str]:
        """Composes the command line of this request, as words, one seed at a time."""
        words = ["trainer", "run"] + (["--dataset", self.dataset] if self.dataset else [])
        plain = Asked(dataset=self.dataset)
        for field in fields(self):
            value = getattr(self, field.name)
            if value == getattr(plain, field.name) or field.name in ("seeds", "out"):
                continue
            option = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", as_typed(value)]
        return words

    def command(self) -> str:
        """Composes the command line of this request, as it is typed."""
        return shlex.join(self.words())


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
}


def _typed(value: Any, declared: str, where: str) -> Any:
    kind = declared.removesuffix(" | None")
    right = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    if not right:
        raise UsageFailure(f"{where} must be {kind}, got {type(value).__name__} {value!r}")
    return float(value) if kind == "float" else value


@dataclass(frozen=True)
class Plan:
    """A decided run: `spec` of the first seed, the number of seeds, and the folder.

    `why` are reasons to print, `decided` the options that a bank decided.
    """

    asked: Asked
    spec: RunSpec
    seeds: tuple[int, ...]
    root: Path
    why: tuple[str, ...]
    data: Dataset
    decided: tuple[str, ...] = ()

    def of_seed(self, seed: int) -> RunSpec:
        """Returns the same run with another seed."""
        return replace(self.spec, seed=seed)

    def folder(self, seed: int) -> Path:
        """Returns the run folder of a seed."""
        name = self.asked.name
        below = self.of_seed(seed).folder
        return self.root / (f"{name}/seed-{seed}" if name else below)

    def lock(self, seed: int) -> Path:
        """Returns the file that the process holds that works on a seed."""
        return self.folder(seed) / LOCK_FILE

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
        by_data = _BY_DATASET.get(self.spec.data.name, {})
        found = {}
        for name in flat(self.spec.plain()):
            first, _, rest = name.partition(".")
            option = {"data": rest, "votes": rest}.get(first, first)
            option = {"name": "dataset"}.get(option, option)
            source = options.get(option, "default")
            if source == "default" and first in by_data:
                source = f"default of {self.spec.data.name}"
            elif source == "default" and (
                self.spec.bank if first == "bank" else option in self.decided
            ):
                source = "named bank" if self.asked.named_bank else "newest bank"
            found[name] = source
        return found


def decide(asked: Asked) -> Plan:
    """Resolves all open options, by the data sets and banks that exist.

    Raises `UsageFailure` (exit code 2) for an impossible request, `InvalidInput` (3) for a bank
    that is missing or comes from another split, `MissingEnvironment` (4) for absent data.
    """
    if asked.seeds < 1:
        raise UsageFailure(f"--seeds must be at least 1, got {asked.seeds}")
    if asked.name is not None and not _names_a_folder(asked.name):
        raise UsageFailure(f"--name must name a folder below --out, got {asked.name!r}")
    # Before any data are loaded.
    version = recipe(asked.recipe or RunSpec.recipe).version
    for name in (asked.model, asked.teacher_model):
        models.require(name or RunSpec.model)
    asked, because, decided = _with_dataset(asked)
    assert asked.dataset is not None
    split = {name: getattr(asked, name) for name in _SPLIT}
    data = _loaded(asked.dataset, **split)
    bank, which = _bank(asked, data)
    spec = _spec(asked, data, bank, version)
    seeds = tuple(range(asked.seed, asked.seed + asked.seeds))
    smaller = _smaller_batch(asked.batch, len(data.train))
    why = tuple(text for text in (because, *data.notes, which, smaller) if text)
    return Plan(asked, spec, seeds, Path(asked.out), why, data, decided)


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
def _loaded(name: str, **split: Any) -> Dataset:
    """Loads the data set; a sweep asks for the same one many times."""
    return datasets.load(name, **split)


def expected(asked: Asked) -> dict[str, Any]:
    """Collects the settings of the requested run, as far as they are known without any data.

    By their names in `RunSpec` and `DataSpec`, without those that depend on data, bank or teacher.
    """
    own = {field.name: field.default for field in fields(RunSpec)}
    by_data = _BY_DATASET.get(asked.dataset or "", {})
    found: dict[str, Any] = {}
    for field in fields(Asked):
        value = getattr(asked, field.name)
        if field.name in own.keys() - {"bank", "teacher"}:
            default = by_data.get(field.name, own[field.name])
            found[field.name] = default if value is None else value
        elif field.name in _SPLIT and value is not None:
            found[f"data.{field.name}"] = value
    version = recipe(found["recipe"]).version
    return {**found, "recipe_version": version, "data.name": asked.dataset}


def _with_dataset(asked: Asked) -> tuple[Asked, str, tuple[str, ...]]:
    """Chooses the data set: as named, else the named bank's, the newest bank's, or digits.

    Returns the completed options, the reason, and the options that the bank decided.
    """
    if asked.dataset is not None:
        return asked, f"data set {asked.dataset}: as asked", ()
    if asked.named_bank is not None:
        bank = open_bank(bank_store.resolve(asked.named_bank), verify=False)
        facts, reason = bank.facts, f"that of bank {bank.key[:12]}"
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


def _bank(asked: Asked, data: Dataset) -> tuple[BankRef | None, str]:
    if asked.aug not in ARMS or not ARMS[asked.aug].bank:
        if asked.bank is not None:
            raise UsageFailure(
                f"--aug {asked.aug or 'none'} reads no bank, but --bank {asked.bank} was given",
                remedy="use --aug bank or --aug hybrid, or leave --bank out",
            )
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
    reason = f"the newest{kind} for this split"
    if asked.bank is None and fitting[0] != banks[0]:
        reason = "the newest of a mixing space for this split; controls are taken only by name"
    return _checked(fitting[0].folder, data, reason)


def _checked(folder: Path, data: Dataset, reason: str) -> tuple[BankRef, str]:
    """Opens a bank after the leak guard: its generator must have seen this training split only."""
    bank = open_bank(folder, verify=False)
    bank.require_split(data.split_id)
    text = f"bank {bank.key[:12]}: {reason} ({len(bank):,} rows, space {bank.space})"
    if bank.facts.get("generator_imported"):
        text += "; its generator was imported, and only declared to be of this split"
    return bank_reference(folder), text


def _missing_bank(data: Dataset, asked: Asked, kind: str) -> InvalidInput:
    """Makes the error for a run without a fitting bank, with the command that makes one."""
    remedy = f"make one: {_generate(data, bank_store.space_named(asked.bank))}"
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


def _spec(asked: Asked, data: Dataset, bank: BankRef | None, version: int) -> RunSpec:
    own = {field.name for field in fields(RunSpec)}
    said = {
        field.name: getattr(asked, field.name)
        for field in fields(Asked)
        if field.name in own - {"bank", "teacher"} and getattr(asked, field.name) is not None
    }
    part = DataSpec(
        name=data.name,
        imbalance=None if data.imbalance is None else float(data.imbalance),
        profile=data.profile,
        split_seed=data.split_seed,
        drop_overlap=asked.drop_overlap,
        val_per_class=asked.val_per_class,
    )
    defaults = _BY_DATASET.get(data.name, {})
    votes = {} if asked.views is None else {"votes": VoteSpec(views=asked.views)}
    teacher = teacher_reference(Path(asked.teacher)) if asked.teacher else None
    batch = fitting_batch(asked.batch, len(data.train))
    own_settings = {**defaults, **said, **votes, "batch": batch}
    return RunSpec(data=part, bank=bank, teacher=teacher, recipe_version=version, **own_settings)
