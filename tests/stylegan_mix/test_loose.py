"""Loose images: their part and their labels, by folders and by label files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from image_folders import folder, picture

from stylegan_mix.datasets.archives import nearest_path
from stylegan_mix.datasets.image_files import Shape
from stylegan_mix.datasets.loose import Wanted, open_loose
from stylegan_mix.errors import InvalidInput, UsageFailure

CLASSES = ["cat", "dog", "7"]


def labels(path: Path, **wanted: Any) -> dict[str, int]:
    with open_loose(path, CLASSES, Wanted(**wanted)) as images:
        return dict(zip(images.names, images.labels.tolist(), strict=True))


def notes(path: Path, **wanted: Any) -> str:
    with open_loose(path, CLASSES, Wanted(**wanted)) as images:
        return "\n".join(images.notes)


FILES = {
    "metadata.csv": "file_name,label\n001.png,dog\n002.png,CAT\n",
    "metadata.jsonl": "".join(
        json.dumps({"file_name": file, "label": label}) + "\n"
        for file, label in (("001.png", "dog"), ("002", "cat"))
    ),
    "dataset.json": json.dumps({"labels": [["001.png", "dog"], ["002.png", "cat"]]}),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_known_label_files_are_read_as_in_a_preparation(
    name: str, form: str, tmp_path: Path
) -> None:
    """They count before folders that have the names of classes."""
    source = folder(tmp_path / "cat", {".": 3}, {name: FILES[name]})
    if form != "folder":
        source = Path(shutil.make_archive(str(source), form, source))
    assert labels(source) == {"001.png": 1, "002.png": 0, "003.png": -1}
    assert f"classes: column 'label' of {name}" in notes(source)
    assert "1 of 3 images have no label" in notes(source)


def test_a_table_may_be_named_on_the_disk_or_in_the_source(tmp_path: Path) -> None:
    table = "id\tname\tnumber\n001\tcat\t3\n002\tdog\t4\n003\tcat\t3\n"
    source = folder(tmp_path / "photos", {".": 3}, {"truth.tsv": table})
    for path in (source / "truth.tsv", Path("truth.tsv")):
        found = labels(source, labels=(path,), label_column="name")
        assert list(found.values()) == [0, 1, 0]
    with pytest.raises(InvalidInput, match="which column holds the labels"):
        labels(source, labels=(source / "truth.tsv",))
    told = notes(source)
    assert "'truth.tsv' names images, and is not used: --labels truth.tsv --file-column id" in told


def test_numbers_of_classes_are_read_in_any_spelling(tmp_path: Path) -> None:
    source = folder(
        tmp_path / "photos", {".": 2}, {"metadata.csv": "file_name,label\n001,07\n002,8\n"}
    )
    assert list(labels(source).values()) == [2, -1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file_name,label\n001,cat\n001,dog\n", "more than one row for 1 image"),
        ("file_name,label\n001,cat\n002\n", "row 3: expected 2 columns"),
        ("file_name,label\n001,cat\n002,\n", "no label"),
    ],
)
def test_label_files_that_do_not_fit_are_refused(text: str, why: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", {".": 2}, {"metadata.csv": text})
    with pytest.raises(InvalidInput, match=why):
        labels(source)


PARTS: dict[str, tuple[dict[str, int], str]] = {
    "around the classes": (
        {"Train/cat": 3, "tst/cat": 2},
        "train: 3 images in Train; test: 2 images in tst",
    ),
    "in a folder": ({"data/train/cat": 3, "data/val/cat": 2}, "test: 2 images in data/val"),
    "without classes": ({"train": 3, "test": 2, "valid": 1}, "val: 1 images in valid; test: 2"),
    "in each class": (
        {"cat/train": 2, "cat/test": 1, "dog/train": 1, "dog/test": 1},
        "train: 3 images in each class; test: 2 images in each class",
    ),
    "four": ({"train": 3, "test": 2, "eval": 1, "val": 1}, "val: 1 images in val; eval: 1"),
}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_parts_are_asked_about_and_taken_by_name(kind: str, form: str, tmp_path: Path) -> None:
    counts, told = PARTS[kind]
    source = folder(tmp_path / "photos", counts)
    if form != "folder":
        source = Path(shutil.make_archive(str(source), form, source))
    with pytest.raises(InvalidInput, match="holds the parts of a data set") as error:
        labels(source)
    assert told in str(error.value)
    assert "--part test" in str(error.value.remedy)
    assert len(labels(source, part="test")) == 2
    assert len(labels(source, part="train")) == 3
    assert len(labels(source, part="all")) == sum(counts.values())


def test_what_has_no_training_part_has_no_parts(tmp_path: Path) -> None:
    assert len(labels(folder(tmp_path / "one", {"test/cat": 2, "val/cat": 1}))) == 3
    assert len(labels(folder(tmp_path / "two", {"train/cat": 2, "more/cat": 1}))) == 3
    with pytest.raises(UsageFailure, match="its parts are not to be seen"):
        labels(tmp_path / "one", part="train")


def test_a_class_may_have_the_name_of_a_part(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", {"train": 2, "test": 1, "bus": 1})
    with open_loose(source, ["train", "test", "bus"]) as images:
        assert images.labels.tolist() == [2, 1, 0, 0]


def test_the_folders_of_images_are_counted(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", {"a/b/cat": 3, "a/b/x": 1, "a/b": 2})
    with open_loose(source, CLASSES) as images:
        assert images.folders == "2 in a/b, 3 in a/b/cat, 1 in a/b/x"
    many = folder(tmp_path / "many", {f"{number:02}": 1 for number in range(14)})
    with open_loose(many, CLASSES) as images:
        assert images.folders.endswith("1 in 09 and 4 more")


def test_a_single_file_needs_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "link").symlink_to("nothing")
    with open_loose(tmp_path / "a.png", CLASSES) as images:
        (one,) = images.decoded(Shape(8, None, 3), None)
    assert one[:2] == (0, "a.png")


def test_a_missing_path_names_the_nearest_one(tmp_path: Path, monkeypatch: Any) -> None:
    folder(tmp_path / "plankton images", {"x": 1})
    monkeypatch.chdir(tmp_path)
    assert nearest_path(Path("plankton_images")) == "; did you mean plankton images?"
    assert nearest_path(Path("plankton images/y")).endswith("without 'y' in it")
    far = tmp_path / "nothing" / "like" / "this"
    assert nearest_path(far) == f"; {tmp_path} is there, without 'nothing' in it"
    assert nearest_path(Path("/")) != ""
