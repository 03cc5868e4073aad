"""Files that give each image a label: CSV and TSV with a header, JSON lines, `dataset.json`.

`dataset.json` is the file of StyleGAN2-ADA's data sets: {"labels": [[file, number], ...]}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stylegan_mix.datasets.listing import some
from stylegan_mix.errors import InvalidInput, UsageFailure, nearest
from stylegan_mix.reading import lines, parse_json, require_few_values, table_rows

__all__ = [
    "ENDINGS",
    "FILE_KEY",
    "Table",
    "column_named",
    "described",
    "hot_labels",
    "is_label_name",
    "label_columns",
    "one_hot",
    "read_table",
]

ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")
FILE_KEY, LABEL_KEY = "file_name", "label"
# In so few rows every label may stand once.
FEW_ROWS = 10
_HOT = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}

_LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "classname", "category", "category_name", "target"),
    *("species", "breed", "fine_label", "label_name", "class_id", "classid", "category_id", "tag"),
)


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns; `first` is the row number of the first one in its file."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    first: int = 2

    def column(self, name: str) -> list[str]:
        """Returns the values of a column, of all rows."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_table(name: str, content: bytes) -> Table:
    """Reads a label file by its ending. Raises `InvalidInput` (exit code 3) naming the row."""
    text = _text(name, content)
    ending = name[name.rfind(".") :].lower()
    if ending == ".json":
        return _dataset_json(name, text)
    if ending in (".jsonl", ".ndjson"):
        return _json_lines(name, text)
    return _delimited(name, text)


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{name} is not UTF-8 text: {error}", remedy="save it as CSV in UTF-8"
        ) from error


def _delimited(name: str, text: str) -> Table:
    head = text.split("\n", 1)[0]
    delimiter = max("\t,;", key=head.count)
    try:
        rows = [row for row in table_rows(text, delimiter=delimiter) if row]
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from error
    if not rows:
        raise InvalidInput(f"{name} is empty: expected a header with the names of the columns")
    columns = tuple(cell.strip() for cell in rows[0])
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns):
            raise InvalidInput(
                f"{name}, row {number}: expected {len(columns)} columns as in the header, got "
                f"{len(row)}"
            )
    return Table(name, columns, [tuple(cell.strip() for cell in row) for row in rows[1:]])


def _parsed(name: str, text: str, where: str = "") -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise InvalidInput(f"{name}{where} is not JSON: {type(error).__name__} {error}") from error


def _json_lines(name: str, text: str) -> Table:
    found = []
    try:
        require_few_values(text)
        every = lines(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from error
    for number, line in enumerate(every, 1):
        if line.strip():
            one = _parsed(name, line, f", row {number}")
            if not isinstance(one, dict):
                raise InvalidInput(f"{name}, row {number}: expected an object with named values")
            found.append(one)
    columns = tuple(dict.fromkeys(key for one in found for key in one))
    rows = [tuple(_cell(one.get(key)) for key in columns) for one in found]
    return Table(name, columns, rows, 1)


def _cell(value: Any) -> str:
    """Spells a value; lists and objects become text, which is no label that repeats."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _dataset_json(name: str, text: str) -> Table:
    data = _parsed(name, text)
    pairs = data.get("labels") if isinstance(data, dict) else None
    if isinstance(pairs, dict):
        pairs = [list(pair) for pair in pairs.items()]
    if not isinstance(pairs, list):
        raise InvalidInput(
            f'{name}: expected {{"labels": [["FILE", NUMBER], ...]}}, as StyleGAN2-ADA writes it'
            + (", and its labels are null" if isinstance(data, dict) and "labels" in data else ""),
            remedy="make it again with labels, or name another file: --labels FILE; if folders "
            "are the classes, and no numbered shards, add --levels top",
        )
    rows: list[tuple[str, ...]] = []
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InvalidInput(f'{name}, label {number}: expected ["FILE", NUMBER]')
        rows.append((pair[0], _cell(_class_number(name, pair[0], pair[1]))))
    return Table(name, (FILE_KEY, LABEL_KEY), rows, 1)


def _class_number(name: str, file: str, label: Any) -> Any:
    """Returns the class of a label: a number, a name, or the place of the 1 in a vector of 0."""
    if isinstance(label, list):
        ones = [place for place, value in enumerate(label) if value == 1]
        if len(ones) != 1 or any(value not in (0, 1) for value in label):
            raise InvalidInput(
                f"{name}: the label of '{file}' is a vector, and not of one 1 among 0",
                remedy="give the number of the class",
            )
        return ones[0]
    if isinstance(label, bool) or not isinstance(label, int | float | str | None):
        raise InvalidInput(f"{name}: the label of '{file}' is neither a number nor a name")
    return label


def column_named(table: Table, option: str, name: str) -> str:
    """Finds a column that an option names; `UsageFailure` (exit code 2) for one that is not there.

    Raises `InvalidInput` (3) if two columns have the name.
    """
    if name not in table.columns:
        raise UsageFailure(
            f"{option} {name}: {table.name} has no such column{nearest(name, table.columns)}"
        )
    if table.columns.count(name) > 1:
        raise InvalidInput(f"{table.name} has two columns '{name}'", remedy="rename one of them")
    return name


def label_columns(table: Table, files: str, taken: Sequence[str] = ()) -> list[str]:
    """Lists the columns that can hold labels: those with a usual name, else all others.

    A column where no value of many stands twice holds captions or numbers, and no labels. Of names
    and numbers of the same classes, the names are taken.
    """
    others = [name for name in table.columns if name not in (files, *taken)]
    possible = [name for name in others if _repeats(table.column(name))]
    usual = [name for name in possible if is_label_name(name)]
    names = [one for one in usual if not all(value.isdigit() for value in table.column(one))]
    if len(names) == 1 and all(_alike(table.column(names[0]), table.column(one)) for one in usual):
        return names
    return usual or possible


def one_hot(table: Table, files: str, taken: Sequence[str] = ()) -> tuple[str, ...]:
    """Lists the columns of classes that hold one 1 among 0 in every row; () for another table."""
    columns = [name for name in table.columns if name not in (files, *taken)]
    values = [table.column(name) for name in columns]
    if len(columns) < 2 or len(set(columns)) < len(columns) or not table.rows:
        return ()
    for row in zip(*values, strict=True):
        known = [_HOT.get(value) for value in row]
        if None in known or known.count(1) != 1:
            return ()
    return tuple(columns)


def hot_labels(table: Table, columns: Sequence[str]) -> list[str]:
    """Returns the name of the column with the 1, for each row; see `one_hot`."""
    places = [table.columns.index(name) for name in columns]
    return [
        next(name for name, place in zip(columns, places, strict=True) if _HOT[row[place]] == 1)
        for row in table.rows
    ]


def is_label_name(name: str) -> bool:
    """Tells if a column of this name usually holds labels."""
    return name.casefold().replace(" ", "_") in _LABEL_NAMES


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tells if two columns divide the rows into the same classes."""
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


def _repeats(values: Sequence[str]) -> bool:
    there = [value for value in values if value]
    return bool(there) and (len(there) <= FEW_ROWS or len(set(there)) < len(there))


def described(table: Table) -> str:
    """Lists the columns of a table for a message."""
    return f"its columns are {some([repr(name) for name in table.columns])}"
