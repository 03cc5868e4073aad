"""Only regular files are read, up to a limit; texts in them are parsed within bounds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confined import RETURNED, confined

from kernels import libraries
from stylegan_mix import arrays, reading, store
from stylegan_mix.console import read_toml
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.training.journal import Journal

DEEP = "[" * 1000 + "]" * 1000
DEEP_OBJECT = '{"a":' * 300 + "1" + "}" * 300


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_process_link(path: Path) -> None:
    path.symlink_to("/proc/self/pagemap")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def make_long(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 42)


ODD = (make_fifo, make_device_link, make_process_link, make_folder, make_socket, make_long)


def manifest(path: Path) -> object:
    return arrays.read_manifest(path.parent)


def sweep(path: Path) -> object:
    return read_toml(path, "sweep file")


def record(path: Path) -> object:
    from trainer.reports import records

    return records.read(path)


def events(path: Path) -> object:
    from trainer.reports import records

    return records.read_events(path)


def block(path: Path) -> object:
    from trainer.reports import markdown_blocks

    return markdown_blocks.commands(path)


def table(path: Path) -> object:
    from stylegan_mix.datasets import lists

    return lists._text(path)


def generator(path: Path) -> object:
    from stylegan_mix.interop import foreign

    return foreign.read_bytes(path)


def journal(path: Path) -> object:
    return Journal(path.parent, print).cut(3)


def built(path: Path) -> object:
    wanted = {"device": "cpu", "isa": "avx2", "sanitize": "", "compiler": ""}
    assert libraries.search(path.parent.parent, wanted) is None
    raise InvalidInput("no library is found there")


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "manifest": ("MANIFEST.json", manifest),
    "json": ("a.json", store.read_json),
    "hash": ("a.h5", store.sha256_file),
    "sweep": ("a.toml", sweep),
    "result": ("result.json", record),
    "events": ("metrics.jsonl", events),
    "page": ("a.md", block),
    "list": ("a.txt", table),
    "generator": ("a.pkl", generator),
    "journal": ("metrics.jsonl", journal),
    "build": ("build.json", built),
}


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__.removeprefix("make_"))
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_at_once(
    reader: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    if reader == "hash" and make is make_long:
        pytest.skip("a long file is hashed, however long that takes")
    name, read = READERS[reader]
    folder = tmp_path / "x"
    folder.mkdir()
    make(folder / name)

    def refused() -> None:
        try:
            read(folder / name)
        except (InvalidInput, UsageFailure, OSError):
            return
        raise AssertionError("it was read")

    assert confined(refused, memory=64 << 20, seconds=3) == RETURNED


@pytest.mark.parametrize("make", ODD[:3], ids=lambda make: make.__name__.removeprefix("make_"))
def test_a_container_maps_no_special_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    import numpy as np

    arrays.write(tmp_path / "a", {"x": np.zeros(0)}, kind="k", facts={})
    (tmp_path / "a" / "data.h5").unlink()
    make(tmp_path / "a" / "data.h5")
    for verify in (True, False):
        told = confined(lambda v=verify: arrays.open_container(tmp_path / "a", kind="k", verify=v))
        assert told.startswith("InvalidInput"), told


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        DEEP_OBJECT,
        "9" * 5000,
        "[1" + "0" * 400 + "]",
        '{"a": 18446744073709551616}',
        "[1e400]",
        "[-1e999]",
        "NaN",
        "[Infinity]",
        '{"a": 1, "a": 2}',
        "\ufffe",
        "",
    ],
)
def test_odd_json_is_invalid_input(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"a\.json is not the JSON that was expected"):
        store.read_json(tmp_path / "a.json")


def test_sound_json_is_read_as_it_is(tmp_path: Path) -> None:
    value = {"a": [1, -1.5, 1e-400, (1 << 64) - 1, -(1 << 63), "ü\ud7ff", None, True, {"b": []}]}
    store.write_json(tmp_path / "a.json", value)
    assert store.read_json(tmp_path / "a.json") == value


ODD_TOML = {
    "nesting": f"a = {DEEP}",
    "tables": "a = " + "{a = " * 500 + "1" + "}" * 500,
    "digits": "a = " + "9" * 5000,
    "large": "a = 1" + "0" * 400,
    "key": "a." * 100_000 + "a = 1",
    "bytes": "a = \x00",
    "none": "a",
}


@pytest.mark.parametrize("name", ODD_TOML)
def test_odd_toml_is_a_usage_failure(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(ODD_TOML[name])
    told = confined(lambda: read_toml(path, "sweep file"))
    assert told.startswith(f"UsageFailure: sweep file {path} is not TOML"), told


@pytest.mark.parametrize("option", ["kimg", "seed", "preset", "dataset"])
@pytest.mark.parametrize(
    "value", ["1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "[1]", "{a = 1}"]
)
def test_a_date_where_a_value_belongs_is_a_usage_failure(
    option: str, value: str, home: Path, run: Any
) -> None:
    Path("a.toml").write_text(f"{option} = {value}")
    code, _, err = run("train", "--config", "a.toml", "--dry-run")
    assert code == 2
    assert f"'{option}' must be a value, got a" in err


@pytest.mark.parametrize(
    "text",
    [
        'split,official_index,class,path\ntrain,0,a,"' + "x" * 200_000 + '"\n',
        "split,official_index,class,path\ntrain," + "9" * 5000 + ",a,x\n",
        "split,official_index,class,path\ntrain,\u0663,a,x\n",
        "split,official_index,class,path\ntrain,0,a,\x00\n",
    ],
    ids=["field", "digits", "other digits", "zero"],
)
def test_an_odd_table_is_invalid_input(text: str, home: Path, run: Any) -> None:
    from PIL import Image

    Path("images").mkdir()
    Image.new("L", (8, 8)).save("images/a.png")
    Path("a.csv").write_text(text)
    code, _, err = run("dataset", "prepare", "x", "--from", "images", "--index", "a.csv")
    assert code == 3, err
    assert "a.csv" in err


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert reading.read_bytes(path, limit=10) == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        reading.read_bytes(path, limit=9)
