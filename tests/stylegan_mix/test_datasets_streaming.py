"""Streamed sets: tables of files, the pixels behind them, and every way they can change."""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photographs import CLASSES, lists, photograph, photographs
from PIL import Image

from stylegan_mix import arrays, datasets
from stylegan_mix.datasets import prepare as preparing
from stylegan_mix.datasets import streaming
from stylegan_mix.datasets.decoders import Decoders
from stylegan_mix.datasets.hashes import identity_of
from stylegan_mix.datasets.pool import KIND, is_streamed
from stylegan_mix.datasets.prepare import Request, plan, prepare, verify
from stylegan_mix.datasets.streamed import FileImages, as_files
from stylegan_mix.errors import Failure, InvalidInput, MissingEnvironment, UsageFailure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def asked(root: Path, **options: Any) -> Request:
    """A set of views of 16 pixels, by lists unless an option names its layout otherwise."""
    found = lists(root)
    named = {"train_list": found["train"], "test_list": found["test"]}
    return Request("photos", root, **{"size": 16, "stream": True, **named, **options})


def by_folders(root: Path, **options: Any) -> Request:
    return asked(root, train_list=None, test_list=None, **options)


def files(part: datasets.Part) -> FileImages:
    found = as_files(part.images)
    assert found is not None
    return found


def view(path: Path, side: int) -> np.ndarray:
    """Seven eighths of the shorter side, from the middle, resampled linearly."""
    image = Image.open(path)
    cut = min(image.size) * 0.875
    left, top = (image.width - cut) / 2, (image.height - cut) / 2
    box = (left, top, left + cut, top + cut)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))


def test_a_list_becomes_a_set_without_pixels(home: Path, root: Path) -> None:
    done = prepare(asked(root))
    data = datasets.load("photos", streamed=True)
    assert data.classes == CLASSES and data.counts.tolist() == [9, 6, 3]
    assert (data.resolution, data.channels, data.train.images.shape) == (16, 3, (18, 16, 16, 3))
    assert files(data.train).name(9) == "train/bee/010.jpg"
    for row in (0, 9, 17):
        expected = view(root / files(data.train).name(row), 16)
        assert np.array_equal(data.train.images[row], expected)
    assert np.array_equal(data.test.images[[2, 1]], data.test.images[1:3][::-1])
    held = sum(path.stat().st_size for path in done.folder.iterdir())
    assert held < 40_000 and is_streamed("photos")


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_views_of_a_set_are_those_of_a_prepared_one(home: Path, root: Path, fit: str) -> None:
    prepare(asked(root, fit=fit))
    streamed = datasets.load("photos", streamed=True)
    prepare(asked(root, fit=fit, stream=False), replace=True)
    held = datasets.load("photos")
    assert np.array_equal(streamed.train.images[:], held.train.images)
    assert (streamed.mean, streamed.std) == (held.mean, held.std)
    assert streamed.split_id != held.split_id


def test_views_have_224_pixels_and_colour_by_default(home: Path, root: Path) -> None:
    Image.new("L", (30, 20), 90).save(root / "train/ant/001.jpg")
    prepare(asked(root, size=None))
    data = datasets.load("photos", streamed=True)
    assert data.train.images.shape == (18, 224, 224, 3)
    assert (data.train.images[0] == 90).all()


def test_the_split_is_named_by_classes_labels_and_the_bytes_of_files(
    home: Path, root: Path
) -> None:
    prepare(asked(root))
    data = datasets.load("photos", streamed=True)
    head = np.array([16, 16, 3], ">u4").tobytes()
    paths = [root / files(data.train).name(row) for row in range(len(data.train))]
    hashed = [hashlib.sha256(head + path.read_bytes()).digest() for path in paths]
    hashes = np.frombuffer(b"".join(hashed), np.uint8).reshape(-1, 32)
    assert data.split_id == identity_of(hashes, data.train.labels, data.classes)


def test_draws_and_validation_images_are_taken_as_of_other_sets(home: Path, root: Path) -> None:
    prepare(by_folders(root))
    whole = datasets.load("photos", streamed=True, val_per_class=1)
    assert whole.val is not None and whole.counts.tolist() == [9, 6, 3]
    assert [files(whole.val).name(row).split("/")[0] for row in range(3)] == ["val"] * 3
    drawn = datasets.load("photos", streamed=True, imbalance=9.0)
    assert drawn.counts.tolist() == [9, 3, 1]
    names = [files(drawn.train).name(row) for row in range(13)]
    found = [CLASSES.index(name.split("/")[1]) for name in names]
    assert found == drawn.train.labels.tolist() and len(drawn.train.images) == 13
    assert np.array_equal(drawn.train.images[11], view(root / names[11], 16))


def test_some_of_some_images_are_those_of_the_table(home: Path, root: Path) -> None:
    prepare(asked(root))
    every = files(datasets.load("photos", streamed=True).train)
    few = every.chosen(np.array([3, 9, 17])).chosen(np.array([2, 0]))
    assert [few.name(row) for row in range(2)] == [every.name(17), every.name(3)]
    assert np.array_equal(few[:], every[[17, 3]])
    assert np.array_equal(few[-1], every[3])
    with pytest.raises(IndexError):
        few[2]


def test_folders_lists_and_tables_give_one_set(home: Path, root: Path) -> None:
    prepare(asked(root))
    by_list = datasets.load("photos", streamed=True)
    shutil.rmtree(root / "val")
    prepare(Request("folders", root, size=16, stream=True))
    by_folder = datasets.load("folders", streamed=True)
    assert (by_list.split_id, by_list.test_id) == (by_folder.split_id, by_folder.test_id)


def test_nothing_but_a_classifier_takes_a_streamed_set(home: Path, root: Path) -> None:
    prepare(asked(root))
    with pytest.raises(InvalidInput, match="prepared with --stream") as error:
        datasets.load("photos")
    assert f"--from {root} --size 64" in str(error.value.remedy)


# Requests


def test_the_same_request_is_there_already(home: Path, root: Path, monkeypatch: Any) -> None:
    first = prepare(asked(root))
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "write", None)  # nothing is decoded again
        again = prepare(asked(root))
    assert (again.existed, again.facts) == (True, first.facts)
    assert plan(asked(root))["outcome"] == "already there"
    assert plan(asked(root, size=20), replace=True)["outcome"] == "replacement"
    with pytest.raises(UsageFailure, match="other content"):
        prepare(asked(root, size=20))


def test_files_that_moved_are_found_in_their_new_folder(home: Path, root: Path) -> None:
    prepare(asked(root))
    before = datasets.load("photos", streamed=True)
    moved = root.rename(root.with_name("elsewhere"))
    with pytest.raises(MissingEnvironment, match="is not there"):
        files(before.train).require_there()
    with pytest.raises(MissingEnvironment, match="is not there"):
        before.train.images[0]
    assert not prepare(asked(moved)).existed
    after = datasets.load("photos", streamed=True)
    assert after.split_id == before.split_id and files(after.train).root == moved
    files(after.train).require_there()


def test_an_archive_cannot_be_streamed(home: Path, root: Path) -> None:
    packed = shutil.make_archive(str(root), "zip", root)
    with pytest.raises(UsageFailure, match="unpack it"):
        prepare(Request("x", Path(packed), stream=True))
    with pytest.raises(InvalidInput, match="missing, or not a folder"):
        prepare(Request("x", root.with_name("photo"), stream=True))


def test_a_dry_run_reads_no_image(home: Path, root: Path) -> None:
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"no image")
    found = plan(asked(root))
    assert (found["outcome"], found["train_images"], found["test_images"]) == ("new", 18, 9)
    assert found["shape"] == [16, 16, 3] and 0 < found["bytes"] < 10_000


# Bad images


def spoiled(root: Path) -> dict[str, str]:
    """Spoils images in three ways -> a part of the reason for each."""
    whole = photograph(1, 400, 300)
    (root / "train/ant/001.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/ant/002.jpg").write_bytes(b"<html>no image</html>")
    (root / "test/bee/029.jpg").write_bytes(b"")
    return {
        "train/ant/001.jpg": "cannot be decoded",
        "train/ant/002.jpg": "is not an image",
        "test/bee/029.jpg": "is empty",
    }


def test_all_bad_images_are_named_before_any_training(home: Path, root: Path) -> None:
    bad = spoiled(root)
    with pytest.raises(InvalidInput) as error:
        prepare(asked(root))
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == len(bad)
    assert all(f"'{name}' {why}" in str(error.value) for name, why in bad.items())
    assert datasets.prepared_names() == []


def test_bad_images_are_left_out_if_that_is_asked_for(home: Path, root: Path) -> None:
    bad = spoiled(root)
    done = prepare(asked(root, on_bad_image="skip"))
    assert set(done.facts["skipped"]) == set(bad)
    data = datasets.load("photos", streamed=True)
    assert data.counts.tolist() == [7, 6, 3] and data.test_counts.tolist() == [4, 2, 2]
    assert len(data.train.images[:]) == 16


def test_a_class_whose_images_are_all_bad_is_refused(home: Path, root: Path) -> None:
    for path in (root / "train/cow").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InvalidInput, match="no readable training image of cow"):
        prepare(asked(root, on_bad_image="skip"))


# Changed files


def test_a_file_that_changed_is_refused_by_its_name(home: Path, root: Path) -> None:
    prepare(asked(root))
    data = datasets.load("photos", streamed=True)
    path = root / "train/ant/001.jpg"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1  # of the same size, and still an image
    path.write_bytes(content)
    files(data.train).require_there()
    with pytest.raises(InvalidInput, match="'train/ant/001.jpg' .* is not as it was"):
        data.train.images[0]
    assert len(data.train.images[1:3]) == 2
    with pytest.raises(InvalidInput, match="'train/ant/001.jpg' .* is not as it was"):
        verify("photos")


def test_missing_and_longer_files_are_found_without_reading_any(home: Path, root: Path) -> None:
    prepare(asked(root))
    data = datasets.load("photos", streamed=True)
    (root / "train/ant/002.jpg").unlink()
    with (root / "train/ant/003.jpg").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InvalidInput, match="2 files in .*002.jpg' no such file.*003.jpg' has"):
        files(data.train).require_there()
    with pytest.raises(InvalidInput, match="002.jpg' .* cannot be read: No such file"):
        data.train.images[1]
    files(data.test).require_there()


def test_a_file_without_permission_is_of_the_machine(
    home: Path, root: Path, monkeypatch: Any
) -> None:
    prepare(asked(root))
    data = datasets.load("photos", streamed=True)

    def refuse(path: Path, *, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("stylegan_mix.datasets.streamed.read_bytes", refuse)
    with pytest.raises(MissingEnvironment, match="001.jpg' .* Permission denied"):
        data.train.images[0]


def test_a_set_is_verified_file_by_file(home: Path, root: Path) -> None:
    prepare(by_folders(root))
    data = datasets.load("photos", streamed=True)
    assert verify("photos")["test_id"] == data.test_id
    (root / "val/bee/021.jpg").write_bytes(photograph(99, 30, 30))
    with pytest.raises(InvalidInput, match="val/bee/021.jpg"):
        verify("photos")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("names", b"../../../etc/passw"),
        ("ends", [5, 4]),
        ("ends", [1_000_000]),
        ("sizes", [-1]),
    ],
)
def test_a_table_of_others_leads_nowhere_else(
    home: Path, root: Path, name: str, change: Any
) -> None:
    done = prepare(asked(root))
    container = arrays.open_container(done.folder, kind=KIND)
    held = {one: np.array(container[one]) for one in container.names}
    held[name][: len(change)] = np.frombuffer(change, np.uint8) if name == "names" else change
    shutil.rmtree(done.folder)
    arrays.write(done.folder, held, kind=KIND, facts=container.facts)
    with pytest.raises(InvalidInput, match="not a prepared data set of this version"):
        datasets.load("photos", streamed=True)


# Threads


def test_an_image_that_takes_too_long_is_named(home: Path) -> None:
    threads, end = Decoders(1, seconds=0.01), threading.Event()
    slow = threads.give(end.wait, "image 'slow.jpg'")
    behind = threads.give(lambda: 1, "image 'quick.jpg'")
    for pending in (slow, behind):
        with pytest.raises(MissingEnvironment, match="'slow.jpg' was not read") as error:
            threads.result(pending)
        assert error.value.code == 4
    end.set()
    assert threads.result(behind) == 1


def test_few_files_are_in_memory_at_once(home: Path, root: Path, monkeypatch: Any) -> None:
    """At most so many are given to the threads before the first of them is taken."""
    monkeypatch.setattr(streaming, "_AHEAD", 5)
    given: list[str] = []
    taken: list[int] = []

    class Watched:
        def give(self, work: Any, what: str) -> Any:
            given.append(what)
            return work

        def result(self, work: Any) -> Any:
            taken.append(len(given) - len(taken))
            return work()

    monkeypatch.setattr(streaming, "decoders", Watched)
    prepare(asked(root))
    assert len(given) == len(taken) == 27 and max(taken) == 5


def test_a_failure_in_a_thread_is_raised_where_its_image_is_asked_for(home: Path) -> None:
    threads = Decoders(2)

    def fail() -> None:
        raise InvalidInput("bad image")

    pending = [threads.give(fail, "one"), threads.give(lambda: None, "two")]
    assert threads.result(pending[1]) is None
    with pytest.raises(Failure, match="bad image"):
        threads.result(pending[0])


def test_a_stopped_preparation_leaves_nothing(home: Path, root: Path, monkeypatch: Any) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing.streaming, "check_set", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(asked(root))
    assert datasets.prepared_names() == []
