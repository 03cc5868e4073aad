"""Files that are read: regular ones, up to a limit, and the strict JSON, TOML and tables in them.

A name in a store, a results folder or an archive may stand for anything: a FIFO, at which a reader
waits for ever, or a link to a device or a process file without an end. So all files are opened by
`open_regular`. Texts are parsed with bounds on nesting and numbers, beyond which Python's parsers,
or the code that uses the values, would fail in ways of their own.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import stat
import tomllib
from pathlib import Path
from typing import IO, Any

from stylegan_mix.errors import InvalidInput

__all__ = [
    "LARGEST_TOML",
    "MOST_VALUES",
    "append_text",
    "is_count",
    "lines",
    "open_regular",
    "parse_json",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_text",
    "require_few_values",
    "sha256_file",
    "table_rows",
    "whole",
]

LARGEST_TOML = 1 << 20
# Values of a JSON text, cells of a table, lines of a text: each takes up to a hundred bytes of
# memory, and two of a file. Two million images with seven facts each are fewer.
MOST_VALUES = 1 << 24
LARGEST_LOG = 1 << 28
MOST_NESTED = 64
# Whole numbers have at most 64 bits: no field holds a larger one.
LARGEST_WHOLE = 1 << 64
MOST_DIGITS = 20
# Dots in one line of TOML: a key of n parts takes n ** 2 steps to parse.
MOST_DOTS = 1_000

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path) -> IO[bytes]:
    """Opens a regular file for reading, also by a link to one.

    Raises `OSError`, for anything else too: its `strerror` then says which kind of thing it is.
    """
    return _regular(path, os.O_RDONLY, "rb")


def _regular(path: Path, way: int, mode: str) -> IO[bytes]:
    # Without O_NONBLOCK, opening a FIFO waits for its other end.
    handle = os.open(path, way | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
            raise OSError(number, f"it is {_KINDS.get(kind, 'no regular file')}", str(path))
        return os.fdopen(handle, mode)
    except BaseException:
        os.close(handle)
        raise


def append_text(path: Path, text: str) -> None:
    """Appends to a regular file, or begins one; raises `OSError`, for anything else too."""
    with _regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab") as file:
        file.write(text.encode())


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Reads a regular file of at most `limit` bytes; raises `OSError`, for a longer one too."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # No more than the size: for each byte asked for, Python takes memory at once.
        content = file.read(size + 1) if size <= limit else b""
        grown = os.fstat(file.fileno()).st_size
    if max(size, len(content)) > limit:
        raise OSError(errno.EOVERFLOW, f"it has more than {limit:,} bytes", str(path))
    if len(content) > grown:  # as files of /proc, some of which have no end
        raise OSError(errno.EINVAL, "it is no regular file: it has no size", str(path))
    return content[:size]


def read_text(path: Path, *, limit: int) -> str:
    """Reads a UTF-8 text, with or without a byte order mark; `UnicodeDecodeError` for another."""
    return read_bytes(path, limit=limit).decode("utf-8-sig")


def read_lines(path: Path, *, limit: int = LARGEST_LOG) -> list[bytes]:
    """Reads a log, whose last line may be torn; raises `OSError`, for very many lines too."""
    content = read_bytes(path, limit=limit)
    if content.count(b"\n") > MOST_VALUES:
        raise OSError(errno.EOVERFLOW, f"it has more than {MOST_VALUES:,} lines", str(path))
    return content.split(b"\n")


def sha256_file(path: Path) -> str:
    """Computes the SHA-256 (64 hex digits) of a regular file's bytes.

    `InvalidInput` (exit code 3) for anything else, and for a file that grows meanwhile.
    """
    found = hashlib.sha256()
    try:
        with open_regular(path) as file:
            left = os.fstat(file.fileno()).st_size
            while content := file.read(min(left + 1, 1 << 20)):
                left -= len(content)
                if left < 0:
                    raise InvalidInput(f"{path} is longer than its size on the disk")
                found.update(content)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    return found.hexdigest()


# --------------------------------------------------------------------- JSON and TOML


def read_json(path: Path, *, limit: int = 1 << 20, most: int = MOST_VALUES) -> Any:
    """Reads a JSON file of at most `limit` bytes; `InvalidInput` (exit code 3) names the fault.

    It is read strictly, with at most `most` values: see `parse_json`.
    """
    try:
        return parse_json(read_bytes(path, limit=limit), most=most)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInput(f"{path} is missing") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not the JSON that was expected: {error}") from error


def parse_json(text: bytes | str, *, most: int = MOST_VALUES) -> Any:
    """Parses JSON strictly: finite numbers, whole ones of 64 bits, no name twice, little nesting.

    Raises ValueError for anything else, and for more than `most` values.
    """
    require_few_values(text, most=most)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=whole,
        )
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    _check_nesting(value)
    return value


def require_few_values(text: bytes | str, *, most: int = MOST_VALUES) -> None:
    """Raises ValueError if a JSON text may have more than `most` values; nothing is parsed."""
    # Each value but the first follows a comma or opens a bracket around it.
    if isinstance(text, bytes):
        count = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    else:
        count = sum(text.count(mark) for mark in (",", "[", "{"))
    if count > most:
        raise ValueError(f"it has more than {most:,} values")


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML with the same bounds as `parse_json`; ValueError for anything else.

    Infinity and NaN are numbers of TOML, and stay; so do dates.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_DOTS:
            raise ValueError(f"line {number} has more than {MOST_DOTS:,} dots")
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    _check_nesting(value)
    return value


def whole(text: str) -> int:
    """Reads a whole number of at most 64 bits; ValueError for anything else."""
    number = int(text) if len(text) <= MOST_DIGITS + 1 else LARGEST_WHOLE
    if abs(number) >= LARGEST_WHOLE:
        raise ValueError(f"a whole number of {len(text.lstrip('-')):,} digits is too large")
    return number


def is_count(text: str) -> bool:
    """Tells if a text is a whole number from 0, of few digits."""
    return text.isascii() and text.isdigit() and len(text) < MOST_DIGITS


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _too_deep() -> str:
    return f"it nests more than {MOST_NESTED} values inside one another"


def _check_nesting(value: Any) -> None:
    """Raises ValueError for deep nesting, and for whole numbers of more than 64 bits (TOML)."""
    level, depth = [value], 0
    while level:
        if depth > MOST_NESTED:
            raise ValueError(_too_deep())
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, int) and abs(one) >= LARGEST_WHOLE:
                raise ValueError(f"a whole number of {one.bit_length():,} bits is too large")
        level, depth = below, depth + 1


# --------------------------------------------------------------------- tables


def table_rows(text: str, *, delimiter: str = ",") -> list[list[str]]:
    """Parses CSV; ValueError for what is none, such as a field of more than 128 KiB.

    ValueError, too, for more than `MOST_VALUES` cells.
    """
    rows, left = [], MOST_VALUES
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            left -= max(len(row), 1)
            if left < 0:
                raise ValueError(f"it has more than {MOST_VALUES:,} cells")
            rows.append(row)
    except csv.Error as error:
        raise ValueError(f"it is no table: {error}") from error
    return rows


def lines(text: str) -> list[str]:
    """Splits a text at its line feeds; ValueError for more than `MOST_VALUES` lines.

    `str.splitlines` would split at letters, too, that a name may hold.
    """
    if text.count("\n") > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} lines")
    return [line.removesuffix("\r") for line in text.split("\n")]
