"""Labels in files beside the images: used, refused with the row, or named if they are not used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import folder, picture
from PIL import Image

from stylegan_mix import datasets
from stylegan_mix.datasets.lookup import Lookup
from stylegan_mix.datasets.prepare import Request, plan, prepare
from stylegan_mix.errors import InvalidInput, UsageFailure


def planned(path: Path, counts: dict[str, int], texts: dict[str, str], **options: Any) -> Any:
    return plan(Request("odd", folder(path / "source", counts, texts), **options))


def refused(path: Path, counts: dict[str, int], texts: dict[str, str], **options: Any) -> str:
    with pytest.raises(InvalidInput) as error:
        planned(path, counts, texts, **options)
    return f"{error.value}\n{error.value.remedy}"


def named(numbers: Iterable[int], before: str = "", ending: str = ".png") -> list[str]:
    return [f"{before}{number:03}{ending}" for number in numbers]


def table(files: Iterable[str], labels: str = "cat dog", header: str = "file_name,label") -> str:
    """A CSV of files whose labels take turns."""
    words = labels.split()
    rows = [f"{name},{words[place % len(words)]}" for place, name in enumerate(files)]
    return "\n".join([header, *rows]) + "\n"


def stylegan(pairs: Iterable[tuple[str, Any]]) -> str:
    return json.dumps({"labels": [list(pair) for pair in pairs]})


SHARDS = {"00000": 6, "00001": 6}
SHARDED = [*named(range(1, 7), "00000/"), *named(range(7, 13), "00001/")]


def lookup_cases() -> list[tuple[str, list[str]]]:
    return [
        ("train/1.png", ["train/1.png"]),
        ("./train/1.png", ["train/1.png"]),
        ("train\\1.png", ["train/1.png"]),
        ("train/1", ["train/1.png"]),
        ("2", ["train/2.b.jpg"]),
        ("2.b", ["train/2.b.jpg"]),
        ("/kaggle/input/train/1.png", ["train/1.png"]),
        ("1.png", ["test/1.png", "train/1.png"]),
        ("1", ["test/1.png", "train/1.png"]),
        ("other/1.png", []),
        ("3.png", []),
    ]


def test_words_find_images_by_path_end_of_path_or_name() -> None:
    lookup = Lookup(["train/1.png", "test/1.png", "train/2.b.jpg"])
    for word, expected in lookup_cases():
        if word == "2":
            continue
        assert sorted(lookup.find(word)) == expected, word
    assert lookup.find("1.png", ("train/", "")) == ["train/1.png"]


# --------------------------------------------------------------------- StyleGAN2-ADA


def test_a_stylegan2_ada_set_has_its_labels_and_not_its_shards_as_classes(home: Path) -> None:
    texts = {"dataset.json": stylegan((name, 4 * (n % 3)) for n, name in enumerate(SHARDED))}
    source = folder(home.parent / "source", SHARDS, texts)
    done = prepare(Request("gan", source))
    assert done.facts["classes"] == ["0", "4", "8"]
    data = datasets.load("gan")
    assert (data.counts + data.test_counts).tolist() == [4, 4, 4]
    first = {np.asarray(Image.open(source / name)).tobytes() for name in SHARDED[::3]}
    held = [data.train.images[data.train.labels == 0], data.test.images[data.test.labels == 0]]
    assert {one.tobytes() for one in np.concatenate(held)} == first
    packed = shutil.make_archive(str(home.parent / "packed"), "zip", source)
    prepare(Request("packed", Path(packed)))
    assert datasets.load("packed").split_id == data.split_id


def test_vectors_with_one_1_and_texts_are_labels_too(home: Path) -> None:
    vectors = stylegan((name, [float(n % 2), 1.0 - n % 2]) for n, name in enumerate(SHARDED))
    assert planned(home.parent / "a", SHARDS, {"dataset.json": vectors})["classes"] == ["0", "1"]
    words = json.dumps({"labels": {name: "ab"[n % 2] for n, name in enumerate(SHARDED)}})
    assert planned(home.parent / "b", SHARDS, {"dataset.json": words})["classes"] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (json.dumps({"labels": None}), "its labels are null"),
        (json.dumps({"labels": 3}), "as StyleGAN2-ADA writes it"),
        (json.dumps({"labels": [["00000/001.png"]]}), "label 1"),
        (stylegan([("00000/001.png", [0.5, 0.5]), ("00000/002.png", 1)]), "is a vector"),
        (stylegan([("00000/001.png", {"a": 1})]), "neither a number nor a name"),
        (stylegan([("00000/001.png", None), ("00000/002.png", 1)]), "no label"),
        (stylegan([("00000/001.png", 0), ("00000/099.png", 1)]), "no image of that name"),
        (stylegan([("00000/001.png", 0), ("00000/001.png", 1)]), "more than one row"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_refused(home: Path, content: str, why: str) -> None:
    assert why in refused(home.parent, SHARDS, {"dataset.json": content})


def test_null_labels_are_refused_with_advice_also_beside_class_folders(home: Path) -> None:
    texts = {"dataset.json": json.dumps({"labels": None})}
    said = refused(home.parent, {"cat": 6, "dog": 6}, texts)
    for option in ("make it again with labels", "--labels FILE", "--levels top"):
        assert option in said
    found = planned(home.parent, {"cat": 6, "dog": 6}, texts, levels="top")
    assert found["classes"] == ["cat", "dog"]
    assert "left aside: 1 .json in the source" in found["notes"]


# --------------------------------------------------------------------- Hugging Face


def lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_metadata_of_an_image_folder_is_read(home: Path) -> None:
    files = named(range(1, 9))
    whole = planned(home.parent / "csv", {".": 8}, {"metadata.csv": table(files)})
    assert (whole["source"]["kind"], whole["classes"]) == ("label file", ["cat", "dog"])
    rows = [{"file_name": name, "label": n % 2, "text": f"n {n}"} for n, name in enumerate(files)]
    whole = planned(home.parent / "jsonl", {".": 8}, {"metadata.jsonl": lines(rows)})
    assert whole["classes"] == ["0", "1"]


def test_metadata_inside_the_parts_is_read(home: Path) -> None:
    texts = {
        "train/metadata.csv": table(named(range(1, 9))),
        "validation/metadata.csv": table(named(range(9, 11))),
        "test/metadata.csv": table(named(range(11, 15))),
    }
    found = planned(home.parent, {"train": 8, "validation": 2, "test": 4}, texts)
    images = tuple(found[f"{part}_images"] for part in ("train", "test", "val"))
    assert (images, found["counts"]) == ((8, 4, 2), [4, 4])


def test_metadata_at_the_root_leaves_the_images_in_their_parts(home: Path) -> None:
    files = [*named(range(1, 9), "Train/"), *named(range(9, 13), "Test/")]
    found = planned(home.parent, {"Train": 8, "Test": 4}, {"metadata.csv": table(files)})
    assert (found["train_images"], found["test_images"]) == (8, 4)


def test_captions_are_no_labels(home: Path) -> None:
    files = [*named(range(1, 9), "cat/"), *named(range(9, 17), "dog/")]
    rows = [{"file_name": name, "text": f"picture {n}"} for n, name in enumerate(files)]
    found = planned(home.parent, {"cat": 8, "dog": 8}, {"metadata.jsonl": lines(rows)})
    assert (found["source"]["kind"], found["classes"]) == ("image folder", ["cat", "dog"])


# --------------------------------------------------------------------- tables


def test_a_kaggle_set_takes_its_labels_from_a_table(home: Path) -> None:
    counts = {"train": 8, "test": 4}
    texts = {
        "labels.csv": table(named(range(1, 9), ending=""), "pug corgi", "id,breed"),
        "sample_submission.csv": table(named(range(9, 13), ending=""), "pug", "id,breed"),
    }
    said = refused(home.parent, counts, texts)
    assert "'labels.csv' names images, and is not used" in said
    assert "--labels labels.csv --file-column id --label-column breed" in said
    found = planned(home.parent, counts, texts, labels=(Path("labels.csv"),), label_column="breed")
    assert found["classes"] == ["corgi", "pug"]
    assert found["train_images"] + found["test_images"] == 8
    assert "left aside: 1 .csv in the source, 4 images in test" in found["notes"]


def test_a_table_called_train_means_the_images_of_the_folder_train(home: Path) -> None:
    source = home.parent / "source"
    for number, part in enumerate(("train", "test")):
        (source / part).mkdir(parents=True)
        for n in range(8):
            (source / part / f"{n}.png").write_bytes(picture(100 * number + n))
    rows = "".join(f"{n};{'ab'[n % 2]}\n" for n in range(8))
    (source / "train.csv").write_text("id;target\n" + rows)
    prepare(Request("odd", source, labels=(source / "train.csv",)))
    data = datasets.load("odd")
    inside = {np.asarray(Image.open(path)).tobytes() for path in (source / "train").iterdir()}
    assert {one.tobytes() for one in (*data.train.images, *data.test.images)} == inside
    (source / "all.csv").write_text("id;target\n" + rows)
    with pytest.raises(InvalidInput, match="several images of one name") as error:
        plan(Request("odd", source, labels=(source / "all.csv",)))
    assert "--train-dir" in str(error.value.remedy)
    found = plan(Request("odd", source, labels=(source / "all.csv",), train_dir="test"))
    assert found["train_images"] + found["test_images"] == 8


def test_two_tables_are_the_parts_of_their_names(home: Path) -> None:
    counts = {"Train": 6, "Test": 4}
    head = "Width,Height,ClassId,Path"
    texts = {
        f"{part}.csv": head
        + "\n"
        + "".join(f"9,9,{n % 2},{name}\n" for n, name in enumerate(files))
        for part, files in (
            ("Train", named(range(1, 7), "Train/")),
            ("Test", named(range(7, 11), "Test/")),
        )
    }
    found = planned(home.parent, counts, texts, labels=(Path("Train.csv"), Path("Test.csv")))
    assert (found["train_images"], found["test_images"], found["counts"]) == (6, 4, [3, 3])
    said = refused(
        home.parent / "b", counts, {"a.csv": texts["Train.csv"], "b.csv": texts["Test.csv"]},
        labels=(Path("a.csv"), Path("b.csv")),
    )  # fmt: skip
    assert "which part does each label file name" in said


def test_a_column_of_parts_is_used(home: Path) -> None:
    files = [*named(range(1, 7), "a/"), *named(range(7, 13), "b/")]
    rows = [
        f"{name},{'ab'[n % 2]},{('TRAIN', 'test', 'valid')[n % 3]}" for n, name in enumerate(files)
    ]
    texts = {"birds.csv": "filepaths,labels,data set\n" + "\n".join(rows)}
    found = planned(home.parent, {"a": 6, "b": 6}, texts, labels=(Path("birds.csv"),))
    assert [found[f"{part}_images"] for part in ("train", "test", "val")] == [4, 4, 4]


def test_classes_are_numbers_with_gaps_or_names(home: Path) -> None:
    files = named(range(1, 13))
    for labels, classes in (
        ("7 100 9", ["7", "9", "100"]),
        ("7.0 07 3.0", ["3", "7"]),
        ("x 7 10", ["10", "7", "x"]),
        ("Ünlü 猫 кот", ["Ünlü", "кот", "猫"]),
    ):
        text = table(files, labels, "picture,what")
        found = planned(home.parent, {".": 12}, {"l.csv": text}, labels=(Path("l.csv"),))
        assert found["classes"] == classes


def test_names_are_taken_before_the_numbers_of_the_same_classes(home: Path) -> None:
    rows = "".join(f"{n % 2}\t{name}\t{'ab'[n % 2]}\n" for n, name in enumerate(named(range(1, 9))))
    texts = {"l.tsv": "class_id\tfile\tclass_name\n" + rows}
    assert planned(home.parent, {".": 8}, texts, labels=(Path("l.tsv"),))["classes"] == ["a", "b"]


FILES = named(range(1, 9))
BAD_TABLES = {
    "empty": ("", "is empty", {}),
    "header alone": ("a,b\n", "no column names the images", {}),
    "no header": (table(FILES, header="").strip(), "expected a header", {}),
    "other files": (table(named(range(50, 58)), header="f,l"), "no column names the images", {}),
    "short row": (table(FILES) + "x\n", "row 10: expected 2 columns as in the header, got 1", {}),
    "missing image": (table([*FILES, "099.png"]), "'099.png' (row 10)", {}),
    "no label": (table(FILES) + "x.png,\n", "no image of that name", {}),
    "blank label": (table(FILES).replace("002.png,dog", "002.png,"), "row 3 ('002.png')", {}),
    "twice": (table([*FILES, "003.png"]), "more than one row for 1 image: 003.png", {}),
    "one class": (table(FILES, "cat"), "gives 1 classes", {}),
    "which column": (
        "file,colour,size\n" + "".join(f"{name},red,{n % 2}\n" for n, name in enumerate(FILES)),
        "which column holds the labels? its columns are 'file', 'colour', 'size'",
        {},
    ),
    "two of a name": (
        "f,x,x\n" + "".join(f"{name},1,2\n" for name in FILES),
        "two columns 'x'",
        {"label_column": "x"},
    ),
    "huge field": ("f,l\n" + "x" * 200_000 + ",1\n", "is no table", {}),
    "no text": ("\udcff", "is not UTF-8", {}),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_invalid_input_that_names_the_row(
    kind: str, home: Path
) -> None:
    text, why, options = BAD_TABLES[kind]
    source = folder(home.parent / "source", {".": 8})
    (source / "l.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidInput) as error:
        plan(Request("odd", source, labels=(Path("l.csv"),), **options))
    assert why in str(error.value)


@pytest.mark.parametrize("bad", ["[1]\n", "{\n", '{"a": ' + "9" * 5000 + "}\n", "[" * 5000])
def test_json_lines_that_cannot_be_read_are_invalid_input(home: Path, bad: str) -> None:
    said = refused(home.parent, {".": 8}, {"l.jsonl": bad}, labels=(Path("l.jsonl"),))
    assert "l.jsonl, row 1" in said


@pytest.mark.parametrize("label", ["\\ud800", "\\u0007", "a\\nb", "x" * 2000])
def test_labels_that_cannot_be_class_names_are_invalid_input(home: Path, label: str) -> None:
    rows = [f'{{"f": "{name}", "l": "{("cat", label)[n % 2]}"}}' for n, name in enumerate(FILES)]
    said = refused(home.parent, {".": 8}, {"l.jsonl": "\n".join(rows)}, labels=(Path("l.jsonl"),))
    assert "a class cannot be named" in said


def test_a_path_of_megabytes_names_nothing() -> None:
    assert Lookup(["a/1.png"]).find("a/" * 1_000_000 + "1.png") == []


def test_a_column_that_is_not_there_is_a_usage_error(home: Path) -> None:
    texts = {"l.csv": table(FILES)}
    for option in ("file_column", "label_column"):
        with pytest.raises(UsageFailure, match="Known: file_name, label"):
            planned(home.parent, {".": 8}, texts, labels=(Path("l.csv"),), **{option: "lable"})
    with pytest.raises(UsageFailure, match="is missing.*holds l.csv"):
        planned(home.parent, {".": 8}, texts, labels=(Path("m.csv"),))


def test_rows_without_an_image_can_be_left_out(home: Path) -> None:
    texts = {"l.csv": table([*FILES, "099.png"])}
    found = planned(home.parent, {".": 8}, texts, labels=(Path("l.csv"),), on_bad_image="skip")
    assert found["train_images"] + found["test_images"] == 8
    assert "no image for 1 row of l.csv: '099.png' (row 10)" in found["notes"]


def test_other_labels_of_the_same_images_are_another_request(home: Path) -> None:
    source = folder(home.parent / "source", {".": 8})
    path = home.parent / "l.csv"
    path.write_text(table(FILES))
    prepare(Request("odd", source, labels=(path,)))
    assert prepare(Request("odd", source, labels=(path,))).existed
    path.write_text(table(FILES, "dog cat"))
    with pytest.raises(UsageFailure, match="other content"):
        prepare(Request("odd", source, labels=(path,)))


# --------------------------------------------------------------------- not used

UNUSED = {
    "labels.csv": table(named(range(1, 7), "cat/"), "x y"),
    "data.tsv": "p\tq\n" + "".join(f"{n:03}.png\t{n % 2}\n" for n in range(1, 7)),
    "train.txt": "".join(f"cat/{n:03}.png {n % 2}\n" for n in range(1, 7)),
    "few.csv": table(["cat/001.png", "dog/008.png"]),
    "ragged.csv": table(named(range(1, 7), "cat/")) + "cat/002.png,x,y\n",
    "of_a_larger_set.csv": table(named(range(1, 90), "cat/"), "x y"),
    "annotations.json": json.dumps({"images": [{"file_name": "cat/001.png"}]}),
    "labels.jsonl": lines({"f": f"cat/{n:03}.png", "l": n % 2} for n in range(1, 7)),
    "metadata.parquet": "PAR1",
    "labels.xlsx": "PK",
    "imagelabels.mat": "MATLAB",
}


@pytest.mark.parametrize("name", UNUSED)
@pytest.mark.parametrize("layout", [{"cat": 6, "dog": 6}, SHARDS])
def test_a_label_file_that_is_not_used_is_an_error_that_names_it(
    name: str, layout: dict[str, int], home: Path
) -> None:
    text = UNUSED[name].replace("cat/", f"{next(iter(layout))}/")
    said = refused(home.parent, layout, {name: text.replace("dog/", f"{list(layout)[1]}/")})
    assert f"'{name}'" in said
    assert "--levels top" in said
    found = planned(home.parent, layout, {}, levels="top")
    assert found["classes"] == list(layout)


def test_the_tables_of_several_parts_are_proposed_together(home: Path) -> None:
    texts = {
        f"{part}.csv": table(files, header="Filename,ClassName")
        for part, files in (
            ("train", named(range(1, 5), "cat/")),
            ("test", named(range(5, 7), "cat/")),
            ("validation", named(range(7, 9), "dog/")),
        )
    }
    said = refused(home.parent, {"cat": 6, "dog": 6}, texts)
    assert (
        "--labels test.csv --labels train.csv --labels validation.csv --file-column Filename "
        "--label-column ClassName"
    ) in said
    paths = tuple(map(Path, texts))
    found = planned(home.parent, {"cat": 6, "dog": 6}, texts, labels=paths)
    assert [found[f"{part}_images"] for part in ("train", "test", "val")] == [4, 2, 2]


def test_texts_that_name_no_image_are_left_aside(home: Path) -> None:
    texts = {
        "README.txt": "cat/001.png is a cat.\nThese are pictures of cats and dogs.\n",
        "classes.txt": "cat\ndog\n",
        "words.txt": "cat\tanimal\ndog\tanimal\n",
        "info.json": json.dumps({"licence": "CC0"}),
        "broken.json": "{",
        "numbers.csv": "a,b\n1,2\n",
        "sample_submission.csv": table(named(range(1, 13))),
    }
    found = planned(home.parent, {"cat": 6, "dog": 6}, texts)
    assert found["classes"] == ["cat", "dog"]
    assert "left aside: 2 .csv in the source, 2 .json in the source" in found["notes"][-1]


# --------------------------------------------------------------------- beside one part


def test_tiny_imagenet_has_its_validation_classes_in_a_text(home: Path) -> None:
    counts = {"train/n01/images": 4, "train/n02/images": 4, "val/images": 4, "test/images": 3}
    rows = "".join(f"{n:03}.png\tn0{1 + n % 2}\t0\t0\t62\t62\n" for n in range(9, 13))
    texts = {
        "val/val_annotations.txt": rows,
        "train/n01/n01_boxes.txt": "001.png\t0\t0\t1\t1\n",
        "wnids.txt": "n01\nn02\n",
        "words.txt": "n01\tcat\nn02\tdog\n",
    }
    source = folder(home.parent / "source", counts, texts)
    prepare(Request("tiny", source))
    data = datasets.load("tiny")
    assert (data.classes, data.counts.tolist()) == (("n01", "n02"), [4, 4])
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    first = np.asarray(Image.open(source / "val/images/010.png"))
    assert np.array_equal(data.test.images[0], first)


def test_a_table_of_the_test_part_is_used_for_its_images(home: Path) -> None:
    counts = {"Train/0": 4, "Train/1": 4, "Test": 4}
    rows = "".join(f"{n % 2},1,{n % 2},Test/{n:03}.png\n" for n in range(9, 13))
    texts = {"Test.csv": "Roi,Width,ClassId,Path\n" + rows}
    found = planned(home.parent, counts, texts)
    assert (found["classes"], found["test_images"]) == (["0", "1"], 4)
    # Without a usual name, no column is taken for the labels: two look like them.
    texts = {"Test.csv": texts["Test.csv"].replace("ClassId", "Kind")}
    assert "'Test.csv' names images, and is not used" in refused(home.parent, counts, texts)


@pytest.mark.parametrize("layout", [{"train": 6, "test": 3}, {"images": 6}, {".": 6}])
def test_folders_that_can_be_no_classes_are_not_proposed(
    layout: dict[str, int], home: Path
) -> None:
    texts = {"train.csv": table(named(range(1, 7), ending=""), header="image_id,label")}
    said = refused(home.parent, layout, texts)
    assert "--labels train.csv --file-column image_id --label-column label" in said
    assert "--levels" not in said
    found = planned(
        *(home.parent, layout, texts),
        labels=(Path("train.csv"),),
        file_column="image_id",
        label_column="label",
    )
    assert found["train_images"] + found["test_images"] == 6


def test_a_table_of_a_part_with_other_classes_tells_which_it_may_hold(home: Path) -> None:
    """Taking the classes from it would leave the training part out."""
    texts = {"test_labels.csv": table(named(range(9, 13)), "0 1", "id,label")}
    said = refused(home.parent, {"train/cat": 4, "train/dog": 4, "test": 4}, texts)
    assert "no single column of it holds the classes of the training part (cat, dog)" in said
    assert "--labels" not in said


def test_columns_of_classes_with_one_1_in_each_row_are_labels(home: Path) -> None:
    rows = [f"{n:03},{int(n % 2 == 0)}.0,{n % 2},0" for n in range(1, 7)]
    rows += [f"{n:03},0,0,1" for n in range(7, 10)]
    texts = {"marks.csv": "\n".join(["image,cat,dog,cow", *rows])}
    said = refused(home.parent, {"images": 9}, texts)
    assert "--labels marks.csv --file-column image\n" in f"{said}\n"
    found = planned(home.parent / "used", {"images": 9}, texts, labels=(Path("marks.csv"),))
    assert (found["classes"], sum(found["counts"])) == (["cat", "cow", "dog"], 3)
    assert found["test_images"] == 6
    assert "classes: the one of cat, dog, cow that holds 1, of marks.csv" in found["notes"]
    for other in ("002,1,1,0", "002,0,0,0", "002,2,0,0"):
        texts = {"marks.csv": texts["marks.csv"].replace("002,1.0,0,0", other)}
        again = home.parent / other
        said = refused(again, {"images": 9}, texts, labels=(Path("marks.csv"),))
        assert "which column holds the labels" in said
        texts = {"marks.csv": texts["marks.csv"].replace(other, "002,1.0,0,0")}


def test_a_list_of_a_part_without_labels_is_not_passed_over(home: Path) -> None:
    texts = {
        "train.txt": "\n".join(named(range(1, 5), "cat/", "")),
        "test.txt": "\n".join(named(range(5, 7), "cat/", "")),
    }
    said = refused(home.parent, {"images/cat": 6, "images/dog": 6}, texts)
    assert "'test.txt' names images, and is not used" in said
    assert "--labels test.txt with a header and a column of labels added" in said
    assert "--levels top" in said
    # Names of classes are no images.
    texts = {"train.txt": "cat\ndog\n"}
    found = planned(home.parent / "other", {"images/cat": 6, "images/dog": 6}, texts)
    assert found["classes"] == ["cat", "dog"]


def test_lists_without_header_of_two_parts_are_proposed_together(home: Path) -> None:
    texts = {
        "train.txt": "".join(f"cat/{n:03}.png 0\n" for n in range(1, 5)),
        "test.txt": "".join(f"cat/{n:03}.png 0\n" for n in range(5, 7)),
    }
    said = refused(home.parent, {"cat": 6, "dog": 6}, texts)
    assert "--train-list train.txt --test-list test.txt for lines of 'path number'" in said
