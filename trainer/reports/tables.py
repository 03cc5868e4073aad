"""Tables of results: one row an experiment, mean and spread over its seeds; no torch.

Only results of the same data, split and budget share a table. Settings in which its rows differ
beyond arm, recipe and model stand in a column. The accuracy is that of the last epoch. The best
epoch on the test part ("test oracle") is shown on demand and selects nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stylegan_mix import columns
from stylegan_mix.errors import InvalidInput
from stylegan_mix.showing import for_markdown
from trainer.differences import flat
from trainer.engine.arms import ARMS
from trainer.reports import figures, notes
from trainer.reports.records import Result

__all__ = [
    "Row",
    "Spread",
    "Table",
    "markdown_rows",
    "markdown_table",
    "plain",
    "seed_table",
    "spread",
    "tables",
    "text_table",
]

# Settings that other columns show, and those that only bank and teacher have.
_IN_COLUMNS = {"aug", "recipe", "model", "seed"}
# Settings that the name of an arm tells whole, and references.
_IN_ARMS = {
    *("accept", "augment", "bank", "bank_schedule", "fair", "label", "mix_bank_real", "teacher")
}
_OF_BANK = {
    "n": "rows",
    "alpha": "alpha",
    "generator": "generator",
    "generator_kimg": "generator's thousand images",
}
# A fact that only rows of one arm or recipe are compared in; its name begins with that.
_OWN = re.compile(r"^.*: ")


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1 in its denominator; None for one value) of n values."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.sd is None else f"{self.mean:.1f} ± {self.sd:.1f}"


def spread(values: Iterable[float | None]) -> Spread | None:
    """Computes the spread of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Spread(mean, None, 1)
    squares = math.fsum((value - mean) ** 2 for value in known)
    return Spread(mean, math.sqrt(squares / (len(known) - 1)), len(known))


@dataclass(frozen=True)
class Row:
    """The runs of one experiment, by seed.

    `setting` names its difference from other rows. `with_model` is true if arm, recipe and setting
    are also those of a row with another network.
    """

    results: tuple[Result, ...]
    setting: str = ""
    with_model: bool = False

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def name(self) -> str:
        """The name in a legend: arm and recipe, and the setting if there is one."""
        words = [self.first.arm, "" if self.first.recipe == "ce" else self.first.recipe]
        words.append(self.first.model if self.with_model else "")
        name = " ".join(word for word in words if word)
        return f"{name}, {self.setting}" if self.setting else name

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(result.seed for result in self.results)

    def accuracy(self, figure: str) -> Spread | None:
        """Spreads a figure of the last epoch over the seeds; see `figures.FIGURES`."""
        return spread(result.accuracy(figure) for result in self.results)

    def oracle(self) -> Spread | None:
        """Spreads the accuracy of the best epoch on the test part: never a result."""
        return spread(result.record["test_oracle"]["overall"] for result in self.results)

    def per_class(self) -> list[Spread | None]:
        """Spreads the accuracy of each class over the seeds."""
        columns = zip(*(result.per_class for result in self.results), strict=True)
        return [spread(column) for column in columns]


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: same data, split and budget.

    `mark` tells it from another table of the same data set, imbalance and epochs.
    """

    rows: tuple[Row, ...]
    mark: str = ""

    @property
    def first(self) -> Result:
        return self.rows[0].first

    @property
    def results(self) -> list[Result]:
        return [result for row in self.rows for result in row.results]

    @property
    def title(self) -> str:
        data = self.first.dataset
        factor = "" if data["imbalance"] is None else f", imbalance {data['imbalance']:g}"
        epochs = notes.counted(self.first.budget["epochs"], "epoch")
        return ", ".join([f"{data['name']}{factor}", epochs, *([self.mark] if self.mark else [])])

    @property
    def settings(self) -> bool:
        """True if any row needs the column that names settings."""
        return any(row.setting for row in self.rows)

    @property
    def steps_differ(self) -> bool:
        """True if its recipes take different numbers of steps."""
        return len({result.budget["steps"] for result in self.results}) > 1

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that its columns show."""
        return figures.shown(self.results)

    def notes(self) -> list[str]:
        """Lists the facts that a reader needs to trust the table, a sentence each."""
        return notes.of(self.results)


def tables(results: Sequence[Result]) -> list[Table]:
    """Groups results into tables, by data, split and budget, and rows by equal configuration."""
    if not results:
        raise InvalidInput(
            "there is no finished run to report",
            remedy="trainer run --aug hybrid makes one; give the folders to look in as arguments",
        )
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(repr(comparable(result)), []).append(result)
    return _marked([_table(grouped[key]) for key in sorted(grouped)])


def _marked(found: list[Table]) -> list[Table]:
    """Gives tables that would have one title the facts in which they differ."""
    by_title: dict[str, list[Table]] = {}
    for table in found:
        by_title.setdefault(table.title, []).append(table)
    marks: dict[int, str] = {}
    for same in by_title.values():
        facts = [comparable(table.first) for table in same]
        differing = [name for name in facts[0] if len({repr(one[name]) for one in facts}) > 1]
        for table, one in zip(same, facts, strict=True):
            marks[id(table)] = ", ".join(f"{_plain_name(n)} {_brief(one[n])}" for n in differing)
    return [replace(table, mark=marks[id(table)]) for table in found]


def _plain_name(name: str) -> str:
    return name.rpartition(".")[2].removesuffix("_id").replace("_", " ")


def comparable(result: Result) -> dict[str, Any]:
    """Lists the facts that two results must share before they are compared."""
    data, budget = result.dataset, result.budget
    names = ("name", "profile", "imbalance", "split_seed", "split_id", "test_id")
    return {
        **{f"dataset.{name}": data[name] for name in (*names, "dropped_overlap")},
        "dataset.groups": data["groups"]["rule"],
        **{f"budget.{name}": budget[name] for name in ("epochs", "batch", "lr", "precision")},
    }


def _table(results: list[Result]) -> Table:
    by_key: dict[tuple[str, str | None], list[Result]] = {}
    for result in results:
        # Other validation images are another experiment.
        by_key.setdefault((result.key, result.dataset.get("val_id")), []).append(result)
    groups = sorted(by_key.values(), key=lambda group: _order(group[0]))
    settings = _settings([group[0] for group in groups])
    names = [
        (group[0].arm, group[0].recipe, setting)
        for group, setting in zip(groups, settings, strict=True)
    ]
    rows = [
        Row(tuple(sorted(group, key=lambda one: one.seed)), name[2], names.count(name) > 1)
        for group, name in zip(groups, names, strict=True)
    ]
    return Table(tuple(rows))


def _order(result: Result) -> tuple[Any, ...]:
    aug = result.record["aug"]
    place = list(ARMS).index(aug) if aug in ARMS else len(ARMS)
    recipe = ("" if result.recipe == "ce" else result.recipe, result.model)
    return (*recipe, result.arm != aug, place, result.arm, result.key)


def _settings(firsts: list[Result]) -> list[str]:
    """Lists, for each experiment, the settings in which the experiments differ, as text."""
    each = [_told(result) for result in firsts]
    known = {name for told in each for name in told}
    names = sorted(known, key=lambda name: (_OWN.sub("", name), name))
    varying = [
        name for name in names if len({repr(told[name]) for told in each if name in told}) > 1
    ]
    return [
        ", ".join(f"{_OWN.sub('', name)} {_brief(told[name])}" for name in varying if name in told)
        for told in each
    ]


def _told(result: Result) -> dict[str, Any]:
    """Lists settings that no column shows; those of a bank only if there is one.

    Two arms with banks of different spaces differ in the arm; two banks of one arm in their key.
    """
    config = {
        name: value
        for name, value in result.spec.identity().items()
        if name not in {*_IN_COLUMNS, *_IN_ARMS}
    }
    told = {name: value for name, value in flat(config).items() if not isinstance(value, list)}
    told.update({name: str(value) for name, value in flat(config).items() if name not in told})
    told.update(result.spec.versions)
    bank, teacher = result.record["bank"], result.spec.teacher
    if bank:
        told[f"{result.arm}: bank"] = str(bank["key"])[:8]
        judged = result.spec.accept or result.spec.label
        if judged:
            told[f"{result.arm}: judged"] = judged.content_sha256[:8]
        for name, words in _OF_BANK.items():
            if bank.get(name) is not None:
                told[f"bank {words}"] = bank[name]
        told["bank policy"] = bank.get("policy", "uniform")
    if teacher:
        told[f"{result.recipe}: teacher"] = teacher.sha256[:8]
    return told


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:12] if " " not in str(value) else str(value)


# Renderings


def cells(table: Table, *, oracle: bool = False) -> tuple[list[str], list[list[str]]]:
    """Renders header and rows of a table as text."""
    head = ["arm", "recipe", "model"]
    head += ["settings"] * table.settings + ["steps"] * table.steps_differ
    head += ["n", *(figures.heading(name, table.results) for name in table.figures)]
    head += ["best epoch (test oracle), overall"] * oracle
    lines = []
    for row in table.rows:
        line = [row.first.arm, row.first.recipe, row.first.model]
        line += [row.setting] * table.settings
        line += [f"{row.first.budget['steps']:,}"] * table.steps_differ
        line += [str(len(row.results)), *(_shown(row.accuracy(name)) for name in table.figures)]
        line += [_shown(row.oracle())] * oracle
        lines.append(line)
    return head, lines


def _shown(value: Spread | None) -> str:
    return "n/a" if value is None else str(value)


def text_table(found: Sequence[Table], *, oracle: bool = False) -> str:
    """Renders tables for a terminal, each with its notes."""
    parts = []
    for table in found:
        head, lines = cells(table, oracle=oracle)
        parts.append("\n".join([table.title, "", *aligned([head, *lines]), "", *table.notes()]))
    return "\n\n\n".join(parts)


def seed_table(results: Sequence[Result]) -> str:
    """Renders the runs of one experiment, a line a seed, and their mean and spread."""
    first, names = results[0], figures.shown(results)
    headings = [figures.heading(name, results) for name in names]
    lines = [["arm", "recipe", "model", "seed", "n", *headings]]
    head = [first.arm, first.recipe, first.model]
    for result in results:
        values = (spread([result.accuracy(name)]) for name in names)
        lines.append([*head, str(result.seed), "1", *map(_shown, values)])
    if len(results) > 1:
        row = Row(tuple(results))
        values = (row.accuracy(name) for name in names)
        lines.append([*head, "all", str(len(results)), *map(_shown, values)])
    return "\n".join(aligned(lines))


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Aligns lines of cells in columns; the columns from "n" on are aligned right."""
    left = lines[0].index("n") if "n" in lines[0] else 1
    return columns.aligned(lines, right=range(left, len(lines[0])))


def markdown_table(results: Sequence[Result], *, oracle: bool = False) -> str:
    """Renders results as Markdown: a table with its notes for each comparable set."""
    parts = []
    for table in tables(results):
        head, lines = cells(table, oracle=oracle)
        rows = markdown_rows(head, lines, left=head.index("n"))
        parts.append(
            "\n".join([f"**{for_markdown(table.title)}**", "", *rows, "", *_quoted(table.notes())])
        )
    return "\n\n".join(parts)


def markdown_rows(head: Sequence[str], lines: Iterable[Sequence[str]], *, left: int) -> list[str]:
    """Renders the lines of a Markdown table; its first `left` columns stand left, others right."""
    rule = ["---" if index < left else "---:" for index in range(len(head))]
    told = [head, *lines]
    head, *lines = ([for_markdown(cell) for cell in line] for line in told)
    return [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]


def _quoted(notes: Sequence[str]) -> list[str]:
    # A star would open emphasis.
    return [f"- {for_markdown(note)}".replace("*-", "\\*-") for note in notes]


def plain(results: Sequence[Result]) -> dict[str, Any]:
    """Returns the report as JSON values; names are stable within schema `trainer-report/1`."""
    return {"schema": "trainer-report/1", "tables": [_plain(table) for table in tables(results)]}


def _plain(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "comparable": comparable(table.first),
        "classes": table.first.dataset["classes"],
        "counts": table.first.dataset["counts"],
        "groups": table.first.dataset["groups"],
        "figures": list(table.figures),
        "overlap": table.first.dataset["overlap"],
        "notes": table.notes(),
        "rows": [_plain_row(row) for row in table.rows],
    }


def _plain_row(row: Row) -> dict[str, Any]:
    record = row.first.record
    return {
        **{name: record[name] for name in ("arm", "recipe", "model", "bank", "teacher")},
        "setting": row.setting,
        "fair": row.first.spec.fairness,
        "key": row.first.key,
        "steps": record["budget"]["steps"],
        "n": len(row.results),
        "seeds": list(row.seeds),
        "accuracy": {name: _numbers(row.accuracy(name)) for name in figures.FIGURES},
        "test_oracle": _numbers(row.oracle()),
        "per_class": [_numbers(value) for value in row.per_class()],
        "commands": [result.command for result in row.results],
    }


def _numbers(value: Spread | None) -> dict[str, Any] | None:
    return None if value is None else {"mean": value.mean, "sd": value.sd}
