"""The notes of a preparation: what is left aside, what repeats, and what is rare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import folder, picture
from PIL import Image

from stylegan_mix import datasets
from stylegan_mix.datasets import left_aside
from stylegan_mix.datasets.image_files import SUFFIXES
from stylegan_mix.datasets.prepare import Request, plan, prepare
from stylegan_mix.datasets.trained_sizes import SIZES, nearest_size, size_note
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.presets import preset_named

PETS = {"train/cat": 4, "train/dog": 3, "test/cat": 2, "test/dog": 2}


def planned(path: Path, counts: dict[str, int], texts: Any = None, **options: Any) -> list[str]:
    found = plan(Request("odd", folder(path / "source", counts, texts), **options))
    return list(found["notes"])


# --------------------------------------------------------------------- left aside


def test_files_that_are_left_aside_are_named_by_kind_and_folder(home: Path) -> None:
    texts = {
        "LICENCE": "x",
        "train/cat/boxes.txt": "x",
        "train/dog/boxes.txt": "x",
        "train/dog/more.txt": "x",
        "train/.DS_Store": "x",
        "__MACOSX/train/cat/._001.png": "x",
    }
    notes = planned(home.parent, {**PETS, "train": 1, "docs": 2}, texts)
    assert notes[-1] == (
        "left aside: 3 .txt in train/dog (2), train/cat (1), 1 file without ending in the source, "
        "2 hidden files in __MACOSX/train/cat (1), train (1), 3 images in docs (2), train (1)"
    )


def test_images_of_an_ending_that_is_not_read_are_counted_by_class(home: Path) -> None:
    texts = {f"train/{name}.svg": "x" for name in ("cat/a", "cat/b", "dog/deep/c")}
    texts |= {"test/cat/d.NEF": "x", "logo.svg": "x"}
    notes = planned(home.parent, {**PETS, "train/dog/deep": 1}, texts)
    assert notes[-2:] == [
        "images of an ending that is not read, by class: cat 1 .nef, cat 2 .svg, dog 1 .svg",
        "left aside: 1 .svg in the source",
    ]


def test_a_class_of_such_images_alone_is_an_error_that_names_the_ending(home: Path) -> None:
    with pytest.raises(InvalidInput, match="folders: cow; their .svg files cannot") as error:
        planned(home.parent, PETS, {"train/cow/a.svg": "x"})
    assert "PNG or JPEG" in str(error.value.remedy)


def test_no_ending_that_is_read_is_counted_as_dropped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(left_aside.IMAGE_ENDINGS) & set(SUFFIXES) <= {
        ".jfif",
        ".jpe",
        ".avif",
        ".heic",
        ".heif",
    }
    source = folder(home.parent / "source", PETS)
    for number, ending in enumerate((".jfif", ".JPE", ".jpeg")):
        (source / f"train/cat/more{ending}").write_bytes(picture(50 + number, kind="JPEG"))
    found = plan(Request("odd", source))
    assert found["counts"] == [7, 3]
    assert len(found["notes"]) == 1


# --------------------------------------------------------------------- repeats and rare classes


def test_the_same_pixels_under_two_labels_are_said(home: Path) -> None:
    source = folder(home.parent / "source", PETS)
    shutil.copy(source / "train/cat/001.png", source / "train/dog/same.png")
    # Other bytes, the same pixels.
    Image.open(source / "train/cat/002.png").save(source / "test/dog/same.bmp")
    shutil.copy(source / "train/cat/003.png", source / "train/cat/again.png")
    notes = prepare(Request("pets", source)).facts["notes"]
    said = [note for note in notes if note.startswith("the same pixels under two labels")]
    assert len(said) == 1
    assert "2 images, " in said[0]
    assert "train/cat/001.png = train/dog/same.png" in said[0]
    assert "train/cat/002.png = test/dog/same.bmp" in said[0]


def test_validation_images_of_other_parts_are_said(home: Path) -> None:
    source = folder(home.parent / "source", {**PETS, "val/cat": 1})
    shutil.copy(source / "train/cat/001.png", source / "val/cat/same.png")
    notes = prepare(Request("pets", source)).facts["notes"]
    assert "also in the training part: 1 validation image" in notes
    assert not any("also in the test part" in note for note in notes)


def test_classes_of_one_image_and_without_test_images_are_said(home: Path) -> None:
    notes = planned(home.parent, {"a": 1, "b": 9, "c": 10})
    assert "1 class has one image: a" in notes
    assert "without test images, and so without an accuracy: 1 class, a" in notes
    notes = planned(home.parent / "parts", {**PETS, "train/cow": 3, "train/emu": 2})
    assert "without test images, and so without an accuracy: 2 classes, cow, emu" in notes


@pytest.mark.parametrize(("images", "said"), [(2, "1 of 2"), (5, "2 of 5"), (7, "2 of 7"), (8, "")])
def test_a_share_that_rounding_changed_is_said(home: Path, images: int, said: str) -> None:
    notes = planned(home.parent, {"a": images, "b": 40})
    found = [note for note in notes if "rounding held out another share than 20%" in note]
    assert [note.endswith(f"in 1 small class: a {said}") for note in found] == [True] * bool(said)


# --------------------------------------------------------------------- sizes


def test_the_sizes_that_are_named_are_those_of_the_presets() -> None:
    for size in (*SIZES, 4, 12, 28, 48, 512, 1024):
        if size in SIZES:
            assert preset_named("auto", size).resolution == size
        else:
            with pytest.raises(UsageFailure):
                preset_named("auto", size)


@pytest.mark.parametrize(
    ("side", "size"), [(4, 8), (28, 32), (40, 32), (46, 64), (100, 128), (5000, 256)]
)
def test_the_nearest_size_is_proposed(side: int, size: int) -> None:
    assert nearest_size(side) == size
    assert f"add --size {size}" in str(size_note(side))
    assert size_note(size) is None


def test_a_set_of_another_size_is_prepared_and_told_at_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder(home.parent / "source", PETS, side=28)
    note = "these images have 28: for one, add --size 32"
    assert note in plan(Request("odd", source))["notes"][-1]
    prepare(Request("odd", source))
    assert note in capsys.readouterr().err
    prepare(Request("even", source, size=32))
    assert "generators are trained" not in capsys.readouterr().err


def test_images_of_many_shapes_are_answered_with_a_size_of_theirs(home: Path) -> None:
    source = folder(home.parent / "source", PETS)
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        shape = (60 + number, 90, 3)
        Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    with pytest.raises(InvalidInput, match="have 11 sizes") as error:
        plan(Request("odd", source))
    assert str(error.value.remedy).startswith("such as --size 64 --fit pad")
    assert "generators are trained at 8, 16, 32, 64, 128 or 256 pixels" in str(error.value.remedy)


def test_a_row_with_half_a_surrogate_pair_is_noted_and_the_set_is_written(home: Path) -> None:
    """JSON can name what no file name and no text in UTF-8 can hold."""
    pairs: list[list[Any]] = [[f"00000/{number:03}.png", number % 2] for number in range(1, 9)]
    pairs[3][0] = "00000/004\ud800.png"
    told = {"dataset.json": json.dumps({"labels": pairs})}
    source = folder(home.parent / "source", {"00000": 8}, told)
    request = Request("half", source, on_bad_image="skip")
    assert any("004\ud800.png" in note for note in plan(request)["notes"])
    prepare(request)
    data = datasets.load("half")
    assert len(data.train.labels) + len(data.test.labels) == 7


def test_the_column_of_files_names_more_different_images_than_that_of_labels(home: Path) -> None:
    """Labels 001 and 002 name two of the images, each many times; one of the files is not there."""
    pairs = [[f"a/{number:03}.png", f"00{number % 2 + 1}"] for number in [*range(1, 8), 9]]
    told = {"dataset.json": json.dumps({"labels": pairs})}
    with pytest.raises(
        InvalidInput, match=r"no image of that name in .* for 1 row: 'a/009.png' \(row 8\)"
    ):
        planned(home.parent, {"a": 8}, told)
