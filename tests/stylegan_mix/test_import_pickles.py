"""Files that would run code, take memory or lie about their size end with code 3 and a reason."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix import pickles
from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop import foreign, network_pickles
from stylegan_mix.pickles import Budget

Refused = Callable[..., str]


class Evil:
    """Whatever reads it as pickle does makes a file `executed`."""

    def __init__(self, how: Callable[..., Any] = os.system, word: str = "touch executed") -> None:
        self.how, self.word = how, word

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how, (self.word,)


def raw(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


# --------------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("evil", "where"),
    [
        (Evil(), "refers to posix.system"),
        (Evil(eval, "open('executed', 'w')"), "refers to builtins.eval"),
        (Evil(exec, "open('executed', 'w')"), "refers to builtins.exec"),
        (Evil(__import__, "this"), "refers to builtins.__import__"),
        (Evil(torch.load, "sound.pkl"), "refers to torch.serialization.load"),
        (Path("executed"), "refers to pathlib"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_is_refused(
    evil: Any, where: str, protocol: int, refused: Refused, files: Any
) -> None:
    where = where if protocol == 4 else where.replace("builtins", "__builtin__")
    message = refused(files.root(evil, protocol))
    assert where in message
    assert "expected is a network pickle" in message
    assert "nothing in this file was run" in message


def test_a_call_deep_inside_the_state_is_refused(
    tmp_path: Path, files: Any, weights: Any, refused: Refused, sound: Path
) -> None:
    evil = files.network_pickle(
        tmp_path / "evil.pkl", weights, files.SMALL, changes={"mapping_kwargs": {"x": [Evil()]}}
    )
    assert "refers to posix.system" in refused(evil.read_bytes())
    foreign.open_generator(sound.read_bytes(), sound)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_call_in_a_checkpoint_is_refused(
    tmp_path: Path, files: Any, refused: Refused, legacy: bool
) -> None:
    content = {"g_ema": {}, "args": Evil()}
    evil = files.port_file(tmp_path / "evil.pt", content, legacy=legacy)
    assert "refers to posix.system" in refused(evil.read_bytes(), "bad.pt")


ORDERED = named("collections", "OrderedDict")
REBUILD = named("torch._utils", "_rebuild_tensor_v2")
LOAD = named("torch.storage", "_load_from_bytes")
PERSISTENT = named("torch_utils.persistence", "_reconstruct_persistent_obj")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (ORDERED + b"](K\x01e\x85R", "OrderedDict with 1 odd arguments"),
        (ORDERED + b"K\x01R", "calls something that is no function, or with no arguments"),
        (ORDERED + b"}b", "sets the state of something that has none"),
        (ORDERED + b")R}b)R", "calls something that is no function"),
        (b"\x8f}b", "sets the state of something that has none"),
        (ORDERED + b")\x81K\x01a", "appended to something that is no list"),
        (REBUILD + b"(K\x01K\x02K\x03K\x04tR", "_rebuild_tensor_v2 with odd arguments: int, int"),
        (REBUILD + b")R", "odd arguments: nothing instead of Storage"),
        (LOAD + b"\x8c\x04textt\x85R", "damaged"),
        (LOAD + b"\x8c\x04text\x85R", "_load_from_bytes with odd arguments: str instead of bytes"),
        (LOAD + b"C\x04abcd\x85R", "damaged pickle"),
        (PERSISTENT + b"K\x01\x85R", "odd arguments: int instead of dict"),
        (PERSISTENT + b"}\x85R", "no description of a class and its state"),
        (named("torch.storage", "_load_from_bytes.__globals__"), "_load_from_bytes.__globals__"),
        (b"\x8c\x0btorch\n\x1b[31m\x8c\x01y\x93", r"torch\n\x1b[31m.y"),
        (named("torch", "FloatStorage") + b"K\x04\x85R", "refers to torch.FloatStorage"),
        (b"(\x8c\x02os\x8c\x06systemios\nsystem\n", "instruction INST"),
        (b"(" + ORDERED + b"o", "instruction OBJ"),
        (b"\x82\x01", "instruction EXT1"),
        (b"Pkey\n", "instruction PERSID"),
        (b"K\x01\x85Q", "refers to an object outside of it"),
        (ORDERED + b")}\x92", "instruction NEWOBJ_EX"),
        (b"}])s", "neither text nor a number"),
        (named("numpy", "dtype") + b"K\x08\x85R", "numpy.dtype with odd arguments"),
        (named("numpy", "dtype") + b"\x8c\x02f8\x85RK\x03\x8c\x01>\x86b", "big-endian numbers"),
        (named("_codecs", "encode") + b"\x8c\x01a\x8c\x03hex\x86R", "encoding hex"),
        (named("dnnlib.tflib.network", "Network") + b")\x81", "TensorFlow publications"),
    ],
)
def test_an_admitted_name_does_nothing_but_its_own(body: bytes, why: str, refused: Refused) -> None:
    assert why in refused(raw(body))


def test_what_python_would_do_with_these_is_real(tmp_path: Path, files: Any) -> None:
    """The meta-test: the same bytes do harm where pickle reads them."""
    os.chdir(tmp_path)
    pickle.loads(files.root(Evil()))
    assert Path("executed").exists()


# --------------------------------------------------------------------- bombs

EIGHT = struct.pack("<Q", 1 << 60)


def doubled(times: int) -> bytes:
    """A list of two of a list of two of ...: 2 ** times values in a few bytes."""
    put, get = b"r" + bytes(4) + b"0", b"j" + bytes(4)
    return b"]" + put + (b"](" + get + get + b"e" + put) * times + get


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"]" * 300_000 + b"a" * 299_999, "nests more than 10,000 values"),
        (b"(" * 300_000 + b"t" * 300_000, "nests more than 200 containers"),
        (b"]r\xff\xff\xff\xff", "numbers a value 4,294,967,295"),
        (b"]p99999999999\n", "numbers a value 99,999,999,999"),
        (b"]h\x07", "value 7 is used before it is there"),
        (b"\x8e" + EIGHT, "damaged pickle"),
        (b"\x8d" + EIGHT, "damaged pickle"),
        (b"\x95" + EIGHT, "damaged pickle"),
        (b"\x8b" + struct.pack("<i", 90_000) + b"\x7f" * 90_000, "whole number of 719,999 bits"),
        (b"I" + b"9" * 5000 + b"\n", "damaged pickle"),
        (b"N0" * 500_100, "more than 1,000,000 steps"),
        (doubled(100), "no network under 'G_ema', but a list"),
        (b"}\x8c\x05G_ema" + doubled(100) + b"s", "no network under 'G_ema', but there a list"),
        (b"}\x8c\x05G_emaK\x01s", "no network under 'G_ema', but there 1"),
        (b"}\x8c\x05G_ema}s", "no network under 'G_ema', but nothing"),
        (b"}\x8c\x05z_dim" + doubled(100) + b"s", "but z_dim"),
    ],
)
def test_a_bomb_is_refused_before_it_grows(body: bytes, why: str, refused: Refused) -> None:
    assert why in refused(raw(body))


def test_layers_inside_themselves_are_refused(files: Any, refused: Refused) -> None:
    def described(layers: list[dict[str, Any]]) -> bytes:
        with files.foreign_modules():
            inner = files.Layer("Layer", layers[-1])
            for state in layers[-2::-1]:
                state["_modules"] = {"a": inner, "b": inner}
                inner = files.Layer("Layer", state)
            return files.root(inner)

    assert "more than 10,000 layers and tensors" in refused(described([{} for _ in range(30)]))
    endless: dict[str, Any] = {}
    with files.foreign_modules():
        endless["_modules"] = {"a": files.Layer("Layer", endless)}
        content = files.root(endless["_modules"]["a"])
    assert "more than 10,000 layers and tensors" in refused(content)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"img_resolution": 1 << 40}, "resolution must be a whole number from 8 to 4096, got 1099"),
        ({"img_resolution": 24}, "resolution must be a power of 2"),
        ({"mapping_kwargs": {"num_layers": 10**9}}, "mapping_layers must be a whole number from"),
        ({"z_dim": [[1] * 9] * 9}, "z_dim must be a whole number from 1 to 16384, got a list"),
        ({"z_dim": True}, "z_dim must be"),
        ({"c_dim": -1}, "classes must be"),
        ({"synthesis_kwargs": {"channel_base": 1 << 27, "channel_max": 16384}}, "instead of"),
        ({"synthesis_kwargs": {"channel_base": 4}}, "channel_base must be at least the resolution"),
        ({"synthesis_kwargs": {"conv_clamp": float("nan")}}, "conv_clamp must be a positive"),
        ({"synthesis_kwargs": {"architecture": ["skip"]}}, "architecture must be one of"),
        ({"synthesis_kwargs": {"use_wings": 1}}, "no counterpart here for use_wings"),
        ({"mapping_kwargs": None}, "settings that have no names"),
    ],
)
def test_settings_beyond_any_network_are_refused_before_it_is_built(
    changes: dict[str, Any], why: str, tmp_path: Path, files: Any, weights: Any
) -> None:
    path = files.network_pickle(tmp_path / "x.pkl", weights, files.SMALL, changes=changes)
    with pytest.raises(InvalidInput, match=why):
        foreign.open_generator(path.read_bytes(), path).network()


# --------------------------------------------------------------------- what is no such file


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"\n  <HTML>", "a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture"),
        (b"\x1f\x8b\x08" + bytes(50), "a gzip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PK\x03\x04" + bytes(100), "a damaged zip"),
        (b"\x80\x04", "damaged pickle"),
        (b"\x80\x09K\x01.", "it begins with the bytes 80 09"),
        (b"\x00" * 100, "it begins with the bytes 00 00"),
        (b"(lp0\n.", "it begins with the bytes 28 6c"),
        (raw(b"K\x01"), "but 1"),
        (raw(b"K\x01K\x02"), "values are left over at its end"),
        (raw(b"}\x8c\x01a)s"), "no network under 'G_ema', but a"),
        (raw(b"}") + b"more", "4 bytes lie behind its end"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(
    content: bytes, why: str, refused: Refused
) -> None:
    assert why in refused(content)


def test_a_zip_of_other_things_is_refused(tmp_path: Path, refused: Refused) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("pictures/1.png", b"x")
    assert "none that torch.save wrote" in refused(buffer.getvalue(), "pictures.zip")


def test_every_beginning_of_a_file_is_refused(sound: Path, port: Path) -> None:
    for path in (sound, port):
        content = path.read_bytes()
        for end in range(0, len(content), len(content) // 60):
            with pytest.raises(InvalidInput):
                foreign.open_generator(content[:end], path).network()


def test_names_of_what_was_left_are_harmless_in_a_card(
    tmp_path: Path, files: Any, weights: Any
) -> None:
    content = {"g_ema": files.port_state(weights), "`](http://x)\n# a": 1, 7: 2}
    path = files.port_file(tmp_path / "x.pt", content)
    left = foreign.open_generator(path.read_bytes(), path).left
    assert left == (r"'](http://x)\n# a", "7")


def test_a_damaged_byte_is_refused_or_changes_a_number(sound: Path, port: Path) -> None:
    """No damage ends in anything but `InvalidInput`, or a network of finite numbers."""
    draws = np.random.default_rng(0)
    ended = {True: 0, False: 0}
    for path in (sound, port):
        content = path.read_bytes()
        program = content.index(b"_parameters") if path is sound else content.index(b"data.pkl")
        places = [*draws.integers(0, len(content), 40), *(program + draws.integers(0, 4000, 40))]
        for place in places:
            damaged = bytearray(content)
            damaged[place] = draws.integers(0, 256)
            try:
                network = foreign.open_generator(bytes(damaged), path).network()
                assert all(one.isfinite().all() for one in network.state_dict().values())
                ended[True] += 1
            except InvalidInput:
                ended[False] += 1
    assert min(ended.values()) > 10


# --------------------------------------------------------------------- the reader itself


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_read_as_pickle_reads_them(protocol: int) -> None:
    shared = [1, 2]
    value: dict[Any, Any] = {
        "numbers": [0, -1, 255, 65535, 1 << 31, -(1 << 40), 1.5, float("inf"), True, False, None],
        "texts": ("", "a", "ü" * 300, b"y", b"x" * 300, ("a", ("b", "c", "d", "e"))),
        "same": [shared, shared, {}],
        7: {1.5: "x", None: (), True: [[]]},
        "scalar": [np.float64(2.5), np.int32(-3), np.float32(0.5), np.bool_(True)],
    }
    found = pickles.read(io.BytesIO(pickle.dumps(value, protocol)), pickles.NUMPY, budget=Budget())
    assert found == value
    assert found["same"][0] is found["same"][1]
    assert [type(one) for one in found["scalar"]] == [float, int, float, bool]


def test_a_budget_is_shared_by_the_pickles_of_a_file() -> None:
    budget = Budget(steps=12)
    content = pickle.dumps([1, 2, 3], 4)
    pickles.read(io.BytesIO(content), {}, budget=budget)
    with pytest.raises(InvalidInput, match="steps"):
        pickles.read(io.BytesIO(content), {}, budget=budget)


@pytest.mark.parametrize(
    ("parameters", "name", "layers"),
    [(1, "a", 501), (20_000, "a", 1), (1, "a" * 1_000_000, 1)],
    ids=["endless", "wide", "long"],
)
def test_a_network_that_holds_itself_is_refused_soon(
    parameters: int, name: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_pickles._Module("Generator", {})
    network.attributes["_parameters"] = dict.fromkeys(map(str, range(parameters)))
    network.attributes["_modules"] = {name: network}
    looked, group = [], network_pickles._group

    def counting(module: Any, name: str) -> Any:
        looked.append(name)
        assert len(looked) <= 3 * layers, "it has three groups of each layer"
        return group(module, name)

    monkeypatch.setattr(network_pickles, "_group", counting)
    with pytest.raises(InvalidInput, match="endless chain"):
        network_pickles._state(network)
    assert len(looked) == 3 * layers
