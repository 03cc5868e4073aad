"""Lists of `path label` lines as people write them, and the ways in which they can be wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from photographs import lists, photographs

from stylegan_mix import datasets
from stylegan_mix.datasets import listed_folder, members
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.errors import InvalidInput, UsageFailure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


@pytest.fixture(params=[True, False], ids=["streamed", "prepared"])
def stream(request: Any) -> bool:
    return bool(request.param)


def prepared(root: Path, train: Path, test: Path | None, stream: bool) -> datasets.Dataset:
    prepare(Request("photos", root, train_list=train, test_list=test, size=16, stream=stream))
    return datasets.load("photos", streamed=True)


def written(root: Path, text: str | bytes) -> Path:
    path = root.parent / "written.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(root: Path, text: str | bytes, stream: bool) -> str:
    """Prepares a list without one of the test part -> the error."""
    with pytest.raises(InvalidInput) as error:
        prepared(root, written(root, text), None, stream)
    assert datasets.prepared_names() == []
    return str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text, root: text.replace("\n", "\r\n"),
        lambda text, root: "\n" + text.replace("\n", "\n\n"),
        lambda text, root: text.replace(".jpg ", ".jpg\t"),
        lambda text, root: text.replace("train/", "./train//"),
        lambda text, root: text.replace("train/", f"{root}/train/"),
        lambda text, root: text.replace("train/ant", "train/bee/../ant"),
        lambda text, root: "\ufeff" + text,
    ],
    ids=["CRLF", "empty lines", "tabs", "dots", "absolute", "up and down", "BOM"],
)
def test_every_way_to_write_a_list_gives_one_set(
    home: Path, root: Path, stream: bool, change: Any
) -> None:
    train, test = (lists(root)[part] for part in ("train", "test"))
    text = train.read_text(encoding="utf-8")
    (root.parent / "changed.txt").write_bytes(change(text, root).encode())
    changed = prepared(root, root.parent / "changed.txt", test, stream)
    prepare(Request("plain", root, train_list=train, test_list=test, size=16, stream=stream))
    plain = datasets.load("plain", streamed=True)
    assert changed.split_id == plain.split_id and changed.counts.tolist() == [9, 6, 3]


def test_names_may_have_spaces_and_letters_of_any_language(
    home: Path, root: Path, stream: bool
) -> None:
    (root / "train/ant").rename(root / "train/höhle 2 b")
    data = prepared(
        root,
        written(root, lists_of(root, "train")),
        written_test(root),
        stream,
    )
    assert data.counts.tolist() == [9, 6, 3] and data.classes == ("0", "1", "2")


def lists_of(root: Path, part: str) -> str:
    folders = sorted((root / part).iterdir(), key=lambda one: min(one.iterdir()).name)
    return "".join(
        f"{path.relative_to(root).as_posix()} {label}\n"
        for label, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
    )


def written_test(root: Path) -> Path:
    path = root.parent / "tested.txt"
    path.write_text(lists_of(root, "test"))
    return path


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("train/ant/001.jpg 0\ntrain/ant/999.jpg 0\n", "1 files that are not in .*999.jpg"),
        ("train/ant/001.jpg 0\n/etc/passwd 0\n", "'/etc/passwd' does not lie below"),
        ("train/ant/001.jpg 0\n../photos_train.txt 0\n", "does not lie below"),
        ("train/ant/001.jpg 0\ntrain/../../x.jpg 0\n", "'train/../../x.jpg' does not lie below"),
        ("train/ant/001.jpg 0\ntrain/ant/001.jpg 0\n", "1 files stand in it twice: train/ant/001"),
        ("train/ant/001.jpg 0\ntrain/./ant/001.jpg 1\n", "1 files stand in it twice"),
        ("train/ant/001.jpg 0\ntrain/bee/010.jpg 2\n", "no training image of 1 of 3 classes: 1"),
        ("train/ant/001.jpg\n", "row 1: expected 'path label', got 'train/ant/001.jpg'"),
        ("train/ant/001.jpg 0\ntrain/ant/002.jpg -1\n", "row 2: expected 'path label'"),
        ("train/ant/001.jpg 0\ntrain/ant/002.jpg 1.0\n", "row 2: expected 'path label'"),
        ("train/ant/001.jpg 0\ntrain/ant/002.jpg 70000\n", "row 2: label 70000; at most"),
        ("train/ant/001.jpg 0\ntrain/ant/002.jpg\x00 0\n", "control characters|not in"),
        ("", "lists no image"),
        (b"train/ant/\xff.jpg 0\n", "is not UTF-8 text"),
        ("train/ant 0\n", "1 files that are not in"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_its_row_or_name(
    home: Path, root: Path, stream: bool, lines: Any, reason: str
) -> None:
    assert re.search(reason, refused(root, lines, stream))


def test_test_images_of_a_class_without_training_images_are_refused(
    home: Path, root: Path, stream: bool
) -> None:
    train = written(root, "train/ant/001.jpg 0\ntrain/bee/010.jpg 1\n")
    with pytest.raises(InvalidInput, match="cow/.* of a class that .* does not have"):
        prepared(root, train, lists(root)["test"], stream)


def test_a_file_of_both_lists_is_refused(home: Path, root: Path, stream: bool) -> None:
    train = lists(root)["train"]
    with pytest.raises(InvalidInput, match="18 files stand in it twice"):
        prepared(root, train, train, stream)


def test_a_list_that_is_not_there_is_a_usage_error(home: Path, root: Path, stream: bool) -> None:
    with pytest.raises(UsageFailure, match="missing, or not a file"):
        prepared(root, root.parent / "no.txt", None, stream)


def test_inaturalist_lists_name_files_and_classes(home: Path, root: Path, stream: bool) -> None:
    files = sorted((root / "train").rglob("*.jpg"))
    content = {
        "categories": [
            {"id": 7, "name": "Bee"},
            {"id": 3, "name": "Ant"},
            {"id": 9, "name": "Cow"},
        ],
        "images": [
            {"id": place, "file_name": path.relative_to(root).as_posix()}
            for place, path in enumerate(files)
        ],
        "annotations": [
            {"image_id": place, "category_id": {"ant": 3, "bee": 7, "cow": 9}[path.parent.name]}
            for place, path in enumerate(files)
        ],
    }
    path = root.parent / "train.json"
    path.write_text(json.dumps(content))
    data = prepared(root, path, None, stream)
    assert data.classes == ("Ant", "Bee", "Cow") and data.counts.tolist() == [7, 4, 1]


def test_a_name_with_control_characters_is_refused(home: Path, root: Path, stream: bool) -> None:
    (root / "train/ant/001.jpg").rename(root / "train/ant/\x01.jpg")
    content = {
        "categories": [{"id": 0, "name": "Ant"}],
        "images": [{"id": 0, "file_name": "train/ant/\x01.jpg"}],
        "annotations": [{"image_id": 0, "category_id": 0}],
    }
    path = root.parent / "train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidInput, match="has control characters in it"):
        prepared(root, path, None, stream)


def test_the_folder_around_the_listed_files_may_be_of_any_size(
    home: Path, root: Path, monkeypatch: Any
) -> None:
    """The whole of ImageNet has more files than an archive may have."""
    monkeypatch.setattr(members, "MOST_MEMBERS", 10)
    found = lists(root)
    with pytest.raises(InvalidInput, match="10 members or more"):
        prepared(root, found["train"], found["test"], stream=False)
    assert len(prepared(root, found["train"], found["test"], stream=True).train) == 18


def test_only_files_that_are_listed_are_looked_at(home: Path, root: Path, monkeypatch: Any) -> None:
    (root / "secret").mkdir(mode=0)
    seen = []
    monkeypatch.setattr(listed_folder, "_is_file", lambda path: seen.append(path) or True)
    found = lists(root)
    prepared(root, found["train"], found["test"], stream=True)
    assert len(seen) == 27
