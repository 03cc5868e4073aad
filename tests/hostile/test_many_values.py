"""Texts of two bytes a value, which a parser turns into gigabytes, are refused before that."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from confined import RETURNED, confined
from targets import command, image_folder

from stylegan_mix import reading

COUNT = reading.MOST_VALUES + 10
WAYS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "json, lists": (reading.parse_json, b"[" + b"[]," * COUNT + b"[]]"),
    "json, numbers": (reading.parse_json, b"[" + b"1," * COUNT + b"1]"),
    "json, objects": (lambda text: reading.parse_json(text.decode()), b"[" + b"{}," * COUNT),
    "table, lines": (lambda text: reading.table_rows(text.decode()), b"\n" * COUNT),
    "table, returns": (lambda text: reading.table_rows(text.decode()), b"\r" * COUNT),
    "table, cells": (lambda text: reading.table_rows(text.decode()), b"," * COUNT),
    "lines": (lambda text: reading.lines(text.decode()), b"a\n" * COUNT),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_more_values_than_memory_has_room_for_are_refused(name: str) -> None:
    read, text = WAYS[name]
    told = confined(lambda: read(text), memory=2 << 30, seconds=200)
    assert told.startswith("ValueError: it has more than 16,777,216 "), told


def test_a_log_of_very_many_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\n" * COUNT)
    told = confined(lambda: reading.read_lines(tmp_path / "log"), memory=128 << 20, seconds=200)
    assert "more than 16,777,216 lines" in told


def test_lines_end_at_line_feeds_alone() -> None:
    """Names hold other letters at which `str.splitlines` would cut."""
    assert reading.lines("a\u2028b\x0bc\x85d\r\ne") == ["a\u2028b\x0bc\x85d", "e"]


MANY = 40 << 20  # bytes, which a zip packs into 40 kB
LABELS = {
    "metadata.csv": b"file_name,label\n" + b"\n" * MANY,
    "metadata.jsonl": b"{}\n" * (MANY // 3),
    "dataset.json": b'{"labels": [' + b"[]," * (MANY // 3) + b"[]]}",
    "val.txt": b"\n" * MANY,
    "words.txt": b"ab " * (MANY // 3),
    "labels.tsv": b"a\tb\n" * (MANY // 4),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_file_of_very_many_values_is_read_or_refused_in_little_memory(
    name: str, home: Path, tmp_path: Path
) -> None:
    images, archive = image_folder(tmp_path / "images"), tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(images.rglob("*.png")):
            target.write(path, path.relative_to(images))
        # Something incompressible beside it, so that the whole is within the ratio of an archive.
        target.writestr("notes.bin", bytes(range(256)) * 4000, zipfile.ZIP_STORED)
        target.writestr(name, LABELS[name])

    def prepare() -> None:
        said = command("dataset", "prepare", "tiny", "--from", archive)
        assert "out of memory" not in said, said

    told = confined(prepare, memory=1 << 30, seconds=60)
    assert told == RETURNED, told
