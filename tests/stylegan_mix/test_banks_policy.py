"""`generate` with the draws of classes and lam that a user chooses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import open_bank

Run = Callable[..., tuple[int, str, str]]

GENERATE = ("generate", "--generator", "abab", "--n", "200")


def key_in(out: str) -> str:
    found = re.search(r"bank ([0-9a-f]{12})", out)
    assert found, out
    return found[1]


@pytest.mark.parametrize(
    ("asked", "words", "rows"),
    [
        (
            ("--fill", "balance"),
            "a drawn by the deficit of a class against the largest one, b drawn as a is",
            lambda pair, lam: not (pair == 0).any(),
        ),
        (("--pairs", "same"), "b is a", lambda pair, lam: (pair[:, 0] == pair[:, 1]).all()),
        (
            ("--pairs", "head-tail"),
            "the half of the classes",
            lambda pair, lam: ((pair == 0).sum(axis=1) == 1).all(),
        ),
        (
            ("--unmixed", "1"),
            "100% of the rows have b = a and lam = 1",
            lambda pair, lam: (lam == 1).all(),
        ),
        (("--lam", "fixed:0.75"), "0.75 in every row", lambda pair, lam: (lam == 0.75).all()),
        (
            ("--fill", "balance", "--space", "none"),
            "a drawn by the deficit of a class against the largest one, b = a",
            lambda pair, lam: not (pair == 0).any() and (lam == 1).all(),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_policy_is_followed_said_carded_and_repeated_by_its_command(
    stored: Any, run: Run, asked: tuple[str, ...], words: str, rows: Callable[..., bool]
) -> None:
    code, out, err = run(*GENERATE, *asked)
    assert code == 0, err
    assert words in err
    bank = open_bank(banks.resolve(key_in(out)))
    assert rows(np.asarray(bank.pair), np.asarray(bank.lam))
    assert words in (bank.folder / "BANK_CARD.md").read_text(encoding="utf-8")
    again = run(*bank.facts["command"].split()[1:])
    assert (again[0], key_in(again[1]), "exists" in again[1]) == (0, key_in(out), True), again


def test_pairs_of_a_file_are_followed_whatever_its_name(
    stored: Any, run: Run, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("ant,cat\nbee,bee\n", encoding="utf-8")
    second.write_text("a,b,weight\nbee,bee,1\nant,2\n", encoding="utf-8")
    code, out, err = run(*GENERATE, "--pairs", str(first))
    assert code == 0, err
    bank = open_bank(banks.resolve(key_in(out)))
    assert {tuple(pair) for pair in bank.pair.tolist()} == {(0, 2), (1, 1), (2, 0)}
    assert f"--pairs {first}" in bank.facts["command"]
    again = run(*GENERATE, "--pairs", str(second))
    assert bank.facts["request"]["listed"] == [[0, 2, 1.0], [1, 1, 1.0]]
    assert key_in(again[1]) == key_in(out)


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (("--fill", "balanced"), 2, "did you mean 'balance'"),
        (("--pairs", "heads-tail"), 2, "did you mean 'head-tail'"),
        (("--pairs", "no-such.csv"), 2, "no pairing, and no file, 'no-such.csv'"),
        (("--pairs", "listed"), 2, "no pairing, and no file, 'listed'"),
        (("--pairs", "."), 2, "no pairing, and no file, '.'"),
        (("--unmixed", "1.5"), 2, "--unmixed must be from 0 to 1"),
        (("--lam", "fixed:2"), 2, "from 0 to 1, got 2"),
        (("--lam", "window:0.9,1", "--alpha", "1000"), 2, "has no rows"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    stored: Any, run: Run, asked: tuple[str, ...], code: int, text: str
) -> None:
    found, _, err = run(*GENERATE, *asked)
    assert (found, text in err) == (code, True), err
    assert banks.find() == []


def test_a_file_of_pairs_of_other_classes_is_refused(stored: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("ant,dog\n", encoding="utf-8")
    code, _, err = run(*GENERATE, "--pairs", str(path))
    assert code == 3
    assert "line 1: no class 'dog'" in err


@pytest.mark.parametrize(
    "request_facts",
    [
        {"space": "w", "fill": "other", "pairs": ["x"], "lam": "later:1", "unmixed": "much"},
        {"space": "new", "fill": 3, "alpha": "x"},
        {"space": ["w"], "alpha": None},
        {},
    ],
)
def test_a_policy_of_another_version_is_told_as_it_stands(request_facts: dict[str, Any]) -> None:
    from stylegan_mix.banks.policy import classes_in_words, lam_in_words

    said = f"{classes_in_words(request_facts)} {lam_in_words(request_facts)}"
    assert all(str(request_facts[name]) in said for name in ("fill",) if name in request_facts)


def test_list_and_show_tell_the_draw_of_a_bank(stored: Any, run: Run) -> None:
    key = key_in(run(*GENERATE, "--fill", "balance", "--lam", "fixed")[1])
    run(*GENERATE)
    code, out, err = run("bank", "list")
    assert code == 0, err
    assert [
        line.split("  ")[0] for line in out.splitlines() if "fill balance lam fixed:0.5" in line
    ]
    assert " uniform " in out
    code, out, err = run("bank", "show", key)
    assert code == 0, err
    assert "a drawn by the deficit of a class against the largest one" in out
    assert "0.5 in every row" in out


def test_the_generator_that_saw_the_most_images_is_named_beside_the_newest(
    stored: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix.banks.plan import _trained_longer

    older = dataclasses.replace(stored, hash="cd" * 32, card={**stored.card, "kimg": 90.0})
    told = _trained_longer([stored, older])
    assert told == [
        (
            "the newest generator saw 1.5 thousand images, an older one 90: "
            "--generator cdcdcdcdcdcd takes that one"
        )
    ]
    assert _trained_longer([older, stored]) == []
    assert _trained_longer([stored]) == []
