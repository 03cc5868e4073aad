"""Layouts of folders: recognised by content, and asked about in doubt with code 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from image_folders import folder, pets

from stylegan_mix.datasets.part_names import part_name
from stylegan_mix.datasets.prepare import Request, plan, prepare
from stylegan_mix.errors import InvalidInput, UsageFailure


def planned(path: Path, counts: dict[str, int], texts: Any = None, **options: Any) -> Any:
    return plan(Request("odd", folder(path / "source", counts, texts), **options))


# --------------------------------------------------------------------- parts by their names

NAMES = {
    "Train": "train",
    "TRAINING": "train",
    "trn": "train",
    "seg_train": "train",
    "train_images": "train",
    "training_set": "train",
    "TrainImages": "train",
    "trainset": "train",
    "train2017": "train",
    "train_64x64": "train",
    "tst": "test",
    "Testing": "test",
    "test-data": "test",
    "eval": "eval",
    "dev": "val",
    "valid": "val",
    "Validation_set": "val",
    "val": "val",
    "trainval": None,
    "train_val": None,
    "strain": None,
    "station": None,
    "contest": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_usual_words_for_parts_are_known_in_any_spelling(name: str) -> None:
    found = part_name(name)
    assert (found and found.role) == NAMES[name]
    assert found is None or found.plain


def test_other_words_in_the_name_of_a_part_are_kept() -> None:
    found = part_name("pets-train")
    assert found is not None
    assert (found.role, found.others, found.plain) == ("train", ("pets",), False)


# (folders, images of the training, test and validation part)
PARTS = {
    "mixed case": (pets("Train", "Test"), (7, 3, 0)),
    "other words": (pets("training_set", "tst"), (7, 3, 0)),
    "name and part": (pets("pets-train", "pets-val"), (7, 3, 0)),
    "words run together": (pets("data/TrainImages", "data/TestImages"), (7, 3, 0)),
    "two endings": (pets("seg_train/seg_train", "seg_test/seg_test"), (7, 3, 0)),
    "three parts": (pets("train", "test", "valid"), (7, 3, 3)),
    "evaluation and development": (pets("train", "eval", "dev"), (7, 3, 3)),
    "a group around the classes": (pets("train/animals", "test/animals"), (7, 3, 0)),
    "unlabelled test": ({**pets("train", "val"), "test": 9}, (7, 3, 0)),
    "unlabelled test in a folder": ({**pets("train", "val"), "test/images": 9}, (7, 3, 0)),
    "unlabelled test in shards": ({**pets("train", "val"), "test/00": 5, "test/01": 4}, (7, 3, 0)),
    "docs beside the data": ({**pets("data/train", "data/test"), "docs": 1}, (7, 3, 0)),
    "odd case": (pets("TRAIN", "tEsT"), (7, 3, 0)),
    "parts in each class": (
        {"cat/train": 4, "cat/test": 2, "dog/train": 3, "dog/test": 1},
        (7, 3, 0),
    ),
    "parts in each class, in any spelling": (
        {"x/cat/Training/a": 4, "x/cat/tst/a": 2, "x/dog/trn": 3, "x/dog/Test": 1},
        (7, 3, 0),
    ),
    "three parts in each class": (
        {
            f"{name}/{part}": count
            for name, counts in (("cat", (4, 2, 1)), ("dog", (3, 1, 1)))
            for part, count in zip(("train", "test", "val"), counts, strict=True)
        },
        (7, 3, 2),
    ),
    "parts in each class, one without test images": (
        {"cat/train": 4, "cat/test": 3, "dog/train": 3},
        (7, 3, 0),
    ),
    "folders of systems": (
        {**pets("train", "test"), "train/@eaDir": 2, "lost+found/cat": 1, "train/cat/.tmp": 1},
        (7, 3, 0),
    ),
    "images between part and class": (pets("data/train/images", "data/test/images"), (7, 3, 0)),
    "strays in a part": ({**pets("train", "test"), "train": 2}, (7, 3, 0)),
}


@pytest.mark.parametrize("kind", PARTS)
def test_parts_are_recognised_by_their_content(kind: str, home: Path) -> None:
    counts, expected = PARTS[kind]
    found = planned(home.parent, counts)
    images = tuple(found[f"{part}_images"] for part in ("train", "test", "val"))
    assert (found["classes"], found["counts"], images) == (["cat", "dog"], [4, 3], expected)


def test_which_folder_became_which_part_is_said(home: Path) -> None:
    found = planned(home.parent, {**pets("trn", "validation", "tst"), "extra": 2})
    assert found["notes"] == [
        "training part: trn in source; test part: tst; validation part: validation",
        "left aside: 2 images in extra",
    ]


def test_a_class_may_be_called_train(home: Path) -> None:
    flat = planned(home.parent / "flat", {"bus": 6, "train": 6, "tram": 6})
    assert flat["classes"] == ["bus", "train", "tram"]
    inner = planned(home.parent / "parts", {"train/train": 4, "train/bus": 3, "test/train": 2})
    assert (inner["classes"], inner["counts"]) == (["bus", "train"], [3, 4])
    # Every class holds its images in one more folder.
    wrapped = {f"{name}/images": 6 for name in ("bus", "train", "tram")}
    found = planned(home.parent / "wrapped", wrapped)
    assert found["classes"] == ["bus", "train", "tram"]


def test_classes_may_be_called_valid_and_invalid(home: Path) -> None:
    assert planned(home.parent, {"valid": 6, "invalid": 6})["classes"] == ["invalid", "valid"]


def test_folders_inside_of_a_class_belong_to_it_and_are_said(home: Path) -> None:
    found = planned(home.parent, {**pets("train", "test"), "train/cat/more": 5})
    assert found["counts"] == [9, 3]
    assert "folders inside of a class belong to it, such as train/cat/more" in found["notes"]


def test_a_test_part_may_lie_at_another_depth_if_levels_are_given(home: Path) -> None:
    counts = {"train/a/cat": 4, "train/a/dog": 3, "train/b/cow": 3, "test/cat": 2}
    found = planned(home.parent, counts, levels="leaf")
    assert (found["classes"], found["test_images"]) == (["cat", "cow", "dog"], 2)


def test_a_class_called_train_may_hold_parts_as_the_others_do(home: Path) -> None:
    counts = {f"{name}/{part}": 3 for name in ("bus", "train", "tram") for part in ("train", "val")}
    found = planned(home.parent, counts)
    assert (found["classes"], found["counts"]) == (["bus", "train", "tram"], [3, 3, 3])
    assert "training part: train in each class; test part: val in each class" in found["notes"]


def test_a_class_without_training_images_is_seen_in_any_layout(home: Path) -> None:
    (home.parent / "source" / "cow" / "train").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="no training image in 1 class folders: cow"):
        planned(home.parent, {"cat/train": 4, "cat/test": 2, "dog/train": 4, "dog/test": 2})


def test_the_parts_are_not_asked_for_where_they_are_known(home: Path) -> None:
    counts = {
        f"{part}/{name}": 3 for part in ("train", "test") for name in ("a/x/1", "a/y/2", "b/z/3")
    }
    with pytest.raises(InvalidInput, match="which folders are the classes") as error:
        planned(home.parent, counts)
    assert "--levels leaf" in str(error.value.remedy)
    assert "--train-dir" not in str(error.value.remedy)


def test_digits_are_classes(home: Path) -> None:
    found = planned(home.parent, {str(digit): 6 for digit in range(11)})
    assert found["classes"] == sorted(map(str, range(11)))


# --------------------------------------------------------------------- doubt

# (folders, words of the error, options of the remedy, options that settle it -> classes)
DOUBT: dict[str, tuple[dict[str, int], str, tuple[str, ...], dict[str, str], list[str]]] = {
    "shards": (
        {"00000": 6, "00001": 6},
        "00000, 00001 look like numbered shards",
        ("--levels top", "--labels FILE"),
        {"levels": "top"},
        ["00000", "00001"],
    ),
    "shards in parts": (
        {"train/000": 6, "train/001": 6, "test/000": 2},
        "look like numbered shards",
        ("--levels top",),
        {"levels": "1"},
        ["000", "001"],
    ),
    "named shards": (
        {"images_1": 6, "images_2": 6},
        "look like numbered shards",
        ("--levels top",),
        {"levels": "top"},
        ["images_1", "images_2"],
    ),
    "the same subfolders": (
        pets("site A", "site B"),
        "site A, site B hold the same subfolders (cat, dog)",
        ("--levels top", "--levels 2", "--levels leaf", "--train-dir"),
        {"levels": "2"},
        ["cat", "dog"],
    ),
    "the same subfolders in parts": (
        {**pets("a", "b"), "b/cow": 3},
        "hold the same subfolders (cat, dog)",
        ("--train-dir", "--test-dir"),
        {"train_dir": "b", "test_dir": "a"},
        ["cat", "cow", "dog"],
    ),
    "nested classes": (
        {"animals/cat": 4, "animals/dog": 4, "plants/rose": 4, "plants/iris": 4},
        "animals holds the folders cat, dog",
        ("--levels top", "--levels 2", "--levels leaf"),
        {"levels": "leaf"},
        ["cat", "dog", "iris", "rose"],
    ),
    "nested classes in parts": (
        {"train/a/cat": 4, "train/a/dog": 4, "train/b/rose": 4, "test/a/cat": 1, "test/b/rose": 1},
        "train/a holds the folders cat, dog",
        ("--levels top", "--levels leaf"),
        {"levels": "top"},
        ["a", "b"],
    ),
    "parts inside some classes": (
        {"cat/train": 4, "cat/test": 2, "dog": 4},
        "cat holds the folders test, train",
        ("--levels top", "anew"),
        {"levels": "top"},
        ["cat", "dog"],
    ),
    "four parts inside each class": (
        {
            f"{name}/{part}": 3
            for name in ("cat", "dog")
            for part in ("train", "test", "eval", "val")
        },
        "the classes have 4 parts (eval, test, train, val), of which only three can be used",
        ("--levels top",),
        {"levels": "top"},
        ["cat", "dog"],
    ),
    "folds": (
        pets("fold1", "fold2", "fold3"),
        "fold1, fold2, fold3 hold the same subfolders (cat, dog)",
        ("--train-dir fold1 --train-dir fold2 --test-dir fold3", "--levels 2"),
        {"train_dir": ("fold1", "fold2"), "test_dir": "fold3"},
        ["cat", "dog"],
    ),
    "folds beside a test part": (
        pets("fold_1", "fold_2", "test"),
        "Parts by their names are test; beside them lie fold_1, fold_2",
        ("--train-dir FOLDER --test-dir test (each may be repeated)",),
        {"train_dir": ("fold_1", "fold_2"), "test_dir": "test"},
        ["cat", "dog"],
    ),
    "folds without class folders": (
        {f"Fold-{number}": 6 for number in range(3)},
        "look like numbered shards",
        ("--levels top",),
        {"levels": "top"},
        ["Fold-0", "Fold-1", "Fold-2"],
    ),
    "a stranger beside the training part": (
        pets("train", "new ones"),
        "the training part train has the same subfolders as new ones",
        ("--train-dir train --test-dir 'new ones'", "--train-dir train --train-dir 'new ones'"),
        {"train_dir": "train", "test_dir": "new ones"},
        ["cat", "dog"],
    ),
    "parts in another language": (
        pets("Trainings Daten", "Test Daten"),
        "hold the same subfolders",
        ("--train-dir 'Trainings Daten' --test-dir 'Test Daten'",),
        {"train_dir": "Trainings Daten", "test_dir": "Test Daten"},
        ["cat", "dog"],
    ),
    "one class in the training part, and a folder beside it": (
        {"train/good": 5, "test/good": 2, "test/broken": 2, "masks/broken": 2},
        "which folders are the training part?",
        ("--train-dir train --test-dir test",),
        {"levels": "top"},
        ["masks", "test", "train"],
    ),
    "parts inside each domain": (
        pets("real/train", "real/test", "drawn/train", "drawn/test"),
        "hold the same subfolders",
        ("--train-dir drawn/train --test-dir drawn/test",),
        {"train_dir": "drawn/train", "test_dir": "drawn/test"},
        ["cat", "dog"],
    ),
    "no class folders in the parts": (
        {"train": 4, "test": 4},
        "in folders with the names of parts (test, train), and in no class folders",
        ("train/CLASS/FILE", "--levels top", "--labels FILE"),
        {"levels": "top"},
        ["test", "train"],
    ),
    "an unlabelled test folder among classes": (
        {"cat": 4, "dog": 4, "test": 4},
        "in folders with the names of parts (test), and in no class folders",
        ("--levels top",),
        {"levels": "top"},
        ["cat", "dog", "test"],
    ),
    "one folder of images": (
        {"Images_64x64": 9},
        "the images lie in Images_64x64, and in no class folders",
        ("CLASS/FILE", "--labels FILE"),
        {"levels": "top"},
        ["Images_64x64"],
    ),
    "a class of that name with folders": (
        {"bus": 9, "tram": 9, "train/steam": 3, "train/diesel": 3},
        "train can be the training part, or a class beside bus, tram",
        ("--train-dir train", "--levels top"),
        {"levels": "top"},
        ["bus", "train", "tram"],
    ),
    "two training parts": (
        pets("train", "training"),
        "2 folders with the name of a training part: train, training",
        ("--train-dir train",),
        {"train_dir": "train", "test_dir": "training"},
        ["cat", "dog"],
    ),
    "two validation parts": (
        pets("train", "val", "validation"),
        "2 folders that can be the test part or the validation part",
        ("--train-dir train --test-dir val --val-dir validation",),
        {"train_dir": "train", "test_dir": "val", "val_dir": "validation"},
        ["cat", "dog"],
    ),
    "test, eval and val": (
        pets("train", "test", "eval", "val"),
        "3 folders",
        ("--test-dir test --val-dir eval",),
        {"train_dir": "train", "test_dir": "test"},
        ["cat", "dog"],
    ),
}


@pytest.mark.parametrize("kind", DOUBT)
def test_doubt_is_an_error_that_names_the_options_that_settle_it(kind: str, home: Path) -> None:
    counts, why, options, settled, classes = DOUBT[kind]
    with pytest.raises(InvalidInput) as error:
        planned(home.parent, counts)
    assert why in str(error.value)
    for option in options:
        assert option in str(error.value.remedy)
    assert planned(home.parent, counts, **settled)["classes"] == classes


def test_folders_that_are_gathered_into_a_class_are_said(home: Path) -> None:
    found = planned(home.parent, pets("a", "b"), levels="2")
    assert found["train_images"] + found["test_images"] == 10
    assert (
        "2 classes are gathered from several folders, such as 'cat' from a/cat, b/cat"
        in found["notes"]
    )


def test_the_innermost_folders_keep_their_path_where_their_names_repeat(home: Path) -> None:
    counts = {"fish/bass": 4, "music/bass": 4, "music/horn": 4}
    found = planned(home.parent, counts, levels="leaf")
    assert found["classes"] == ["fish/bass", "horn", "music/bass"]


def test_test_classes_that_differ_by_case_are_an_error_that_says_so(home: Path) -> None:
    with pytest.raises(InvalidInput, match="'Cat' / 'cat'"):
        planned(home.parent, {"train/Cat": 3, "train/Dog": 3, "test/cat": 2, "test/dog": 1})


def test_a_test_part_of_other_classes_is_an_error(home: Path) -> None:
    with pytest.raises(InvalidInput, match="no training image in 2 class folders: c, d"):
        planned(home.parent, {"train/a": 3, "train/b": 3, "test/c": 2, "test/d": 1})


# --------------------------------------------------------------------- options


def test_an_image_belongs_to_the_innermost_folder_that_is_named(home: Path) -> None:
    counts = {"cat": 4, "dog": 3, "kept/cat": 2, "kept/dog": 1}
    found = planned(home.parent, counts, train_dir=".", test_dir="kept/")
    assert (found["counts"], found["test_images"]) == ([4, 3], 3)


def test_several_folders_are_one_part(home: Path) -> None:
    counts = {**pets("fold1", "fold2"), "fold3/cat": 2, "fold4/dog": 2, "fold5/cow": 9}
    options = {"train_dir": ("fold1", "fold2"), "test_dir": ("fold3", "fold4")}
    found = planned(home.parent, counts, **options)
    assert (found["counts"], found["test_images"]) == ([6, 4], 4)
    assert "left aside: 9 images in fold5/cow" in found["notes"]
    alone = planned(home.parent / "more", counts, train_dir=("fold1", "fold2"))
    assert alone["train_images"] + alone["test_images"] == 10
    table = {"labels.csv": "file,label\n" + "".join(f"{n:03},{n % 2}\n" for n in range(1, 15))}
    source = home.parent / "labelled"
    labelled = planned(source, counts, table, labels=(source / "source" / "labels.csv",), **options)
    assert (labelled["train_images"], labelled["test_images"]) == (10, 4)


def test_a_single_folder_asks_for_the_same_set_as_before(home: Path) -> None:
    """The request that is kept has a single path as a text."""
    source = folder(home.parent / "source", pets("a", "b"))
    prepare(Request("odd", source, train_dir="a", test_dir="b"))
    assert prepare(Request("odd", source, train_dir=("a",), test_dir=("b",))).existed


def test_folders_may_be_named_by_their_path_on_the_disk(home: Path) -> None:
    source = home.parent / "source"
    found = planned(
        home.parent, pets("a", "b"), train_dir=str(source / "a"), test_dir=f"{source}/b/"
    )
    assert (found["train_images"], found["test_images"]) == (7, 3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"train_dir": "trian"}, "did you mean 'train'"),
        ({"train_dir": "train", "test_dir": "train/"}, "different folders"),
        ({"test_dir": "test"}, "need --train-dir"),
        ({"levels": "0"}, "--levels must be"),
        ({"levels": "all"}, "--levels must be"),
        ({"file_column": "f"}, "need --labels"),
        ({"labels": (Path("x.csv"),), "levels": "top"}, "give one"),
        ({"train_list": Path("x.txt"), "levels": "top"}, "leave --labels"),
    ],
)
def test_layout_options_that_cannot_be_are_usage_errors(
    home: Path, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageFailure, match=why):
        planned(home.parent, pets("train", "test"), **options)
