"""The real archives: the published draws of CIFAR-10, and sets of other kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_mix import datasets
from stylegan_mix.datasets import pool
from stylegan_mix.datasets import prepare as prepare_module
from stylegan_mix.datasets.prepare import Request, prepare, verify
from stylegan_mix.errors import InvalidInput

# The pixels behind these ids are the official ones: the batch files rebuilt from the source of
# the archive have the published MD5 sums.
CIFAR10_ID = "a71a6cf1f1abaf58f0fef56cfb27be83d27533b456ce7d751eae3cc47df9757f"
CIFAR10_TEST_ID = "6d7809ffa105902eda6291cfdac031a6b328844b70b967611bdefecc193e74b2"


@pytest.fixture(scope="module")
def prepared(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with the four archives in it."""
    store = tmp_path_factory.mktemp("store")
    data = shared_data / "data"
    index = data / "cifar10-if10-webp.index.csv"
    before = os.environ.get("STYLEGAN_MIX_HOME")
    os.environ["STYLEGAN_MIX_HOME"] = str(store)
    prepare(Request("cifar10_lt", data / "cifar10-if10-webp.zip", index=index))
    prepare(Request("cifar100_lt", data / "cifar100-lt100-webp.zip"))
    prepare(Request("tiny20", data / "tinyimagenet20-jpeg.tar"))
    plankton = data / "plankton18-jpeg.tar"
    prepare(Request("plankton18", plankton, size=32, fit="pad", channels=1))
    if before is not None:
        os.environ["STYLEGAN_MIX_HOME"] = before
    yield store


@pytest.fixture(autouse=True)
def _store(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(prepared))


@pytest.mark.slow
def test_cifar10_has_the_published_draw_and_its_prefixes() -> None:
    data = datasets.load("cifar10_lt")
    assert data.counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert (data.split_id, data.test_id) == (CIFAR10_ID, CIFAR10_TEST_ID)
    assert data.groups.rule == "index 3/4/3"
    assert len(data.overlap) == 0
    draws = {factor: datasets.load("cifar10_lt", imbalance=factor) for factor in (10, 20, 50, 200)}
    assert draws[10].counts.sum() == 20431
    images = [{one.tobytes() for one in draws[f].train.images} for f in (10, 20, 50, 200)]
    assert images[3] < images[2] < images[1] < images[0]
    for factor, profile in ((5, "exp"), (100, "step"), (None, "natural")):
        with pytest.raises(InvalidInput, match="can give exp 10, 20, 50, 100, 200"):
            datasets.load("cifar10_lt", imbalance=factor, profile=profile)


@pytest.mark.slow
def test_cifar100_is_its_own_draw_and_lists_its_overlap() -> None:
    data = datasets.load("cifar100_lt")
    assert (data.counts.sum(), data.counts.max(), data.counts.min()) == (10847, 500, 5)
    assert (data.profile, data.imbalance) == ("exp", 100.0)
    assert datasets.load("cifar100_lt", profile="natural").split_id == data.split_id
    assert [len(one) for one in (data.groups.many, data.groups.medium, data.groups.few)] == [
        35, 35, 30,
    ]  # fmt: skip
    assert len(data.overlap) == 5
    test = {one.tobytes() for one in data.test.images}
    assert all(data.train.images[row].tobytes() in test for row in data.overlap)
    assert len(datasets.load("cifar100_lt", drop_overlap=True).train) == 10842
    with pytest.raises(InvalidInput, match="asks 488 images of class 'aquarium_fish'"):
        datasets.load("cifar100_lt", imbalance=10)


@pytest.mark.slow
def test_tiny_imagenet_turns_its_grey_images_into_colour() -> None:
    data = datasets.load("tiny20")
    assert data.counts.tolist() == [100] * 20
    assert data.test_counts.tolist() == [50] * 20
    assert data.train.images.shape == (2000, 64, 64, 3)
    grey = (data.train.images == data.train.images[..., :1]).all(axis=(1, 2, 3))
    assert 0 < grey.sum() < 60


@pytest.mark.slow
def test_plankton_keeps_its_natural_sizes() -> None:
    data = datasets.load("plankton18")
    assert data.train.images.shape == (4330, 32, 32, 1)
    assert sorted(data.counts.tolist())[::17] == [7, 1583]
    assert len(data.test) == 1084
    assert np.median(data.train.images[:, 0, 0, 0]) > 220


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_lt", "cifar100_lt", "tiny20", "plankton18"])
def test_real_sets_are_whole_and_load_without_work_on_an_image(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(name)["name"] == name
    monkeypatch.setattr(Image, "open", None)
    for module in (prepare_module, pool):
        monkeypatch.setattr(module, "image_hashes", None)
    assert datasets.load(name).name == name


@pytest.mark.slow
def test_official_archives_filled_with_anything_give_the_published_id(
    prepared: Path, tmp_path: Path
) -> None:
    from stylegan_mix.datasets.pool import open_pool

    pool, _ = open_pool("cifar10_lt")
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    images[pool.position] = pool.images
    whole = (images, pool.listed), (pool.test_images, pool.test_labels)
    for write in (write_binary, write_python):
        path = write(tmp_path / f"{write.__name__}.tar", list(pool.classes), *whole)
        prepare(Request(write.__name__, path, allow_unknown_hash=True))
        path.unlink()
        data = datasets.load(write.__name__, imbalance=100)
        assert (data.split_id, data.test_id) == (CIFAR10_ID, CIFAR10_TEST_ID)
        assert np.array_equal(data.train.images, datasets.load("cifar10_lt").train.images)


Part = tuple[np.ndarray, np.ndarray]


def batches(train: Part, test: Part) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(file name, rows of planes, labels) of the five batches and the test batch."""
    parts = [("test_batch", *test)]
    parts += [
        (f"data_batch_{n + 1}", *(one[n * 10_000 : (n + 1) * 10_000] for one in train))
        for n in range(5)
    ]
    for name, images, labels in parts:
        yield name, images.transpose(0, 3, 1, 2).reshape(len(images), -1), labels


def write_tar(path: Path, files: Iterator[tuple[str, bytes]]) -> Path:
    import io
    import tarfile

    with tarfile.open(path, "w") as out:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def write_binary(path: Path, classes: list[str], train: Part, test: Part) -> Path:
    def files() -> Iterator[tuple[str, bytes]]:
        yield "cifar-10-batches-bin/batches.meta.txt", "\n".join(classes).encode()
        for name, rows, labels in batches(train, test):
            records = np.concatenate([labels[:, None].astype(np.uint8), rows], 1)
            yield f"cifar-10-batches-bin/{name}.bin", records.tobytes()

    return write_tar(path, files())


def write_python(path: Path, classes: list[str], train: Part, test: Part) -> Path:
    import pickle

    def files() -> Iterator[tuple[str, bytes]]:
        names = {b"label_names": [name.encode() for name in classes]}
        yield "cifar-10-batches-py/batches.meta", pickle.dumps(names, 2)
        for name, rows, labels in batches(train, test):
            batch = {b"data": np.ascontiguousarray(rows), b"labels": labels.tolist()}
            yield f"cifar-10-batches-py/{name}", pickle.dumps(batch, 2)

    return write_tar(path, files())
