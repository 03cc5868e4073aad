"""`stylegan-mix dataset`: what a person sees, and the exit codes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from image_folders import folder
from PIL import Image, ImageColor

from stylegan_mix import console, datasets
from stylegan_mix.cli import group
from stylegan_mix.datasets import official
from stylegan_mix.datasets.sheet import contact_sheet
from stylegan_mix.drawing.colours import GROUP_COLOURS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("list")` -> exit code, stdout, stderr of `stylegan-mix dataset list`."""

    def ran(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            console.main(group, "stylegan-mix", ["dataset", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return ran


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for part, counts in (("train", {"ant": 1, "bee": 30}), ("test", {"ant": 2, "bee": 2})):
        for name, count in counts.items():
            folder = tmp_path / "insects" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (6, 6), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "insects"


def test_a_set_is_prepared_shown_listed_and_verified(run: Run, home: Path, source: Path) -> None:
    code, out, _ = run("prepare", "insects", "--from", source, "--no-flip")
    assert code == 0
    assert "prepared" in out
    code, out, _ = run("prepare", "insects", "--from", source, "--no-flip")
    assert (code, "already there" in out) == (0, True)
    code, out, err = run("show", "insects")
    assert code == 0
    assert "insects: 1 of 2 classes have a single training image" in err
    for text in ("ant", "30", "groups: 1 many, 1 few", "do not keep", "overlap: none"):
        assert text in out
    sheet = Path(out.splitlines()[-1].removeprefix("contact sheet: "))
    assert sheet.is_relative_to(home)
    with Image.open(sheet) as opened:
        assert opened.width > 300
    code, out, _ = run("list", "--json")
    names = {row["name"]: row for row in json.loads(out)}
    assert set(names) == {"digits_lt", "insects", "cifar10_lt", "cifar100_lt"}
    assert (names["insects"]["train"], names["insects"]["state"]) == (31, "prepared")
    assert names["cifar10_lt"]["state"] == "not prepared"
    code, out, _ = run("verify", "insects", "--json")
    assert (code, json.loads(out)["split_id"]) == (0, datasets.load("insects").split_id)


def test_json_of_show_has_everything_that_is_printed(run: Run) -> None:
    code, out, _ = run("show", "digits_lt", "--imbalance", "10", "--json", "--no-sheet")
    facts = json.loads(out)
    data = datasets.load("digits_lt", imbalance=10)
    assert code == 0
    assert (facts["split_id"], facts["counts"]) == (data.split_id, data.counts.tolist())
    assert (facts["overlap"], facts["contact_sheet"]) == ([], None)
    assert facts["groups"]["rule"] == "index 3/4/3"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "digits"], 2, "did you mean 'digits_lt'"),
        (["show", "digits_lt", "--imbalance", "0.5"], 2, "1 or more"),
        (["show", "digits_lt", "--profile", "stp"], 2, "did you mean 'step'"),
        (["show", "digits_lt", "--profile", "natural", "--imbalance", "3"], 2, "natural"),
        (["show", "cifar10_lt"], 4, "c32a1d4ab5d03f1284b67883e8d87530"),
        (["prepare", "mine"], 2, "--from is needed"),
        (["prepare", "digits_lt"], 2, "digits_lt is built in and needs no preparation"),
        (["prepare", "mine", "--from", "nothing.zip"], 3, "nothing.zip is missing"),
        (["verify", "mine"], 4, "not prepared"),
        (["prepare", "cifar10_lt", "--dry-run"], 4, "would be downloaded"),
        (["show", "digits_lt", "--out", "plain"], 2, "nothing can be written to plain"),
        (["lst"], 2, "did you mean 'list'"),
    ],
)
def test_what_cannot_be_done_ends_with_its_code(
    run: Run, arguments: list[str], code: int, said: str
) -> None:
    Path("plain").mkdir()
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    run: Run, home: Path, source: Path
) -> None:
    code, out, _ = run("prepare", "insects", "--from", source, "--dry-run")
    assert code == 0
    assert "31 training images" in out
    assert not home.exists()


def test_a_source_in_doubt_ends_with_code_3_and_the_option_that_is_named_settles_it(
    run: Run, tmp_path: Path
) -> None:
    source = folder(tmp_path / "shards", {"00000": 6, "00001": 6})
    code, out, err = run("prepare", "odd", "--from", source)
    assert (code, out) == (3, "")
    assert "--levels top" in err
    code, out, _ = run("prepare", "odd", "--from", source, "--levels", "top")
    assert (code, "2 classes" in out) == (0, True)
    code, out, err = run("prepare", "odd", "--from", source, "--levels", "middle")
    assert (code, "--levels must be top, leaf, or a number" in err) == (2, True)


def test_labels_in_a_table_and_a_validation_part_are_shown(run: Run, tmp_path: Path) -> None:
    counts = {"train": 8, "test": 4, "dev": 4}
    files = [f"{part}/{n:03}" for part, n in zip(["train"] * 8 + ["test"] * 4 + ["dev"] * 4,
                                                 range(1, 17), strict=True)]  # fmt: skip
    rows = "".join(f"{name}\t{['猫', 'кот'][n % 2]}\n" for n, name in enumerate(files))
    source = folder(tmp_path / "pets", counts, {"all.tsv": "id\tbreed\n" + rows})
    asked = ("prepare", "pets", "--from", source, "--labels", "all.tsv")
    code, out, err = run(*asked, "--file-column", "id", "--label-column", "breed")
    assert code == 0
    assert "label file: 8 training images, 4 test images, 4 validation images, 2 classes" in out
    assert "note: parts: test 4 images, train 8 images, val 4 images" in err
    code, out, _ = run("show", "pets", "--no-sheet")
    assert (code, "val   4 images, which --val-per-class takes" in out) == (0, True)
    assert "猫" in out
    code, _, err = run(*asked, "--label-column", "bred")
    assert (code, "did you mean 'breed'" in err) == (2, True)


def test_a_damaged_set_is_listed_as_such(run: Run, home: Path, source: Path) -> None:
    run("prepare", "insects", "--from", source)
    (home / "datasets" / "insects" / "MANIFEST.json").unlink()
    assert "damaged" in run("list")[1]
    assert run("show", "insects")[0] == 3


def answer(content: bytes) -> Callable[..., Any]:
    return lambda *_, **__: io.BytesIO(content)


def test_without_a_network_the_error_says_what_to_get_and_where_to_put_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    code, _, err = run("prepare", "cifar100_lt")
    assert code == 4
    for text in ("kriz/cifar-100-binary.tar.gz", "SHA-256 58a81ae1", str(home / "downloads")):
        assert text in err
    assert list((home / "downloads").iterdir()) == []


def test_a_download_of_other_bytes_is_refused_and_not_kept(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", answer(b"<html>sign in</html>"))
    code, _, err = run("prepare", "cifar10_lt")
    assert (code, "not the published file" in err) == (3, True)
    assert list((home / "downloads").iterdir()) == []


def test_a_download_is_kept_and_found_again(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"the archive"
    one = official.OfficialArchive(
        "a.tar.gz", 11, hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(official.SETS, "mine", official.OfficialSet(2, (one, one), ("exp", 2.0)))
    monkeypatch.setattr(urllib.request, "urlopen", answer(content))
    assert official.fetch("mine") == home / "downloads" / "a.tar.gz"
    monkeypatch.delattr(urllib.request, "urlopen")
    assert official.fetch("mine").read_bytes() == content


def test_a_contact_sheet_shows_every_class_and_the_same_images_each_time() -> None:
    data = datasets.load("digits_lt")
    sheet = contact_sheet(data, images=3)
    assert sheet.tobytes() == contact_sheet(data, images=3).tobytes()
    wider = contact_sheet(data, images=30)
    assert wider.width > sheet.width
    assert wider.height == sheet.height
    colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert {ImageColor.getrgb(colour) for colour in GROUP_COLOURS.values()} <= colours


def test_a_draw_of_equal_classes_is_shown_without_shot_groups(run: Run) -> None:
    code, out, _ = run("show", "digits_lt", "--imbalance", "1", "--no-sheet")
    assert code == 0 and "group" not in out
    code, out, _ = run("show", "digits_lt", "--no-sheet")
    assert code == 0 and "groups: 3 many, 4 medium, 3 few" in out


def test_a_contact_sheet_of_equal_classes_has_no_shot_groups() -> None:
    data = datasets.load("digits_lt", imbalance=1)
    sheet = contact_sheet(data, images=3)
    colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert not colours & {ImageColor.getrgb(colour) for colour in GROUP_COLOURS.values()}


def test_a_contact_sheet_is_as_wide_as_long_names_need() -> None:
    data = datasets.load("digits_lt")
    long = dataclasses.replace(data, classes=tuple(f"{c} {'long name ' * 3}" for c in range(10)))
    assert contact_sheet(long, images=12).width > contact_sheet(data, images=12).width + 100


@pytest.mark.parametrize("profile", ["step", "exp"])
@pytest.mark.parametrize(
    ("cats", "dogs", "more", "wanted"),
    [
        (30, 30, (), "{}"),
        (9, 6, (), "{}"),
        (5, 40, (), "natural"),
        (5, 40, ("--imbalance", "3"), "natural"),
    ],
)
def test_a_draw_that_cannot_be_tells_one_that_can(
    run: Run, profile: str, cats: int, dogs: int, more: tuple[str, ...], wanted: str
) -> None:
    folder(Path("images"), {"cat": cats, "dog": dogs})
    assert run("prepare", "pets", "--from", "images")[0] == 0
    code, out, err = run("show", "pets", "--no-sheet", "--profile", profile, *more)
    assert (code, out) == (3 if more else 2, "")
    remedy = err.splitlines()[-1]
    typed = remedy[remedy.index("--profile") :].partition(",")[0].partition(";")[0].split()
    assert run("show", "pets", "--no-sheet", *typed)[0] == 0
    assert typed[1] == wanted.format(profile)
