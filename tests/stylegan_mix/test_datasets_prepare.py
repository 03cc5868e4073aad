"""Preparing image folders, archives and lists: what comes out, and every way it can go wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_folders import folder, picture
from PIL import Image

from stylegan_mix import datasets, store
from stylegan_mix.datasets import prepare as preparing
from stylegan_mix.datasets.prepare import Request, plan, prepare, verify
from stylegan_mix.errors import InvalidInput, MissingEnvironment, UsageFailure

TWO = {"train/cat": 9, "train/ant": 4, "test/cat": 3, "test/ant": 3}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "pets", TWO)


def test_a_folder_of_folders_becomes_a_data_set(home: Path, source: Path) -> None:
    done = prepare(Request("pets", source))
    data = datasets.load("pets")
    assert not done.existed
    assert done.folder == home / "datasets" / "pets"
    assert data.classes == ("ant", "cat")
    assert data.counts.tolist() == [4, 9]
    assert (data.profile, data.imbalance, data.flip) == ("natural", None, True)
    assert data.train.images.shape == (13, 8, 8, 3)
    first = np.asarray(Image.open(source / "train/ant/010.png"))
    assert np.array_equal(data.train.images[0], first)
    assert datasets.prepared_names() == ["pets"]
    assert verify("pets")["test_id"] == data.test_id


@pytest.mark.parametrize("kind", ["tar", "gztar", "zip"])
@pytest.mark.parametrize("root", [None, "pets"])
def test_archives_of_a_folder_give_its_ids(home: Path, source: Path, kind: str, root: Any) -> None:
    prepare(Request("pets", source))
    whole = datasets.load("pets")
    base = source if root is None else source.parent
    path = shutil.make_archive(str(home.parent / "packed"), kind, base, root)
    prepare(Request("packed", Path(path)))
    packed = datasets.load("packed")
    assert (packed.split_id, packed.test_id) == (whole.split_id, whole.test_id)
    assert np.array_equal(packed.train.images, whole.train.images)


def test_the_same_request_is_there_already_and_another_is_refused(home: Path, source: Path) -> None:
    first = prepare(Request("pets", source))
    again = prepare(Request("pets", source))
    assert (again.existed, again.facts) == (True, first.facts)
    copied = source.parent / "copy"
    shutil.copytree(source, copied)
    (copied / "readme.txt").write_text("other bytes, the same images")
    assert prepare(Request("pets", copied)).existed
    (copied / "train/cat/001.png").unlink()
    with pytest.raises(UsageFailure, match="exists with other content .13 . 6 images"):
        prepare(Request("pets", copied))
    assert datasets.load("pets").counts.tolist() == [4, 9]
    assert not prepare(Request("pets", copied), replace=True).existed
    assert datasets.load("pets").counts.tolist() == [4, 8]
    assert {path.name for path in (home / "datasets").iterdir()} == {"pets", ".pets.lock"}


def test_a_stopped_preparation_leaves_nothing_and_starts_again(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "image_hashes", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(Request("pets", source))
    assert datasets.prepared_names() == []
    prepare(Request("pets", source))
    # Killed between the two renames of a replacement:
    (home / "datasets" / "pets").rename(home / "datasets" / ".pets.old")
    assert prepare(Request("pets", source)).existed


def test_a_full_disk_is_said_before_anything_is_written(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(MissingEnvironment, match="are free"):
        prepare(Request("pets", source))
    assert datasets.prepared_names() == []


def test_a_damaged_set_is_invalid_input_until_it_is_replaced(home: Path, source: Path) -> None:
    prepare(Request("pets", source))
    path = home / "datasets" / "pets" / "data.h5"
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for act in (datasets.load, verify):
        with pytest.raises(InvalidInput, match="was altered"):
            act("pets")
    with pytest.raises(InvalidInput, match="damaged"):
        prepare(Request("pets", source))
    prepare(Request("pets", source), replace=True)
    assert datasets.load("pets").counts.tolist() == [4, 9]


def test_verify_finds_pixels_that_do_not_fit_their_hashes(home: Path, source: Path) -> None:
    from stylegan_mix.arrays import open_container, write

    done = prepare(Request("pets", source))
    held = open_container(done.folder, kind=preparing.KIND)
    changed = {name: np.array(held[name]) for name in held.names}
    changed["images"][0, 0, 0, 0] ^= 1
    write(home / "datasets" / "forged", changed, kind=preparing.KIND, facts=held.facts)
    with pytest.raises(InvalidInput, match="wrong hashes of the training images, channel sums"):
        verify("forged")


def test_a_plan_writes_nothing(home: Path, source: Path) -> None:
    facts = plan(Request("pets", source))
    assert (facts["counts"], facts["shape"], facts["bytes"]) == ([4, 9], [8, 8, 3], 19 * 192)
    assert not home.exists()


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (4, 8), (1, 12), (3, 4), (4, 16)])
def test_channels_and_sizes_are_what_is_asked_or_there(
    home: Path, channels: int, size: int
) -> None:
    there = folder(home.parent / "there", TWO, channels=channels)
    prepare(Request("there", there, size=size, fit="stretch"))
    assert datasets.load("there").train.images.shape == (13, size, size, channels)
    prepare(Request("asked", there, channels=3))
    assert datasets.load("asked").train.images.shape[3] == 3


def test_uneven_shapes_need_a_size_and_mixed_alpha_needs_channels(home: Path, source: Path) -> None:
    (source / "train/cat/001.png").write_bytes(picture(1, side=9))
    with pytest.raises(InvalidInput, match="2 sizes, 8 to 9 wide") as e:
        prepare(Request("pets", source))
    assert "--size" in str(e.value.remedy)
    prepare(Request("pets", source, size=8))
    flat = source.parent / "flat"
    for number in range(4):
        (flat / "one").mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 6), number).save(flat / "one" / f"{number}.png")
    with pytest.raises(InvalidInput, match="are 9 by 6 pixels; square ones"):
        prepare(Request("flat", flat))
    (source / "train/cat/001.png").write_bytes(picture(1, channels=4))
    with pytest.raises(InvalidInput, match="alpha"):
        prepare(Request("pets2", source))
    (source / "train/cat/001.png").write_bytes(picture(1, channels=1))
    prepare(Request("pets3", source))
    assert datasets.load("pets3").channels == 3


def test_all_bad_images_are_listed_and_can_be_skipped(home: Path, source: Path) -> None:
    (source / "train/cat/001.png").write_bytes(b"text")
    (source / "train/ant/010.png").write_bytes(b"")
    (source / "test/cat/014.png").write_bytes(picture(14)[:-60])
    with pytest.raises(InvalidInput, match="3 images cannot be used") as e:
        prepare(Request("pets", source))
    for bad in ("train/cat/001.png", "train/ant/010.png' is empty", "test/cat/014.png' cannot be"):
        assert bad in str(e.value)
    done = prepare(Request("pets", source, on_bad_image="skip"))
    assert sorted(done.facts["skipped"]) == [
        "test/cat/014.png", "train/ant/010.png", "train/cat/001.png",
    ]  # fmt: skip
    data = datasets.load("pets")
    assert data.counts.tolist() == [3, 8]
    assert len(data.test) == 5
    assert data.classes == ("ant", "cat")


def test_a_flat_folder_holds_the_plankton_share_out(home: Path) -> None:
    source = folder(home.parent / "flat", {"a": 1, "b": 2, "c": 5, "d": 30})
    prepare(Request("flat", source))
    data = datasets.load("flat")
    assert data.counts.tolist() == [1, 1, 3, 24]
    assert data.test_counts.tolist() == [0, 1, 2, 6]
    names = sorted(
        (path.name for path in (source / "d").iterdir()),
        key=lambda name: hashlib.sha256(f"d/{name}".encode()).digest(),
    )
    expected = {np.asarray(Image.open(source / "d" / name)).tobytes() for name in names[:6]}
    found = {one.tobytes() for one in data.test.images[data.test.labels == 3]}
    assert found == expected


LAYOUTS = {
    "no image files": ({}, "no image files"),
    "empty class folder": ({"train/a": 2, "train/b": 0, "test/a": 1}, "no training image in 1"),
    "class without training": ({"train/a": 2, "test/a": 1, "test/b": 1}, "no training image.*: b"),
    "no classes": ({".": 3}, "class folders"),
    "single image": ({"a": 1}, "no test image"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_that_make_no_data_set_say_why(kind: str, home: Path) -> None:
    counts, why = LAYOUTS[kind]
    (home.parent / "odd").mkdir()
    with pytest.raises(InvalidInput, match=why):
        prepare(Request("odd", folder(home.parent / "odd", counts)))


def test_hidden_and_other_files_are_left_aside(home: Path, source: Path) -> None:
    (source / "train/.DS_Store").write_text("x")
    (source / "train/cat/._001.png").write_text("x")
    (source / "licence.txt").write_text("x")
    done = prepare(Request("pets", source))
    assert done.facts["train_images"] == 13
    left = done.facts["notes"][-1]
    assert left == "left aside: 1 .txt in the source, 2 hidden files in train (1), train/cat (1)"


def test_names_that_differ_by_case_or_form_are_in_bytewise_order_with_a_warning(home: Path) -> None:
    names = ["Cat", "cat", "e\u0301tude", "\u00e9tude", "bee"]
    counts = {f"{part}/{name}": 1 for part in ("train", "test") for name in names}
    done = prepare(Request("twins", folder(home.parent / "twins", counts)))
    assert done.facts["classes"] == ["Cat", "bee", "cat", "e\u0301tude", "\u00e9tude"]
    assert any("'Cat' / 'cat'" in note for note in done.facts["notes"])
    assert datasets.load("twins").num_classes == 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "Pets!"}, "cannot name"),
        ({"name": "digits_lt"}, "built in"),
        ({"fit": "pad"}, "--fit needs --size"),
        ({"size": 2}, "--size must lie"),
        ({"channels": 2}, "--channels must"),
        ({"index": Path("a.csv"), "train_list": Path("b.txt")}, "two ways"),
        ({"index": Path("nothing.csv")}, "nothing.csv is missing"),
    ],
)
def test_requests_that_cannot_be_are_usage_errors(
    home: Path, source: Path, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageFailure, match=why):
        prepare(Request(**{"name": "pets", "source": source, **change}))


def test_a_published_name_takes_only_its_number_of_classes(home: Path, source: Path) -> None:
    with pytest.raises(InvalidInput, match="cifar10_lt has 10 classes"):
        prepare(Request("cifar10_lt", source))


# Lists and indices

HEADER = "split,official_index,class,path\n"
GOOD = "train,1,a,a/1.png\ntrain,0,b,a/2.png\ntest,0,a,a/3.png\n"
INDICES = {
    "header": ("split,class\n", "row 1"),
    "columns": (HEADER + "train,0,a\n", "row 2"),
    "split": (HEADER + "val,0,a,\n", "row 2"),
    "number": (HEADER + "train,-1,a,\n", "row 2"),
    "twice": (HEADER + GOOD + "train,1,a,\n", "row 5: train image 1 stands in it twice"),
    "gap": (HEADER + GOOD + "train,3,a,\n", "not 0 to 2"),
    "file twice": (HEADER + GOOD + "train,2,a,a/1.png\n", "a/1.png"),
    "file absent": (HEADER + GOOD + "train,2,a,a/9.png\n", "not in.*a/9.png"),
    "class only tested": (HEADER + GOOD + "test,1,c,\n", "no training image of 1 of 3"),
    "nothing tested": (HEADER + "train,0,a,a/1.png\n", "no test image"),
    "no text": ("\ud800", "UTF-8"),
}


@pytest.mark.parametrize("kind", INDICES)
def test_a_bad_index_is_invalid_input_that_names_the_row(kind: str, home: Path) -> None:
    text, why = INDICES[kind]
    source = folder(home.parent / "flat", {"a": 4})
    for number in range(1, 5):
        (source / "a" / f"00{number}.png").rename(source / "a" / f"{number}.png")
    index = home.parent / "index.csv"
    index.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidInput, match=why):
        prepare(Request("listed", source, index=index))


def test_images_that_cannot_be_read_are_absent_from_an_official_order(home: Path) -> None:
    source = folder(home.parent / "flat", {"a": 6})
    (source / "a/002.png").write_bytes(b"")
    rows = [f"train,{n},{'ab'[n % 2]},a/00{n + 1}.png\n" for n in range(5)]
    index = home.parent / "index.csv"
    index.write_text("\ufeff" + HEADER + "".join(rows) + "test,0,a,a/006.png\n")
    done = prepare(Request("listed", source, index=index, on_bad_image="skip"))
    assert (done.facts["train_listed"], done.facts["train_images"]) == (5, 4)
    with pytest.raises(InvalidInput, match="1 of the 5 images it lists are not there"):
        datasets.load("listed")


def lists(home: Path, train: str, test: str | None = None) -> Request:
    source = folder(home.parent / "net", {"train/n1": 3, "train/n2": 2, "val": 3})
    files = [home.parent / "train.txt", home.parent / "test.txt"]
    files[0].write_text(train)
    files[1].write_text(test or "")
    return Request("net", source, train_list=files[0], test_list=files[1] if test else None)


TRAIN = "train/n2/004.png 1\ntrain/n1/001.png 0\ntrain/n1/003.png 0\n"


def test_imagenet_lt_lists_say_which_file_is_what(home: Path) -> None:
    prepare(lists(home, TRAIN, "val/006.png 0\nval/007.png 1\n"))
    data = datasets.load("net")
    assert data.counts.tolist() == [2, 1]
    assert data.classes == ("0", "1")
    assert np.array_equal(
        data.train.images[0], np.asarray(Image.open(home.parent / "net/train/n2/004.png"))
    )
    prepare(lists(home, TRAIN), replace=True)
    held_out = datasets.load("net")
    assert held_out.classes == ("n1", "n2")
    assert held_out.test_counts.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("train/n1/002.png x", "row 4"),
        ("train/n1/002.png -1", "row 4"),
        ("train/n1/002.png 1.5", "row 4"),
        ("train/n1/002.png 65536", "row 4"),
        ("train/n1/002.png 3", "no training image of 1 of 4 classes: 2"),
        ("train/n1/001.png 0", "twice"),
        ("train/n9/001.png 0", "not in"),
        ("lonely", "row 4"),
    ],
)
def test_a_bad_line_is_invalid_input_that_names_it(home: Path, line: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        prepare(lists(home, TRAIN + line + "\n"))


def inaturalist(path: Path, files: dict[str, int], names: dict[int, str]) -> Path:
    data = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(files)],
        "annotations": [{"image_id": n, "category_id": c} for n, c in enumerate(files.values())],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    path.write_text(json.dumps(data))
    return path


def test_inaturalist_lists_carry_categories(home: Path) -> None:
    request = lists(home, "")
    names = {7: "Bufo", 3: "Rana"}
    train = inaturalist(
        home.parent / "train.json", {"train/n1/001.png": 7, "train/n2/004.png": 3}, names
    )
    test = inaturalist(home.parent / "val.json", {"val/006.png": 3}, names)
    prepare(Request("toads", request.source, train_list=train, test_list=test))
    data = datasets.load("toads")
    assert data.classes == ("Rana", "Bufo")
    assert data.train.labels.tolist() == [1, 0]
    odd = inaturalist(home.parent / "odd.json", {"train/n1/001.png": 7}, {7: "\ud800", 3: "b"})
    with pytest.raises(InvalidInput):
        prepare(Request("toads", request.source, train_list=odd))
    for bad in ("[]", "{}", '{"images": [], "annotations": [], "categories": []}'):
        train.write_text(bad)
        with pytest.raises(InvalidInput):
            prepare(Request("toads", request.source, train_list=train, test_list=test))


def test_a_prepared_set_is_found_in_the_shared_store(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(Request("pets", source))
    whole = datasets.load("pets")
    monkeypatch.setenv("STYLEGAN_MIX_SHARED", str(home))
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(home.parent / "empty"))
    assert datasets.load("pets").split_id == whole.split_id
    assert store.home() != home
