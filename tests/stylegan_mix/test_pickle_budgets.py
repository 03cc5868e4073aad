"""No pickle takes more than a few times its own size, in memory or in time."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from confined import confined

from stylegan_mix import pickles
from stylegan_mix.datasets import cifar
from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop import foreign
from stylegan_mix.interop.torch_files import MAGIC
from stylegan_mix.pickles import Budget


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """What a first file would import would count as its memory."""
    for name in ("network_pickles", "rosinality"):
        import_module(f"stylegan_mix.interop.{name}")


TEXT = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
OTHER = TEXT[:-1] + b"b"
BYTES = b"B" + TEXT[1:]
ENCODE = b"c_codecs\nencode\n"
LATIN = b"X\x06\0\0\0latin1"


def kept(*values: bytes) -> bytes:
    """Puts values into the memo, as numbers 0, 1, ..."""
    return b"".join(value + b"q" + bytes([number]) + b"0" for number, value in enumerate(values))


def got(number: int) -> bytes:
    return b"h" + bytes([number])


def encoded_again(times: int) -> bytes:
    """One text of a megabyte, encoded again and again."""
    call = got(0) + got(1) + got(2) + b"\x86R"
    return kept(ENCODE, TEXT, LATIN) + b"](" + call * times + b"e"


def sets(times: int) -> bytes:
    """An empty set is one byte in the file and 216 in memory."""
    return b"](" + b"\x8f" * 5_000 + b"e" + (b"(" + b"\x8f" * 5_000 + b"e") * (times // 5_000)


def long_keys(times: int) -> bytes:
    """A dict with two equal texts as keys, which are compared letter by letter each time."""
    return kept(TEXT, TEXT) + b"}" + got(0) + b"Ns" + (got(1) + b"Ns") * times


def colliding(times: int) -> bytes:
    """Numbers of one hash: a dict of n of them takes n ** 2 steps."""
    prime = (1 << 61) - 1
    numbers = (number * prime for number in range(1, times))
    return b"}" + b"".join(pickled_number(one) + b"Ns" for one in numbers)


def pickled_number(number: int) -> bytes:
    content = number.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def long_tuples(times: int) -> bytes:
    """A shape of 9,000 dimensions, looked through again and again."""
    shape = b"(" + b"K\x01" * 9_000 + b"t"
    call = got(0) + b"(" + got(2) + b"K\0" + got(1) * 2 + b"tR0"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return kept(rebuild, shape, storage(b"0")) + call * times + b"]"


def storage(key: bytes) -> bytes:
    word = b"X\x07\0\0\0storage"
    key = b"X" + struct.pack("<I", len(key)) + key
    return b"(" + word + b"ctorch\nFloatStorage\n" + key + b"X\x03\0\0\0cpu" + b"K\x04NtQ"


def long_key_of_storage(times: int) -> bytes:
    call = b"(" + got(0) + got(1) + got(2) + got(3) + b"K\x04NtQ0"
    parts = (b"X\x07\0\0\0storage", b"ctorch\nFloatStorage\n", TEXT, b"X\x03\0\0\0cpu")
    return kept(*parts) + call * times + b"]"


def as_pickle(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def as_zip(body: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("a/data.pkl", b"\x80\x02" + body + b".")
        target.writestr("a/data/0", bytes(16))
        target.writestr("a/data/" + "a" * 1000, bytes(16))
    return file.getvalue()


def as_stream(body: bytes) -> bytes:
    facts = pickle.dumps({"little_endian": True}, 2)
    start = MAGIC + pickle.dumps(1001, 2) + facts
    return start + b"\x80\x02" + body + b"." + pickle.dumps([], 2)


def as_nested(body: bytes) -> bytes:
    stream = as_stream(body)
    load = b"ctorch.storage\n_load_from_bytes\n"
    return as_pickle(load + b"B" + struct.pack("<I", len(stream)) + stream + b"\x85R")


BODIES = {
    "one text encoded 6,000 times": encoded_again(6_000),
    "empty sets": sets(900_000),
    "long keys": long_keys(300_000),
    "numbers of one hash": colliding(150_000),
    "a long shape": long_tuples(100_000),
    "a long key of a storage": long_key_of_storage(100_000),
}
FORMS = {"pickle": as_pickle, "zip": as_zip, "stream": as_stream, "nested": as_nested}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BODIES)
def test_a_small_file_stays_small_in_memory_and_quick(name: str, form: str) -> None:
    content = FORMS[form](BODIES[name])
    assert len(content) < 8 << 20
    ended = confined(lambda: foreign.open_generator(content, Path("bad")), memory=384 << 20)
    assert ended.startswith("InvalidInput: bad is refused"), ended


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"Nr" + struct.pack("<I", 1 << 27), id="number of a value"),
        pytest.param(encoded_again(6_000), id="one text encoded again"),
        pytest.param(sets(900_000), id="empty sets"),
        pytest.param(colliding(150_000), id="numbers of one hash"),
        pytest.param(long_keys(300_000), id="long keys"),
    ],
)
def test_a_cifar_pickle_is_held_to_the_same(body: bytes) -> None:
    ended = confined(lambda: cifar.unpickle(as_pickle(body)), memory=384 << 20)
    assert ended.startswith("InvalidInput: it"), ended


def test_a_budget_of_bytes_grows_with_the_file() -> None:
    value = ["ä" * 1_000_000, b"b" * 3_000_000, {"k" * 100_000: [1, 2, 3]}]
    content = pickle.dumps(value, 4)
    assert pickles.read(io.BytesIO(content), {}, budget=Budget.of_file(len(content))) == value
    with pytest.raises(InvalidInput, match="far more than its own size"):
        pickles.read(io.BytesIO(content), {}, budget=Budget(bytes=1_000_000))
