"""The label files of a source: those that an option names, the known ones, and the unused ones.

Known are `dataset.json` of StyleGAN2-ADA, and `metadata.csv` and `metadata.jsonl` of Hugging Face's
image folders. Any other table that names images is refused until an option says its use.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stylegan_mix.datasets.archives import Archive, is_hidden
from stylegan_mix.datasets.label_tables import ENDINGS, Table, label_columns, read_table
from stylegan_mix.datasets.labelled import LabelFile, file_column
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.lookup import Lookup
from stylegan_mix.datasets.part_names import part_name
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput, UsageFailure

__all__ = ["asked_content", "asked_files", "known_files", "labels_beside", "refuse_unused"]

LARGEST_TEXT = 1 << 28
SAMPLE_LINES = 1000
KNOWN = ("dataset.json", "metadata.csv", "metadata.jsonl")

_UNREADABLE = (".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".mat", ".pkl", ".npy", ".npz")
_LABEL_WORDS = re.compile(r"label|annot|metadata|class|target|train|test|val", re.IGNORECASE)
_FOLDERS_DECIDE = "if the folders are the classes, add --levels top"


# Named by --labels


def asked_content(archive: Archive, path: Path) -> tuple[str, str, bytes]:
    """Reads a file that `--labels` names -> its name to show, its folder in the source, its bytes.

    The file lies on the disk or in the source.
    """
    inside = _within(archive, path)
    if inside in archive.names:
        return path.name, inside.rpartition("/")[0], next(iter(archive.read([inside])))[1]
    if not path.is_file():
        there = [name for name in archive.names if name.lower().endswith(ENDINGS)]
        raise UsageFailure(
            f"--labels {path} is missing, or not a file, and {archive.path} holds none of that name"
            + (f"; it holds {some(there)}" if there else "")
        )
    if path.stat().st_size > LARGEST_TEXT:
        raise InvalidInput(f"{path} is larger than {LARGEST_TEXT:,} bytes")
    return str(path), "", path.read_bytes()


def _within(archive: Archive, path: Path) -> str:
    """Returns the name that a path has in the source, or would have."""
    if archive.path.is_dir() and path.exists():
        real, source = path.resolve(), archive.path.resolve()
        if real.is_relative_to(source):
            return real.relative_to(source).as_posix()
        return ""
    if path.exists():
        return ""
    name = path.as_posix()
    ends = [one for one in archive.names if one == name or one.endswith(f"/{name}")]
    return min(ends, key=lambda one: one.count("/")) if ends else name


def asked_files(archive: Archive, paths: Sequence[Path]) -> list[LabelFile]:
    """Reads the tables that `--labels` names."""
    found = []
    for path in paths:
        name, folder, content = asked_content(archive, path)
        found.append(_label_file(read_table(name, content), folder, path.name))
    return found


def _label_file(table: Table, folder: str, name: str) -> LabelFile:
    role = part_name(name.rpartition(".")[0]) or part_name(folder.rpartition("/")[2])
    return LabelFile(table, f"{folder}/" if folder else "", role.role if role else None)


# Known by their names


def known_files(archive: Archive, roots: Sequence[Branch]) -> list[LabelFile]:
    """Finds the known label files: one around all images, or one in each part.

    `roots` are the folders around all images, outermost first. Captions are no labels: such a file
    is passed over. Raises `InvalidInput` (exit code 3) for two files in one place.
    """
    places = [root.path for root in roots]
    lookup = Lookup(roots[0].images())
    around = list(_known_in(archive, places, lookup))
    if len(around) > 1:
        names = [file.table.name for file in around]
        raise InvalidInput(
            f"{archive.path} has several label files: {some(names)}",
            remedy=f"choose one: --labels {names[0]}; {_FOLDERS_DECIDE}",
        )
    if around:
        return around
    parts = [child for child in roots[-1].inner if part_name(child.name)]
    return list(_known_in(archive, [child.path for child in parts], lookup))


def _known_in(archive: Archive, folders: Iterable[str], lookup: Lookup) -> Iterator[LabelFile]:
    wanted = {f"{folder}{name}": folder for folder in folders for name in KNOWN}
    there = [name for name in archive.names if name in wanted]
    for name, content in sorted(archive.read(there)):
        if name.endswith(".json") and not _has_labels(content):
            continue
        table = read_table(name, content)
        folder = wanted[name]
        files = file_column(table, lookup, (folder, ""))
        if files is None or label_columns(table, files):
            yield _label_file(table, folder.rstrip("/"), "")


def _has_labels(content: bytes) -> bool:
    """Tells if a JSON is StyleGAN2-ADA's, also one without labels, which is refused later."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "labels" in data


# Not used


def refuse_unused(archive: Archive, roots: Sequence[Branch]) -> None:
    """Raises `InvalidInput` (exit code 3) for a table around all images that names them.

    Taking folders as classes beside such a file would be a guess.
    """
    places = {root.path for root in roots}
    lookup = Lookup(roots[0].images())
    at_root = [
        name
        for name in archive.names
        if name[: name.rfind("/") + 1] in places and not is_hidden(name)
    ]
    for name in at_root:
        last = name.rpartition("/")[2]
        if last.lower().endswith(_UNREADABLE) and _LABEL_WORDS.search(last):
            raise InvalidInput(
                f"{archive.path}: '{name}' may hold the labels, and cannot be read here",
                remedy="save it as a CSV with a header, and name it: --labels FILE.csv; "
                f"{_FOLDERS_DECIDE}",
            )
    texts = [name for name in at_root if name.lower().endswith(ENDINGS)]
    for name, content in sorted(archive.read(texts)):
        command = _command(name, content, lookup, tuple(places))
        if command and "submission" not in name.lower():
            raise InvalidInput(
                f"{archive.path}: '{name}' names images, and is not used",
                remedy=f"to take the classes from it: {command}; {_FOLDERS_DECIDE}",
            )


def _command(name: str, content: bytes, lookup: Lookup, folders: Sequence[str]) -> str | None:
    """Composes the options that use a label file; None if it is none."""
    last = name.rpartition("/")[2]
    if name.lower().endswith(".json"):
        strings = list(_strings(content))
        hits = {found[0] for word in strings if (found := lookup.find(word, folders))}
        return f"--train-list {last} if it is iNaturalist's, or a CSV of it" if hits else None
    rows = _cells(content)
    columns = _columns(rows, lookup, folders)
    if columns is None:
        return None
    try:
        table = read_table(name, content)
    except InvalidInput:
        return f"--train-list {last} for lines of 'path number', or a CSV with a header"
    files = file_column(table, lookup, folders)
    if files is None or files not in table.columns:
        return None
    labels = label_columns(table, files)
    if not labels:
        return None
    if lookup.find(files, folders):
        return f"add a header such as file,label to {last} and give --labels {last}"
    return f"--labels {last} --file-column {files!r} --label-column {labels[0]!r}"


def _strings(content: bytes) -> Iterator[str]:
    """Yields the texts of a JSON, keys and values."""
    try:
        waiting: list[Any] = [json.loads(content)]
    except (ValueError, RecursionError):
        return
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one


def _cells(content: bytes) -> list[list[str]]:
    """Splits the first lines of a text into cells, whatever divides them."""
    text = content[: 1 << 20].decode("utf-8-sig", "replace")
    lines = [line for line in text.splitlines()[:SAMPLE_LINES] if line.strip()]
    divider = next((one for one in "\t,;" if lines and one in lines[-1]), None)
    return [[cell.strip(' "') for cell in line.split(divider)] for line in lines]


def _columns(
    rows: Sequence[Sequence[str]], lookup: Lookup, folders: Sequence[str]
) -> tuple[int, int] | None:
    """Finds a column whose cells name images, and the number of columns of most rows."""
    width = min((len(row) for row in rows), default=0)
    if width < 2:
        return None
    for place in range(width):
        hits = sum(1 for row in rows if row[place] and lookup.find(row[place], folders))
        if 2 * hits >= len(rows):
            return place, width
    return None


# Beside the images of a part


def labels_beside(archive: Archive, branch: Branch, known: set[str]) -> dict[str, str] | None:
    """Finds the class of each image of a part in a text beside them, such as Tiny ImageNet's.

    The text has lines of cells, one of which names an image of the part and another a class of the
    training part. None without such a text.
    """
    images = list(branch.images())
    names = [
        name
        for name in archive.names
        if name.startswith(branch.path)
        and "/" not in name[len(branch.path) :]
        and name.lower().endswith(ENDINGS)
    ]
    lookup = Lookup(images)
    for _, content in sorted(archive.read(names)):
        rows = [line.split("\t") for line in content.decode("utf-8", "replace").splitlines()]
        found = _known_labels(rows, lookup, branch.path, known) or _known_labels(
            [line.split(",") for line in content.decode("utf-8", "replace").splitlines()],
            lookup,
            branch.path,
            known,
        )
        if found:
            return found
    return None


def _known_labels(
    rows: Sequence[Sequence[str]], lookup: Lookup, folder: str, known: set[str]
) -> dict[str, str]:
    """Collects image -> class where a cell names an image, and one column only known classes."""
    by_column: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows:
        cells = [cell.strip() for cell in row]
        found = lookup.find(cells[0], (folder,)) if cells and cells[0] else []
        if len(found) == 1:
            for place, cell in enumerate(cells[1:]):
                by_column[place][found[0]] = cell
    for labels in by_column.values():
        if set(labels.values()) <= known:
            return labels
    return {}
