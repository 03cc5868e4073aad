"""The report: plain data, and the same as a table on the terminal or in Markdown; no torch.

`S` seeds. Every cell holds a value, its standard deviation over several seeds, and its floor, the
value of real images. None is printed as n/a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stylegan_mix import columns
from stylegan_mix.datasets.records import draw_name

__all__ = [
    "FIGURES",
    "SCHEMA_VERSION",
    "cells",
    "chosen_by",
    "hashes",
    "heading_lines",
    "markdown",
    "notes",
    "packed",
    "tables",
    "text_lines",
    "unpacked",
]

SCHEMA_VERSION = 2
MOST_CLASSES_SHOWN = 20

FIGURES = {
    "frechet": ("FD-{space}", "lower"),
    "kernel": ("KD-{space}", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "label_accuracy": ("label accuracy", "higher"),
    "cas": ("CAS", "higher"),
    "diversity": ("diversity", "near 1"),
    "memorisation": ("memorisation", "near 1"),
    "copies": ("near copies", "near floor"),
    "memorisation_pixels": ("memorisation, pixels", "near 1"),
    "copies_pixels": ("near copies, pixels", "near floor"),
}
"""Each figure's name in tables, and its best value."""

_PERCENT = ("label_accuracy", "cas", "copies", "copies_pixels")
_BY_CLASS = ("frechet", "kernel", "precision", "recall", "coverage")
_BY_CLASS_ALONE = ("label_accuracy", "cas", "diversity", "memorisation", "copies")

# Parts of a cell; only the kernel distance has an error, that of the jackknife.
_PARTS = ("value", "std", "floor", "error")

Values = Mapping[str, Sequence[float | None]]


def cells(runs: Sequence[Mapping[str, Values]], floors: Mapping[str, Values]) -> list[dict]:
    """Makes the rows of a report from figures of S seeds, by reference and name, and floors.

    A row is one figure against one reference (None for those without), a cell for every scope.
    """
    rows = []
    for against, values in runs[0].items():
        for name in FIGURES:
            if name not in values:
                continue
            seeds = [run[against][name] for run in runs]
            floor = floors.get(against, {}).get(name) or [None] * len(seeds[0])
            row = [
                _cell([seed[scope] for seed in seeds], floor[scope])
                for scope in range(len(seeds[0]))
            ]
            if name == "kernel":
                errors = [run[against]["kernel_error"] for run in runs]
                for scope, cell in enumerate(row):
                    cell["error"] = _mean([error[scope] for error in errors])
            better = FIGURES[name][1]
            rows.append({"figure": name, "against": against or None, "better": better, "at": row})
    return rows


def packed(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Splits rows of a report into their names, and all their cells as arrays [rows, scopes].

    NaN stands for None. A manifest with the cells of some thousand classes would be too long to
    read.
    """
    named = [{name: value for name, value in row.items() if name != "at"} for row in rows]
    cells = {
        f"figure_{part}": np.array(
            [[cell.get(part) for cell in row["at"]] for row in rows], dtype=np.float64
        )
        for part in _PARTS
    }
    return named, cells


def unpacked(
    named: Sequence[Mapping[str, Any]], cells: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Restores the rows of a report from the parts of `packed`."""
    rows = []
    for i, name in enumerate(named):
        parts = [part for part in _PARTS if part != "error" or name["figure"] == "kernel"]
        columns = [_plain(cells[f"figure_{part}"][i]) for part in parts]
        at = [dict(zip(parts, values, strict=True)) for values in zip(*columns, strict=True)]
        rows.append({**name, "at": at})
    return rows


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _cell(values: Sequence[float | None], floor: float | None) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    several = len(known) == len(values) > 1
    return {
        "value": _mean(values),
        "std": float(np.std(known, ddof=1)) if several else None,
        "floor": floor,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def chosen_by(rows: Sequence[Mapping[str, Any]], classes: int) -> dict[str, Any]:
    """Selects the figure to choose checkpoints by; it uses the training part and nothing else.

    It is the mean over classes of the kernel distance to the class's training images; None if a
    class has none.
    """
    values: list[float | None] = [None]
    for row in rows:
        if (row["figure"], row["against"]) == ("kernel", "train"):
            values = [cell["value"] for cell in row["at"][-classes:]]
    what = "class mean of the kernel distance to the training part; no test image is in it"
    return {"figure": what, "better": "lower", "value": _mean(values)}


# Tables


def tables(report: Mapping[str, Any], *, every_class: bool) -> list[tuple[str, list[list[str]]]]:
    """Makes each table: (title, rows of cells, head first); [floor] stands beside the values."""
    scopes, classes = report["scopes"], len(report["classes"])
    groups = scopes[: len(scopes) - classes]
    found = []
    for against in dict.fromkeys(row["against"] for row in report["figures"]):
        rows = [row for row in report["figures"] if row["against"] == against]
        body = [
            [
                _title(row, report),
                *(_text(row["figure"], cell) for cell in row["at"][: len(groups)]),
            ]
            for row in rows
        ]
        found.append((_heading(against, report), [["", *groups], *body]))
    if every_class or classes <= MOST_CLASSES_SHOWN:
        found.append(_class_table(report))
    return found


def _heading(against: str | None, report: Mapping[str, Any]) -> str:
    if against is None:
        return "without a reference (all and groups: means over the classes)"
    facts = report["references"][against]
    floor = facts["floor"]
    says = f"floor: {floor}" if floor else "no floor without the test part"
    return f"against {against}: {facts['images']:,} real images ({says})"


def _class_table(report: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
    present = [name for name, facts in report["references"].items() if "images" in facts]
    against = "test" if "test" in present else present[-1]
    chosen = [
        row
        for row in report["figures"]
        if (row["against"] == against and row["figure"] in _BY_CLASS)
        or (row["against"] is None and row["figure"] in _BY_CLASS_ALONE)
    ]
    classes = report["classes"]
    start = len(report["scopes"]) - len(classes)
    head = ["class", "train images", *(_title(row, report) for row in chosen)]
    body = [
        [
            name,
            f"{report['counts'][c]:,}",
            *(_text(row["figure"], row["at"][start + c]) for row in chosen),
        ]
        for c, name in enumerate(classes)
    ]
    return f"class by class, distances and neighbours against {against}", [head, *body]


def _title(row: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    unit = " %" if row["figure"] in _PERCENT else ""
    return FIGURES[row["figure"]][0].format(space=report["features"]["name"]) + unit


def _text(figure: str, cell: Mapping[str, float | None]) -> str:
    value = _number(figure, cell["value"])
    spread = cell["std"] if cell["std"] is not None else cell.get("error")
    if spread is not None and value != "n/a":
        value += f"±{_number(figure, spread)}"
    return f"{value} [{_number(figure, cell['floor'])}]"


def _number(figure: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    if figure in _PERCENT:
        return f"{100 * value:.1f}"
    return f"{value:.3g}" if figure in ("frechet", "kernel") else f"{value:.2f}"


def heading_lines(report: Mapping[str, Any]) -> list[str]:
    """Lists the judged subject and its judges, with every hash."""
    subject, samples, features = report["subject"], report["samples"], report["features"]
    seeds = ", ".join(str(seed) for seed in samples["seeds"])
    drawn = f"{draw_name(report['imbalance'])}, split {report['split_id'][:12]}"
    of_what = f"{report['dataset']} ({drawn}"
    space = f"{features['name']}, SHA-256 {features['sha256'][:12]}, {features['width']} numbers"
    spread = "over seeds" if len(samples["seeds"]) > 1 else "of the jackknife (KD)"
    return [
        f"{_named(subject)} of {of_what}, test {report['test_id'][:12]})",
        f"{samples['n']:,} samples a seed, labels {samples['labels']}, seeds {seeds}",
        f"features: {space} an image; distances in them are not FID",
        f"classes named by probe {report['probe']['sha256'][:12]}",
        f"shot groups: {report['groups']['rule']}",
        f"value±spread {spread}, [floor] of real images in place of the samples",
    ]


def _named(subject: Mapping[str, Any]) -> str:
    """Names a subject as commands do: a generator by its hash, a bank by its key."""
    return f"{subject['kind']} {subject.get('key', subject['hash'])[:12]}"


def text_lines(report: Mapping[str, Any]) -> list[str]:
    """Renders the report for a terminal."""
    lines = heading_lines(report)
    for title, rows in tables(report, every_class=False):
        lines += ["", title, *columns.aligned(rows, right=range(1, len(rows[0])))]
    lines += ["", *notes(report)]
    if len(report["classes"]) > MOST_CLASSES_SHOWN:
        lines.append(f"{len(report['classes'])} classes: see --json, or --out FILE.md")
    return lines


def notes(report: Mapping[str, Any]) -> list[str]:
    """Lists the reservations about the figures, and the figure to choose checkpoints by."""
    chosen = report["choose_by"]
    if chosen["value"] is None:
        return list(report["notes"])
    value = f"{chosen['value']:.4g}, the {chosen['figure']}"
    return [*report["notes"], f"to choose checkpoints by: {value}"]


def hashes(report: Mapping[str, Any]) -> dict[str, str]:
    """Lists every hash of a report, by its subject."""
    subject = report["subject"]
    return {
        subject["kind"]: subject["hash"],
        "training split": report["split_id"],
        "test part": report["test_id"],
        "features": report["features"]["sha256"],
        "probe": report["probe"]["sha256"],
        "report": report["key"],
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Renders the whole report, every class included, as Markdown."""
    subject = report["subject"]
    lines = [f"# Metrics of {_named(subject)}", ""]
    lines += [f"* {line}" for line in heading_lines(report)]
    for title, rows in tables(report, every_class=True):
        lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
        lines += [_markdown_row(rows[0]), _markdown_row(["---"] * len(rows[0]))]
        lines += [_markdown_row(row) for row in rows[1:]]
    lines += ["", "## Notes", "", *(f"* {note}" for note in notes(report)), ""]
    lines += ["| hash of | SHA-256 |", "| --- | --- |"]
    lines += [f"| {name} | `{value}` |" for name, value in hashes(report).items()]
    return "\n".join([*lines, "", f"Made by: `{report['command']}`", ""])


def _markdown_row(row: Sequence[str]) -> str:
    safe = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
    return f"| {' | '.join(safe)} |"
