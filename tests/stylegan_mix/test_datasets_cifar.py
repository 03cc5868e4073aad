"""Official CIFAR archives: both formats give one split, and no pickle runs anything."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylegan_mix import datasets
from stylegan_mix.datasets import cifar, official
from stylegan_mix.datasets.prepare import Request, prepare
from stylegan_mix.datasets.splits import long_tailed_counts, long_tailed_indices
from stylegan_mix.errors import InvalidInput

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay"]


def python2_pickle(value: Any) -> bytes:
    """What Python 2's cPickle wrote at protocol 2, as the official files have it."""

    def put(one: Any) -> bytes:
        if isinstance(one, bytes):
            short = len(one) < 256
            return (b"U" + bytes([len(one)]) if short else b"T" + struct.pack("<i", len(one))) + one
        if isinstance(one, int):
            return b"J" + struct.pack("<i", one)
        if isinstance(one, list):
            return b"](" + b"".join(map(put, one)) + b"e"
        if isinstance(one, dict):
            return b"}(" + b"".join(put(key) + put(item) for key, item in one.items()) + b"u"
        assert isinstance(one, np.ndarray)
        shape = b"".join(map(put, one.shape)) + b"\x86"
        dtype = b"cnumpy\ndtype\n" + put(b"u1") + b"K\0K\1\x87R"
        dtype += b"(" + b"K\3" + put(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\0tb"
        made = (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + put(b"b") + b"\x87R"
        )
        return made + b"(K\1" + shape + dtype + b"\x89" + put(one.tobytes()) + b"tb"

    return b"\x80\x02" + put(value) + b"."


def tar(path: Path, files: dict[str, bytes]) -> Path:
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


Part = tuple[np.ndarray, np.ndarray]


def python_archive(
    path: Path, train: Part, test: Part, batches: int = 5, dumps: Any = None
) -> Path:
    dump = dumps or python2_pickle
    images, labels = train
    files = {"batches.meta": dump({b"label_names": [name.encode() for name in NAMES]})}
    for number, rows in enumerate(np.array_split(np.arange(len(labels)), batches), 1):
        files[f"data_batch_{number}"] = dump(
            {b"batch_label": b"x", b"labels": labels[rows].tolist(), b"data": planes(images[rows])}
        )
    files["test_batch"] = dump({b"labels": test[1].tolist(), b"data": planes(test[0])})
    return tar(path, {f"cifar-10-batches-py/{name}": content for name, content in files.items()})


def binary_archive(path: Path, train: Part, test: Part, batches: int = 5) -> Path:
    def records(part: Part) -> bytes:
        return np.concatenate([part[1][:, None].astype(np.uint8), planes(part[0])], 1).tobytes()

    images, labels = train
    files = {"batches.meta.txt": "\n".join([*NAMES, ""]).encode(), "test_batch.bin": records(test)}
    for number, rows in enumerate(np.array_split(np.arange(len(labels)), batches), 1):
        files[f"data_batch_{number}.bin"] = records((images[rows], labels[rows]))
    return tar(path, {f"cifar-10-batches-bin/{name}": content for name, content in files.items()})


@pytest.fixture(scope="module")
def parts() -> tuple[Part, Part]:
    draws = np.random.default_rng(0)
    labels = draws.permutation(np.repeat(np.arange(10), 20))
    images = draws.integers(0, 256, (200, 32, 32, 3), np.uint8)
    tested = draws.integers(0, 256, (30, 32, 32, 3), np.uint8)
    return (images, labels), (tested, np.arange(30) % 10)


def indexed_folder(path: Path, parts: tuple[Part, Part], held: set[int]) -> tuple[Path, Path]:
    """An image folder that holds some training images, and the index of all."""
    rows = ["split,official_index,class,path"]
    for split, (images, labels) in zip(("train", "test"), parts, strict=True):
        for place, label in enumerate(labels):
            name = f"{split}/{NAMES[label]}/{1000 - place}.png"
            if split == "test" or place in held:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[place]).save(path / name)
            else:
                name = ""
            rows.append(f"{split},{place},{NAMES[label]},{name}")
    index = path.with_suffix(".csv")
    index.write_text("\n".join(rows) + "\n")
    return path, index


def test_python_binary_and_an_indexed_folder_give_the_same_split(
    home: Path, parts: tuple[Part, Part]
) -> None:
    train, test = parts
    kept = set(long_tailed_indices(train[1], long_tailed_counts(20, 10, 4)).tolist())
    noise = train[0].copy()
    absent = [place for place in range(200) if place not in kept]
    noise[absent] = 77  # the draw does not touch what is not there
    folder, index = indexed_folder(home.parent / "folder", parts, kept)
    base = home.parent
    sources = {
        "python": python_archive(base / "a.tar.gz", train, test),
        "noisy": python_archive(base / "b.tar", (noise, train[1]), test),
        "binary": binary_archive(base / "c.tar.gz", train, test),
    }
    requests = [Request(name, path, allow_unknown_hash=True) for name, path in sources.items()]
    requests.append(Request("folder", folder, index=index))
    drawn = []
    for request in requests:
        prepare(request)
        for factor in (4, 10):
            data = datasets.load(request.name, imbalance=factor)
            drawn.append((factor, data.split_id, data.test_id, data.train.images.tobytes()))
    assert len(set(drawn)) == 2
    assert data.counts.tolist() == long_tailed_counts(20, 10, 10).tolist()
    with pytest.raises(InvalidInput, match="can give exp 5, 10, 20, 50"):
        datasets.load("folder", imbalance=2)
    assert (
        datasets.load("python", imbalance=2).split_id
        != datasets.load("noisy", imbalance=2).split_id
    )
    whole = datasets.load("python")
    assert np.array_equal(whole.train.images, train[0])
    assert np.array_equal(whole.train.labels, train[1])
    assert np.array_equal(whole.test.images, test[0])


def test_cifar100_binary_reads_the_fine_label(home: Path, parts: tuple[Part, Part]) -> None:
    def records(part: Part) -> bytes:
        fine = part[1][:, None].astype(np.uint8)
        return np.concatenate([fine // 5, fine, planes(part[0])], 1).tobytes()

    files = {
        "c/train.bin": records(parts[0]),
        "c/test.bin": records(parts[1]),
        "c/fine_label_names.txt": "\n".join(NAMES).encode(),
    }
    path = tar(home.parent / "a.tar", files)
    prepare(Request("fine", path, allow_unknown_hash=True))
    assert np.array_equal(datasets.load("fine").train.labels, parts[0][1])


def test_pickles_that_a_newer_python_wrote_are_read(
    parts: tuple[Part, Part], tmp_path: Path
) -> None:
    train, test = parts
    for protocol in (2, 4, 5):
        path = python_archive(
            tmp_path / f"{protocol}.tar",
            train,
            test,
            dumps=lambda one, p=protocol: pickle.dumps(one, p),
        )
        with cifar_archive(path) as archive:
            found = cifar.read_batches(archive)
        assert np.array_equal(found.images, train[0])


def cifar_archive(path: Path) -> Any:
    from stylegan_mix.datasets.archives import open_archive

    return open_archive(path)


def test_an_archive_of_another_hash_is_refused(home: Path, parts: tuple[Part, Part]) -> None:
    path = python_archive(home.parent / "a.tar.gz", *parts)
    with pytest.raises(InvalidInput, match="its hash is another") as e:
        prepare(Request("cifar10_lt", path))
    assert "c58f30108f718f92721af3b95e74349a" in str(e.value)
    assert not (home / "datasets" / "cifar10_lt").exists()


def test_the_hash_is_checked_before_anything_is_parsed(
    home: Path, parts: tuple[Part, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(cifar, "read_batches", never)
    with pytest.raises(InvalidInput, match="its hash is another"):
        prepare(Request("cifar10_lt", python_archive(home.parent / "a.tar", *parts)))


def test_published_hashes_admit_exactly_these_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    content = b"published"
    one = official.OfficialArchive(
        "a.tar.gz", 9, hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    )
    for wrong in (replace(one, md5="0" * 32), replace(one, sha256="0" * 64)):
        known = official.OfficialSet(10, (wrong, wrong), ("exp", 100.0))
        monkeypatch.setitem(official.SETS, "a", known)
        assert official.known_by_hash(content) is None
    monkeypatch.setitem(official.SETS, "a", official.OfficialSet(10, (one, one), ("exp", 100.0)))
    assert official.known_by_hash(content) is one
    assert official.known_by_hash(b"publisheD") is None
    assert {len(a.sha256) for s in official.SETS.values() for a in s.archives} == {64}
    assert {len(a.md5) for s in official.SETS.values() for a in s.archives} == {32}


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_refers_to_anything_else_is_refused_and_not_run(
    protocol: int, tmp_path: Path
) -> None:
    content = pickle.dumps({b"data": Evil(tmp_path / "made")}, protocol)
    with pytest.raises(InvalidInput, match="mkdir, which is not admitted"):
        cifar.unpickle(content)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(U\x011tR.",
        b"cnumpy\nload\n(U\x011tR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"c_codecs\ndecode\n(U\x011tR.",
        b"Pname\n.",
        b"c_codecs\nencode\n(X\x01\0\0\0aX\x03\0\0\0zip\x86R.",
        b"c_codecs\nencode\n}U\x01aK\x01sb.",
        b"cnumpy\nndarray\n}U\x06uint8_K\x01sb.",
    ],
)
def test_ways_around_the_restriction_end_in_an_error(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        cifar.unpickle(content)


def test_an_evil_archive_is_invalid_input_even_when_its_hash_is_accepted(
    home: Path, parts: tuple[Part, Part]
) -> None:
    files = {
        "data_batch_1": pickle.dumps(Evil(home.parent / "made"), 2),
        "test_batch": b"",
        "batches.meta": b"",
    }
    path = tar(home.parent / "a.tar", files)
    with pytest.raises(InvalidInput, match="data_batch_1.*mkdir"):
        prepare(Request("evil", path, allow_unknown_hash=True))
    assert not (home.parent / "made").exists()


BROKEN = {
    "too few labels": {b"labels": [0], b"data": np.zeros((2, 3072), np.uint8)},
    "text labels": {b"labels": [b"a"], b"data": np.zeros((1, 3072), np.uint8)},
    "odd shape": {b"labels": [0], b"data": np.zeros((1, 3071), np.uint8)},
    "no data": {b"labels": [0]},
    "a list": [1, 2],
    "label too large": {b"labels": [10], b"data": np.zeros((1, 3072), np.uint8)},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_malformed_batches_are_invalid_input_that_names_the_file(kind: str, tmp_path: Path) -> None:
    meta = python2_pickle({b"label_names": [name.encode() for name in NAMES]})
    batch = python2_pickle(BROKEN[kind])
    path = tar(
        tmp_path / "a.tar", {"data_batch_1": batch, "test_batch": batch, "batches.meta": meta}
    )
    with pytest.raises(InvalidInput, match="a.tar"), cifar_archive(path) as archive:
        cifar.read_batches(archive)


def test_arrays_that_are_not_bytes_or_lie_about_their_shape_are_refused() -> None:
    for array in (
        np.zeros((1, 3072)),
        np.zeros((1, 3072), "O"),
        np.asfortranarray(np.zeros((2, 3), "u1")),
    ):
        found = cifar.unpickle(pickle.dumps(array, 2))
        with pytest.raises(ValueError):
            found.uint8()
    good = python2_pickle(np.zeros((1, 3072), np.uint8))
    assert cifar.unpickle(good).uint8().shape == (1, 3072)
    with pytest.raises(ValueError, match="array of shape .1, 3073. with 3,072 bytes"):
        cifar.unpickle(good.replace(struct.pack("<i", 3072), struct.pack("<i", 3073), 1)).uint8()


@pytest.mark.parametrize("size", [0, 3072, 3074, 6145])
def test_binary_batches_that_are_no_whole_records_are_refused(size: int, tmp_path: Path) -> None:
    files = {
        "data_batch_1.bin": bytes(size),
        "test_batch.bin": bytes(3073),
        "batches.meta.txt": b"a\n",
    }
    path = tar(tmp_path / "a.tar", files)
    with (
        pytest.raises(InvalidInput, match="data_batch_1.bin.*records"),
        cifar_archive(path) as archive,
    ):
        cifar.read_batches(archive)
