"""Preparing a data set again names what no longer fits it, and removes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_folders import folder, picture

from stylegan_mix import datasets, store
from stylegan_mix.banks import store as bank_store
from stylegan_mix.generators import store as generator_store
from stylegan_mix.outdated import outdated

Run = Callable[..., tuple[int, str, str]]
PREPARE = ("dataset", "prepare", "letters", "--from", "images")


class Known:
    """A generator or a bank that lies in a store, as far as the search looks at it."""

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self.hash = self.key = name * 64
        self.card = self.facts = {"dataset": "letters", **facts}


@pytest.fixture
def letters(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared set with users: a generator, two banks, and runs, one of the training images."""
    source = folder(Path("images"), {"train/ant": 9, "train/bee": 5, "test/ant": 2, "test/bee": 2})
    assert run(*PREPARE)[0] == 0
    whole, drawn = datasets.load("letters"), datasets.load("letters", imbalance=2)
    draw = {"profile": "exp", "imbalance": 2.0, "split_seed": 0}
    made = [Known("a", {"split_id": whole.split_id, "profile": "natural", "imbalance": None})]
    banks = [
        Known("b", {"split_id": whole.split_id, "profile": "natural"}),
        Known("c", {"split_id": drawn.split_id, **draw}),
        Known("d", {"split_id": "0" * 64, "dataset": "digits_lt"}),
    ]
    monkeypatch.setattr(generator_store, "find", lambda: made)
    monkeypatch.setattr(bank_store, "find", lambda: banks)
    a_run("runs/whole", whole)
    a_run("runs/drawn", drawn, imbalance=2.0, profile="exp")
    a_run("elsewhere/held", datasets.load("letters", val_per_class=1), val_per_class=1)
    return source


def a_run(place: str, data: Any, **draw: Any) -> None:
    spec = {"data": {"name": "letters", **draw}}
    store.write_json(Path(place) / "seed-0" / "run.json", {"spec": spec})
    ids = {"split_id": data.split_id, "test_id": data.test_id, "bank": None}
    store.write_json(Path(place) / "seed-0" / "inputs.json", ids)


def change(source: Path, name: str) -> None:
    (source / name).write_bytes(picture(1000))


def names(text: str) -> list[str]:
    return [f"{one['kind']} {one['name'][:1]}" for one in json.loads(text)["outdated"]]


def test_every_user_of_replaced_images_is_named_and_stays(letters: Path, run: Run) -> None:
    change(letters, "train/ant/001.png")
    code, _, err = run(*PREPARE)
    assert code == 2 and "--replace" in err
    code, out, err = run(*PREPARE, "--replace", "--runs", "runs", "--runs", "elsewhere")
    assert code == 0
    assert "of other images than letters has now; they stay as they are:\n" in err
    assert "  1 generator: aaaaaaaaaaaa\n" in err
    assert "  2 banks: bbbbbbbbbbbb, cccccccccccc\n" in err
    assert "  3 runs: elsewhere/held/seed-0, runs/drawn/seed-0, runs/whole/seed-0\n" in err
    for command in ("stylegan-mix train --dataset letters", "stylegan-mix generate --dataset"):
        assert command in err
    assert "dddd" not in err
    assert out.endswith("next: stylegan-mix dataset show letters\n")
    assert Path("runs/whole/seed-0/run.json").exists()


def test_a_dry_run_names_them_too_and_writes_nothing(letters: Path, run: Run, home: Path) -> None:
    before = (home / "datasets" / "letters" / "MANIFEST.json").read_bytes()
    change(letters, "train/ant/001.png")
    code, _, err = run(*PREPARE, "--replace", "--dry-run")
    assert code == 0
    assert "of the images that letters has now; they fit no others:\n" in err
    assert "  1 generator: aaaaaaaaaaaa\n" in err and "  2 runs: runs/drawn/seed-0" in err
    assert "its images are compared when these are decoded" in err
    assert (home / "datasets" / "letters" / "MANIFEST.json").read_bytes() == before
    found = json.loads(run(*PREPARE, "--replace", "--dry-run", "--json")[1])
    assert found["outcome"] == "comparison" and len(found["outdated"]) == 5


def test_a_dry_run_refuses_what_the_command_refuses(letters: Path, run: Run) -> None:
    assert "already there" in run(*PREPARE, "--dry-run")[1]
    (letters / "train/ant/001.png").unlink()
    for more in ((), ("--dry-run",)):
        code, out, err = run(*PREPARE, *more)
        assert (code, out) == (2, "") and "exists with other content" in err, err
    assert "in the place of other images" in run(*PREPARE, "--dry-run", "--replace")[1]


def test_the_draw_decides_and_not_the_name(letters: Path, run: Run) -> None:
    """The draw at imbalance 2 leaves a training image out, and nothing else changes."""
    whole, drawn = datasets.load("letters"), datasets.load("letters", imbalance=2)
    kept = {image.tobytes() for image in drawn.train.images}
    (at, *_) = [row for row, one in enumerate(whole.train.images) if one.tobytes() not in kept]
    file = sorted((letters / "train").rglob("*.png"))[at]
    change(letters, str(file.relative_to(letters)))
    found = json.loads(run(*PREPARE, "--replace", "--json")[1])
    assert [one["name"][:10] for one in found["outdated"]] == ["a" * 10, "b" * 10, "runs/whole"]


def test_the_test_part_matters_to_runs_alone(letters: Path, run: Run) -> None:
    change(letters, "test/bee/017.png")
    assert names(run(*PREPARE, "--replace", "--json")[1]) == ["run r", "run r"]


def test_the_same_images_make_nothing_old(letters: Path, run: Run) -> None:
    Path("images").rename("moved")
    (Path("moved") / "readme.md").write_text("Another file, and so another request.")
    words = ("dataset", "prepare", "letters", "--from", "moved", "--replace")
    code, out, err = run(*words)
    assert code == 0 and "already there" in out and "other images" not in err
    assert run(*words, "--json")[1].count('"outdated": []') == 1


def test_other_classes_make_every_draw_old(letters: Path, run: Run) -> None:
    shutil.copytree(letters / "train" / "bee", letters / "train" / "cow")
    found = json.loads(run(*PREPARE, "--replace", "--json")[1])
    assert len(found["outdated"]) == 5


@pytest.mark.parametrize("how", ["deleted", "damaged", "another folder", "labels"])
def test_any_way_of_replacing_names_them(letters: Path, run: Run, home: Path, how: str) -> None:
    stored = home / "datasets" / "letters"
    change(letters, "train/ant/001.png")
    words = [*PREPARE]
    if how == "deleted":
        shutil.rmtree(stored)
    elif how == "damaged":
        (stored / "MANIFEST.json").chmod(0o644)
        (stored / "MANIFEST.json").write_text("{")
        words.append("--replace")
    elif how == "another folder":
        shutil.copytree(letters, "copy")
        words = [*words[:-1], "copy", "--replace"]
    else:
        words = [*words, "--size", "16", "--replace"]
    for more in (["--dry-run"], []):
        code, _, err = run(*words, *more)
        assert code == 0 and "1 generator: aaaaaaaaaaaa" in err, err


def test_what_cannot_be_read_is_passed_over(letters: Path, run: Run) -> None:
    Path("runs/whole/seed-0/inputs.json").write_text("[1, 2")
    Path("runs/drawn/seed-0/run.json").write_text('{"spec": {"data": {"name": 7}}}')
    change(letters, "train/ant/001.png")
    assert names(run(*PREPARE, "--replace", "--json")[1]) == ["generator a", "bank b", "bank c"]
    a_run("runs/odd", datasets.load("letters"), imbalance="x")
    assert [user.name for user in outdated("letters", [Path("runs")])][-1] == "runs/odd/seed-0"
