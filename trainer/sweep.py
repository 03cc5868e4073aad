"""A TOML file of experiments, expanded into explicit runs without those that have a result.

about = "the arms on digits"          # a line for people

[base]                                # options of `trainer run`, for every experiment
dataset = "digits_lt"
seeds = 3                             # or a list of seeds

[[runs]]                              # a list as a value: one experiment for each of its values
aug = ["none", "mixup", "bank", "hybrid"]

[[runs]]
aug = "hybrid"
bank = ["unmixed", "pixel"]
"""

from __future__ import annotations

import itertools
import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylegan_mix import output, store
from stylegan_mix.banks import store as bank_store
from stylegan_mix.console import read_toml
from stylegan_mix.errors import (
    Failure,
    InvalidInput,
    MissingEnvironment,
    UsageFailure,
    nearest,
)
from trainer import choices
from trainer.asked import SPLIT, Asked
from trainer.differences import flat
from trainer.engine.arms import ARMS
from trainer.plan import Plan, decide, expected, fitting_batch, requested
from trainer.reports.records import Result, data_ids, is_of, read, small
from trainer.settings import unread_options
from trainer.spec import LOOP_VERSION, BankRef, RunSpec

__all__ = ["Settled", "check_place", "commands", "expand", "file_name", "keep", "load", "settle"]

_ELSEWHERE = "choose another folder with --results"
_TOP = ("about", "base", "runs")
_PLACE = {"out", "name", "seed"}
# Runs of one file: more are a mistake, and take memory before anything is said.
_MOST_RUNS = 10_000


def load(path: Path) -> list[Asked]:
    """Reads a sweep file and expands it; `UsageFailure` (exit code 2) names the fault."""
    return expand(read_toml(path, "sweep file"), str(path))


def expand(table: Mapping[str, Any], where: str) -> list[Asked]:
    """Expands a sweep into runs: experiments in the order of the file, seeds together.

    A setting that only some arms and recipes of a table read is left out for the others. Raises
    `UsageFailure` (exit code 2) for unknown names, values of another type, a repeated run, and a
    setting that no run reads.
    """
    for name in table:
        if name not in _TOP:
            raise UsageFailure(f"{where}: no entry '{name}'{nearest(name, _TOP)}")
    base, runs = table.get("base", {}), table.get("runs", [])
    if not isinstance(base, dict) or not isinstance(runs, list) or not runs:
        raise UsageFailure(f"{where}: expected a table [base] and at least one table [[runs]]")
    items: list[Asked] = []
    idle = _options(base)
    for number, run in enumerate(runs, start=1):
        place = f"{where}, [[runs]] number {number}"
        if not isinstance(run, dict):
            raise UsageFailure(f"{place} is not a table")
        # A list in [base] spans the grid as one in [[runs]] does.
        found, read = _grid({**base, **run}, place)
        _require_read(_options(run) - read, place)
        items += found
        idle -= read | _options(run)
    _require_read(idle, f"{where}, [base]")
    twice = [item for index, item in enumerate(items) if item in items[:index]]
    if twice:
        raise UsageFailure(f"{where}: the same run stands there twice: {twice[0].command()}")
    return items


def _options(table: Mapping[str, Any]) -> set[str]:
    """Lists the options of `trainer run` that a table names."""
    return {key.replace("-", "_") for key in table} - {"seeds"}


def _require_read(idle: set[str], where: str) -> None:
    """Raises `UsageFailure` (exit code 2) for options that no run of a table reads."""
    if idle:
        names = ", ".join(f"'{name}'" for name in sorted(idle))
        raise UsageFailure(
            f"{where}: no run there reads {names}",
            remedy="leave it out, or add an arm or a recipe that reads it",
        )


def _grid(run: Mapping[str, Any], where: str) -> tuple[list[Asked], set[str]]:
    """Expands a table into its runs; also returns the options that at least one of them reads."""
    settings = {key.replace("-", "_"): value for key, value in run.items()}
    for name in _PLACE & set(settings):
        raise UsageFailure(
            f"{where}: '{name}' is the sweep's own business",
            remedy="give seeds = 3 or seeds = [0, 1, 2]; run folders are named by their settings",
        )
    seeds = _seeds(settings.pop("seeds", 1), where)
    spans = [value if isinstance(value, list) else [value] for value in settings.values()]
    count = math.prod(map(len, spans)) * len(seeds)
    if count > _MOST_RUNS:
        raise UsageFailure(
            f"{where}: its lists span {count:,} runs; at most {_MOST_RUNS:,} are taken",
            remedy="shorten the lists, or write several sweep files",
        )
    items: dict[Asked, None] = {}  # in order; runs are equal once unread settings are left out
    read: set[str] = set()
    for values in itertools.product(*spans):
        asked = Asked.from_table(dict(zip(settings, values, strict=True)), where)
        if asked.dataset is None:
            raise UsageFailure(f"{where}: 'dataset' is missing; a sweep names its data set")
        gone = unread_options(vars(asked))
        read |= set(settings) - gone
        asked = Asked(**{**vars(asked), **dict.fromkeys(gone)})
        items |= dict.fromkeys(replace(asked, seed=seed) for seed in seeds)
    return list(items), read


def _seeds(value: Any, where: str) -> list[int]:
    few = type(value) is int and value <= _MOST_RUNS
    seeds = list(range(value)) if few else value
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds:
        raise UsageFailure(
            f"{where}: 'seeds' must be a number or a list of seeds, at most {_MOST_RUNS:,}, "
            f"got {value!r:.40}"
        )
    return seeds


@dataclass(frozen=True)
class Settled:
    """A run of a sweep: its existing result and the way it was recognised, or its plan."""

    asked: Asked
    found: Result | None
    plan: Plan | None
    why: str


def settle(items: Iterable[Asked], known: Sequence[Result], *, out: str) -> list[Settled]:
    """Decides for each run if a result exists or what is to be run.

    If data set and bank are in the store, a result must be of exactly this configuration: the same
    split and bank by content. If they are not (a fresh clone that only asks for missing results), a
    committed result of the same settings and kind of bank counts. A bank that the file leaves open
    is that of the sweep's runs and results so far, so a newer one changes nothing. Raises the
    errors of `decide` for a run that can be neither found nor run.
    """
    items = list(items)
    banks = _Banks(items, known, Path(out))
    return [_settle_one(asked, known, banks, out) for asked in items]


def _settle_one(asked: Asked, known: Sequence[Result], banks: _Banks, out: str) -> Settled:
    try:
        plan = decide(replace(asked, out=out), preferred=banks.of(asked))
    except (InvalidInput, MissingEnvironment) as error:
        found = next((one for one in known if _alike(one, asked)), None)
        if found is None:
            raise
        return Settled(asked, found, None, f"by its settings ({error})")
    found = next((one for one in known if _same(one, plan)), None)
    return Settled(asked, found, None if found else plan, "by its configuration")


def commands(items: Iterable[Asked], known: Sequence[Result], *, out: str) -> list[str]:
    """Composes the command of every run; it names a bank that the file leaves open, if one exists.

    So jobs that begin at different times read one bank, and write below `out`.
    """
    items = list(items)
    banks = _Banks(items, known, Path(out))
    place = [] if out == Asked.out else ["--out", out]
    found = (_with_bank(asked, known, banks, out) for asked in items)
    return [shlex.join([*one.words(), *place]) for one in found]


def _with_bank(asked: Asked, known: Sequence[Result], banks: _Banks, out: str) -> Asked:
    """Names the bank that a run would take now, if it leaves one open and there is one."""
    if not _leaves_bank_open(asked):
        return asked
    try:
        one = _settle_one(asked, known, banks, out)
    except Failure:  # it is made later, or on another machine
        return asked
    bank = one.plan.spec.bank if one.plan else one.found and one.found.spec.bank
    return asked if bank is None else replace(asked, bank=bank.key[:12])


class _Banks:
    """The banks that a sweep's runs and results have, where its file leaves the bank open.

    All runs of one data set that ask for one kind of bank share a bank.
    """

    def __init__(self, items: Sequence[Asked], known: Sequence[Result], out: Path) -> None:
        self._known = [one for one in known if one.spec.bank is not None]
        self._begun: dict[tuple[Any, ...], Counter[str]] = {}
        for asked in filter(_leaves_bank_open, items):
            begun = self._begun.setdefault(_kind(asked), Counter())
            choice = choices.recall(out, requested(asked))
            begun.update([choice.bank] if choice and choice.bank else [])

    def of(self, asked: Asked) -> list[str]:
        """Lists keys of banks for a run, the best first; none where the run leaves none open."""
        if not _leaves_bank_open(asked):
            return []
        own = [one for one in self._known if _alike(one, replace(asked, seed=one.seed))]
        kin = [one for one in self._known if self._is_kin(one, asked)]
        begun = self._begun.get(_kind(asked), Counter())
        ranked = (Counter(map(_bank_key, own)), begun, Counter(map(_bank_key, kin)))
        return [key for counted in ranked for key, _ in counted.most_common()]

    def _is_kin(self, result: Result, asked: Asked) -> bool:
        bank = result.spec.bank
        same_data = result.dataset["name"] == asked.dataset
        return same_data and bank is not None and _right_bank(bank, asked.bank)


def _leaves_bank_open(asked: Asked) -> bool:
    arm = ARMS.get(asked.aug or RunSpec.aug)
    return arm is not None and arm.bank and asked.named_bank is None


def _kind(asked: Asked) -> tuple[Any, ...]:
    """Names the data set and the kind of bank of a run, which decide its bank."""
    space = bank_store.space_named(asked.bank) or asked.bank
    return (space, *(getattr(asked, name) for name in ("dataset", *SPLIT)))


def _bank_key(result: Result) -> str:
    return result.spec.bank.key if result.spec.bank else ""


def _same(result: Result, plan: Plan) -> bool:
    return (
        result.seed == plan.spec.seed
        and result.key == plan.spec.key
        and is_of(result, (plan.data.split_id, plan.data.test_id, plan.data.val_id))
    )


def _alike(result: Result, asked: Asked) -> bool:
    """Tells if a result has all requested settings, and defaults for the others."""
    if result.spec.recipe != (asked.recipe or RunSpec.recipe):
        return False  # told quickly, as most of many results are
    actual = flat(result.spec.plain())
    if result.spec.depends_on_loop and result.spec.loop_version != LOOP_VERSION:
        return False
    batch = fitting_batch(asked.batch, result.dataset["train_images"])
    wanted = {**expected(asked), "batch": batch}
    if any(actual[name] != value for name, value in wanted.items()):
        return False
    votes, teacher = result.spec.votes, result.spec.teacher
    if asked.views not in (None, votes.views) or (asked.teacher is None) != (teacher is None):
        return False
    accept, label = result.spec.accept, result.spec.label
    if asked.accepted != (accept and accept.rule):
        return False
    if asked.judge_share != (label and label.judge_share):
        return False
    return result.spec.bank is None or _right_bank(result.spec.bank, asked.bank)


def _right_bank(bank: BankRef, wanted: str | None) -> bool:
    if wanted is None:
        return not bank.control
    space = bank_store.space_named(wanted)
    return bank.space == space if space else bank.key.startswith(wanted)


def check_place(folder: Path | None) -> None:
    """Raises the errors of `keep` that can be foreseen; for before the first run."""
    if folder is not None:
        output.check(folder / "result.json", elsewhere=_ELSEWHERE)


def keep(result: Result, folder: Path) -> Path:
    """Writes the result into a folder of committed results, without its bulky parts.

    A result of the same run on other images is not overwritten: the file name then ends with the
    beginning of a hash of the images.
    """
    record = small(result.record)
    path = folder / file_name(result)
    if path.exists() and data_ids(read(path)) != data_ids(result):
        path = path.with_stem(f"{path.stem}-data{store.digest(data_ids(result))[:8]}")
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    output.write_text(path, text, elsewhere=_ELSEWHERE)
    return path


def file_name(result: Result) -> str:
    """Names the file of a committed result: data, method, network, key, seed."""
    words = [result.dataset["name"], result.recipe, result.arm, result.model, result.key]
    return f"{'-'.join(words)}-seed{result.seed}.json"
