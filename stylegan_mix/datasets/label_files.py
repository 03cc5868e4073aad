"""The label files of a source: those that an option names, the known ones, and the unused ones.

Known are `dataset.json` of StyleGAN2-ADA, and `metadata.csv` and `metadata.jsonl` of Hugging Face's
image folders. Any other table that names images is refused until an option says its use.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stylegan_mix.datasets.archives import Archive, is_hidden
from stylegan_mix.datasets.label_tables import (
    ENDINGS,
    Table,
    is_label_name,
    label_columns,
    one_hot,
    read_table,
)
from stylegan_mix.datasets.labelled import FEWEST_SHARE, LabelFile, file_column
from stylegan_mix.datasets.listing import some
from stylegan_mix.datasets.lookup import Lookup
from stylegan_mix.datasets.part_names import PartName, part_name, says_nothing
from stylegan_mix.datasets.tree import Branch
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.reading import MOST_VALUES, lines, parse_json, read_bytes, table_rows

__all__ = [
    "asked_content",
    "asked_files",
    "known_files",
    "labels_beside",
    "of_a_part",
    "refuse_unused",
    "unused",
]

LARGEST_TEXT = 1 << 28
LARGEST_SAMPLE = 1 << 23
SAMPLE_LINES = 1000
MOST_WORDS = 2000
KNOWN = ("dataset.json", "metadata.csv", "metadata.jsonl")

_UNREADABLE = (".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".mat", ".pkl", ".npy", ".npz")
_STRING = re.compile(rb'"(?:[^"\\]|\\.){1,500}"')
_LABEL_WORDS = re.compile(r"label|annot|metadata|class|target|train|test|val", re.IGNORECASE)


def _or_folders(images: Branch) -> str:
    """Ends a remedy: the option that takes folders as classes, where there can be such.

    Folders of parts, and folders such as "images", are none.
    """
    around = [one for one in images.inner if one.name.isdigit() or not says_nothing(one.name)]
    parts = [child for child in images.inner if part_name(child.name)]
    possible = len(around) > 1 and (len(parts) < len(around) or any(one.children for one in parts))
    return "; if the folders are the classes, add --levels top" if possible else ""


# Named by --labels


def asked_content(archive: Archive, path: Path) -> tuple[str, str, bytes]:
    """Reads a file that `--labels` names -> its name to show, its name in the source, its bytes.

    The file lies on the disk or in the source; its name there is empty if it is outside.
    """
    inside = _within(archive, path)
    if inside in archive.names:
        return path.name, inside, next(iter(archive.read([inside])))[1]
    if not path.is_file():
        there = [name for name in archive.names if name.lower().endswith(ENDINGS)]
        raise UsageFailure(
            f"--labels {path} is missing, or not a file, and {archive.path} holds none of that name"
            + (f"; it holds {some(there)}" if there else "")
        )
    try:
        return str(path), "", read_bytes(path, limit=LARGEST_TEXT)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


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
        shown, name, content = asked_content(archive, path)
        found.append(_label_file(read_table(shown, content), name, path.name))
    return found


def _label_file(table: Table, name: str, last: str) -> LabelFile:
    """Makes the record of a label file; its own name says its part, or the folder's around it."""
    folder = name[: name.rfind("/") + 1]
    role = _role(last) or part_name(folder.rstrip("/").rpartition("/")[2])
    return LabelFile(table, name, folder, role.role if role else None)


def _role(name: str) -> PartName | None:
    return part_name(name.rpartition("/")[2].rpartition(".")[0])


# Known by their names


def known_files(archive: Archive, roots: Sequence[Branch]) -> list[LabelFile]:
    """Finds the known label files: one around all images, or one in each part.

    `roots` are the folders around all images, outermost first. Captions are no labels: such a file
    is passed over. Raises `InvalidInput` (exit code 3) for two files in one place.
    """
    places = [root.path for root in roots]
    around = list(_known_in(archive, places, roots[0]))
    if len(around) > 1:
        names = [file.table.name for file in around]
        raise InvalidInput(
            f"{archive.path} has several label files: {some(names)}",
            remedy=f"choose one: --labels {shlex.quote(names[0])}{_or_folders(roots[-1])}",
        )
    if around:
        return around
    parts = [child for child in roots[-1].inner if part_name(child.name)]
    return list(_known_in(archive, [child.path for child in parts], roots[0]))


def _known_in(archive: Archive, folders: Iterable[str], images: Branch) -> Iterator[LabelFile]:
    wanted = {f"{folder}{name}": folder for folder in folders for name in KNOWN}
    there = [name for name in archive.names if name in wanted and name not in archive.broken]
    lookup = Lookup(images.images()) if there else Lookup(())
    for name, content in sorted(archive.read(there)):
        if name.endswith(".json") and not _has_labels(content):
            continue
        table = read_table(name, content)
        files = file_column(table, lookup, (wanted[name], ""))
        if files is None or label_columns(table, files):
            yield _label_file(table, name, "")


def _has_labels(content: bytes) -> bool:
    """Tells if a JSON is StyleGAN2-ADA's, also one without labels, which is refused later."""
    try:
        data = parse_json(content)
    except ValueError:
        return False
    return isinstance(data, dict) and "labels" in data


# Not used


def of_a_part(archive: Archive, roots: Sequence[Branch]) -> list[str]:
    """Lists the texts around all images that may label a test or validation folder beside them."""
    roles = {found.role for child in roots[-1].inner if (found := part_name(child.name))}
    return [
        name
        for name in _around(archive, {root.path for root in roots})
        if (found := _role(name)) and found.role in roles - {"train"}
    ]


def _around(archive: Archive, folders: Collection[str]) -> list[str]:
    """Lists the files that lie directly in one of the folders; not hidden ones and broken links."""
    return [
        name
        for name in archive.names
        if name[: name.rfind("/") + 1] in folders
        and not is_hidden(name)
        and name not in archive.broken
    ]


def refuse_unused(
    archive: Archive,
    roots: Sequence[Branch],
    used: Collection[str],
    classes: Sequence[str] = (),
) -> None:
    """Raises `InvalidInput` (exit code 3) for a table around all images that names them.

    Taking folders as classes beside such a file would be a guess. `used` are passed over. `classes`
    are those of the folders, if they are known.
    """
    places = {root.path for root in roots}
    there = [name for name in _around(archive, places) if name not in used]
    for name in there:
        last = name.rpartition("/")[2]
        if last.lower().endswith(_UNREADABLE) and _LABEL_WORDS.search(last):
            raise InvalidInput(
                f"{archive.path}: '{name}' may hold the labels, and cannot be read here",
                remedy="save it as a CSV with a header, and name it: --labels FILE.csv"
                f"{_or_folders(roots[-1])}",
            )
    commands = unused(archive, roots, used)
    if commands:
        first = next(iter(commands))
        if classes and (role := _role(first)) and role.role != "train":
            raise InvalidInput(
                f"{archive.path}: '{first}' names images, and is not used: no single column of it "
                f"holds the classes of the training part ({some(list(classes))})",
                remedy="write these names into it, in a column named label; to leave its part "
                "aside, name the others: --train-dir FOLDER",
            )
        raise InvalidInput(
            f"{archive.path}: '{first}' names images, and is not used",
            remedy=f"to take the classes from it: {_together(commands)}{_or_folders(roots[-1])}",
        )


def unused(archive: Archive, roots: Sequence[Branch], used: Collection[str]) -> dict[str, str]:
    """Finds the texts around all images that name them -> the options that use each.

    `used` are passed over.
    """
    places = {root.path for root in roots}
    texts = [name for name in _around(archive, places) if name not in used and _is_text(name)]
    lookup = Lookup(roots[0].images()) if texts else Lookup(())
    return {
        name: command
        for name, content in sorted(archive.read(texts))
        if (command := _command(name, content, lookup, tuple(places)))
    }


def _together(commands: Mapping[str, str]) -> str:
    """Joins the options for label files of different parts; else returns those of the first."""
    roles = {name: found.role for name in commands if (found := _role(name))}
    last = {role: shlex.quote(name.rpartition("/")[2]) for name, role in roles.items()}
    first = next(commands[name] for name in (*roles, *commands))
    if "train" in last and 1 < len(roles) == len(last):
        if "--file-column" in first:
            files = " ".join(f"--labels {name}" for name in last.values())
            return f"{files} {first[first.find('--file-column') :]}"
        if first.startswith("--train-list") and "test" in last:
            return (
                f"--train-list {last['train']} --test-list {last['test']} for lines of "
                "'path number', or --labels with a header added to each"
            )
    return first


def _is_text(name: str) -> bool:
    """Tells by its name if a file may hold labels; a sample submission holds invented ones."""
    last = name.rpartition("/")[2].lower()
    return last.endswith(ENDINGS) and "submission" not in last


def _command(name: str, content: bytes, lookup: Lookup, folders: Sequence[str]) -> str | None:
    """Composes the options that use a label file; None if it is none."""
    last = name.rpartition("/")[2]
    quoted = shlex.quote(last)
    if name.lower().endswith(".json"):
        strings = list(_strings(content))
        hits = {found[0] for word in strings if (found := lookup.find(word, folders))}
        return f"--train-list {quoted} if it is iNaturalist's, or a CSV of it" if hits else None
    is_json_lines = name.lower().endswith((".jsonl", ".ndjson"))
    if not is_json_lines and not _names_images(_cells(content), lookup, folders):
        return _split_list(name, content, lookup, folders)
    headless = f"--train-list {quoted} for lines of 'path number', or --labels with a header added"
    try:
        table = read_table(name, content)
    except InvalidInput:
        return None if is_json_lines else headless
    files = file_column(table, lookup, folders)
    if files is None or lookup.find(files, folders):
        return None if is_json_lines else headless
    words = ["--labels", last, "--file-column", files]
    if one_hot(table, files):
        return shlex.join(words)
    labels = label_columns(table, files)
    return shlex.join([*words, "--label-column", labels[0]]) if labels else None


def _split_list(name: str, content: bytes, lookup: Lookup, folders: Sequence[str]) -> str | None:
    """Composes the options for a file called as a part that lists images alone, one a line."""
    if _role(name) is None:
        return None
    lines = content[:LARGEST_SAMPLE].decode("utf-8-sig", "replace").splitlines()[:SAMPLE_LINES]
    there = [line.strip() for line in lines if line.strip()]
    hits = sum(1 for line in there if lookup.find(line, folders))
    if not hits or hits <= FEWEST_SHARE * len(there):
        return None
    last = shlex.quote(name.rpartition("/")[2])
    return f"--labels {last} with a header and a column of labels added"


def _strings(content: bytes) -> Iterator[str]:
    """Yields the short texts at the beginning of a JSON, whole or damaged, keys and values."""
    for found in _STRING.finditer(content[:LARGEST_SAMPLE]):
        try:
            yield parse_json(found[0])
        except ValueError:
            continue


def _cells(content: bytes, most: int | None = SAMPLE_LINES) -> list[list[str]]:
    """Splits the first lines of a text into cells, whatever divides them; None: all lines.

    Prose has lines of different numbers of words, or a single one: then there are no cells.
    """
    sample = content if most is None else content[:LARGEST_SAMPLE]
    text = sample.decode("utf-8-sig", "replace")
    try:
        there = [line for line in lines(text)[:most] if line.strip()]
        divider = next((one for one in "\t,;" if there and one in there[-1]), None)
        rows = table_rows("\n".join(there), delimiter=divider) if divider else _words(there)
    except ValueError:  # no table, or very many cells
        return []
    widths = Counter(len(row) for row in rows)
    if not rows or (divider is None and (len(widths) > 1 or len(rows) == 1)):
        return []
    width = widths.most_common(1)[0][0]
    return [[cell.strip() for cell in row] for row in rows if len(row) == width]


def _words(there: Sequence[str]) -> list[list[str]]:
    """Splits lines at white space; ValueError if all have very many words, or one has."""
    rows, left = [], MOST_VALUES
    for line in there:
        row = line.split(maxsplit=MOST_WORDS)
        left -= len(row)
        if left < 0 or len(row) > MOST_WORDS:
            raise ValueError("it has very many words")
        rows.append(row)
    return rows


def _names_images(rows: Sequence[Sequence[str]], lookup: Lookup, folders: Sequence[str]) -> bool:
    """Tells if one of two or more columns names images, in more than a few rows."""
    width = len(rows[0]) if rows else 0
    for place in range(width if width > 1 else 0):
        hits = sum(1 for row in rows if row[place] and lookup.find(row[place], folders))
        if hits > FEWEST_SHARE * len(rows):
            return True
    return False


# Beside the images of a part


def labels_beside(
    archive: Archive, around: str, branch: Branch, role: str, known: set[str]
) -> tuple[str, dict[str, str]] | None:
    """Finds a text with the classes of a part's images -> its name, and image -> class; or None.

    The text lies in the part's folder, as Tiny ImageNet's, or has the part's name and lies in the
    folder `around` the parts. Its rows name an image of the part, and a class of the training part.
    """
    texts = [name for name in _around(archive, {branch.path}) if _is_text(name)]
    texts += [
        name
        for name in _around(archive, {around})
        if _is_text(name) and (found := _role(name)) and found.role == role
    ]
    if not texts:
        return None
    lookup = Lookup(branch.images())
    for name, content in sorted(archive.read(texts)):
        labels = _known_labels(_cells(content, None), lookup, branch.path, known)
        if labels:
            return name, labels
    return None


def _known_labels(
    rows: Sequence[Sequence[str]], lookup: Lookup, folder: str, known: set[str]
) -> dict[str, str]:
    """Collects image -> class where one column names images, and another only known classes.

    Of several such columns, one with a usual name is taken; without it none, for numbers of
    pixels can look like numbers of classes.
    """
    width = len(rows[0]) if rows else 0
    for files in range(width):
        named = [(found[0], row) for row in rows if (found := lookup.find(row[files], (folder,)))]
        if not named:
            continue
        fitting = [
            place
            for place in range(width)
            if place != files and all(row[place] in known for _, row in named)
        ]
        usual = [place for place in fitting if is_label_name(rows[0][place])]
        chosen = usual or fitting
        if len(chosen) == 1:
            return {image: row[chosen[0]] for image, row in named}
    return {}
