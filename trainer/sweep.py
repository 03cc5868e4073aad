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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylegan_mix import output
from stylegan_mix.banks import store as bank_store
from stylegan_mix.console import read_toml
from stylegan_mix.errors import InvalidInput, MissingEnvironment, UsageFailure, nearest
from trainer.differences import flat
from trainer.plan import Asked, Plan, decide, expected, fitting_batch
from trainer.reports.records import Result, small
from trainer.spec import BankRef

__all__ = ["Settled", "expand", "file_name", "keep", "load", "settle"]

_TOP = ("about", "base", "runs")
_PLACE = {"out", "name", "seed"}


def load(path: Path) -> list[Asked]:
    """Reads a sweep file and expands it; `UsageFailure` (exit code 2) names the fault."""
    return expand(read_toml(path, "sweep file"), str(path))


def expand(table: Mapping[str, Any], where: str) -> list[Asked]:
    """Expands a sweep into runs: experiments in the order of the file, seeds together.

    Raises `UsageFailure` (exit code 2) for unknown names, values of another type, and a repeated
    run.
    """
    for name in table:
        if name not in _TOP:
            raise UsageFailure(f"{where}: no entry '{name}'{nearest(name, _TOP)}")
    base, runs = table.get("base", {}), table.get("runs", [])
    if not isinstance(base, dict) or not isinstance(runs, list) or not runs:
        raise UsageFailure(f"{where}: expected a table [base] and at least one table [[runs]]")
    items: list[Asked] = []
    for number, run in enumerate(runs, start=1):
        place = f"{where}, [[runs]] number {number}"
        if not isinstance(run, dict):
            raise UsageFailure(f"{place} is not a table")
        # A list in [base] spans the grid as one in [[runs]] does.
        items += _grid({**base, **run}, place)
    twice = [item for index, item in enumerate(items) if item in items[:index]]
    if twice:
        raise UsageFailure(f"{where}: the same run stands there twice: {twice[0].command()}")
    return items


def _grid(run: Mapping[str, Any], where: str) -> list[Asked]:
    settings = {key.replace("-", "_"): value for key, value in run.items()}
    for name in _PLACE & set(settings):
        raise UsageFailure(
            f"{where}: '{name}' is the sweep's own business",
            remedy="give seeds = 3 or seeds = [0, 1, 2]; run folders are named by their settings",
        )
    seeds = _seeds(settings.pop("seeds", 1), where)
    spans = [value if isinstance(value, list) else [value] for value in settings.values()]
    items = []
    for values in itertools.product(*spans):
        asked = Asked.from_table(dict(zip(settings, values, strict=True)), where)
        if asked.dataset is None:
            raise UsageFailure(f"{where}: 'dataset' is missing; a sweep names its data set")
        items += [replace(asked, seed=seed) for seed in seeds]
    return items


def _seeds(value: Any, where: str) -> list[int]:
    seeds = list(range(value)) if type(value) is int else value
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds:
        raise UsageFailure(f"{where}: 'seeds' must be a number or a list of seeds, got {value!r}")
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
    committed result of the same settings and kind of bank counts. Raises the errors of `decide` for
    a run that can be neither found nor run.
    """
    settled = []
    for asked in items:
        try:
            plan = decide(replace(asked, out=out))
        except (InvalidInput, MissingEnvironment) as error:
            found = next((one for one in known if _alike(one, asked)), None)
            if found is None:
                raise
            settled.append(Settled(asked, found, None, f"by its settings ({error})"))
            continue
        found = next((one for one in known if _same(one, plan)), None)
        settled.append(Settled(asked, found, None if found else plan, "by its configuration"))
    return settled


def _same(result: Result, plan: Plan) -> bool:
    return (
        result.seed == plan.spec.seed
        and result.key == plan.spec.key
        and result.dataset["split_id"] == plan.data.split_id
    )


def _alike(result: Result, asked: Asked) -> bool:
    """Tells if a result has all requested settings, and defaults for the others."""
    actual = flat(result.spec.plain())
    batch = fitting_batch(asked.batch, result.dataset["train_images"])
    wanted = {**expected(asked), "batch": batch}
    if any(actual[name] != value for name, value in wanted.items()):
        return False
    votes, teacher = result.spec.votes, result.spec.teacher
    if asked.views not in (None, votes.views) or (asked.teacher is None) != (teacher is None):
        return False
    return result.spec.bank is None or _right_bank(result.spec.bank, asked.bank)


def _right_bank(bank: BankRef, wanted: str | None) -> bool:
    if wanted is None:
        return not bank.control
    space = bank_store.space_named(wanted)
    return bank.space == space if space else bank.key.startswith(wanted)


def keep(result: Result, folder: Path) -> Path:
    """Writes the result into a folder of committed results, without its bulky parts."""
    record = small(result.record)
    path = folder / file_name(result)
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    output.write_text(path, text, elsewhere="choose another folder with --results")
    return path


def file_name(result: Result) -> str:
    """Names the file of a committed result: data, method, network, key, seed."""
    words = [result.dataset["name"], result.recipe, result.arm, result.model, result.key]
    return f"{'-'.join(words)}-seed{result.seed}.json"
