"""A mixing space and a data set are added from outside by one class or function and one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix.banks import store as banks
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.datasets.embedded import EMBEDDED
from stylegan_mix.datasets.pool import Pool, from_arrays
from stylegan_mix.generators.store import Published
from stylegan_mix.latents.spaces import SPACES, Latents, Space

Run = Callable[..., tuple[int, str, str]]


class Larger(Space):
    """The w of the class with the larger share."""

    def ws(self, network: Any, rows: Latents, truncation: float) -> torch.Tensor:
        first, second = network.ws(rows.z_a, rows.a), network.ws(rows.z_b, rows.b)
        chosen = torch.where(rows.lam[:, :, None] >= 0.5, first, second)
        return network.truncate(chosen, truncation)


@pytest.fixture
def larger(monkeypatch: pytest.MonkeyPatch) -> Space:
    space = Larger("larger", "w of the larger share, decoded once (control)", control="hard")
    monkeypatch.setitem(SPACES, space.name, space)
    return space


def test_a_space_from_outside_makes_a_bank_that_everything_reads(
    generator: Published, run: Run, larger: Space, tmp_path: Any
) -> None:
    asked = ("generate", "--n", "70", "--seed", "3", "--json")
    code, out, err = run(*asked, "--space", "larger")
    assert code == 0, err
    assert "space larger: w of the larger share, decoded once (control); alpha 1" in err
    key = json.loads(out)["key"]
    bank = open_bank(banks.resolve(key))
    assert (bank.space, bank.control, bank.mixes) == ("larger", "hard", True)
    assert larger.about in (bank.folder / "BANK_CARD.md").read_text(encoding="utf-8")
    # With the same draws, a row is that of one of the two classes, whatever its share.
    other = open_bank(banks.resolve(json.loads(run(*asked, "--space", "w")[1])["key"]))
    np.testing.assert_array_equal(bank.lam, other.lam)
    assert bank.content_sha256 != other.content_sha256
    assert [one.key for one in banks.find(space="hard")] == [key]
    assert [one.key for one in banks.find(space="larger")] == [key]
    assert banks.space_named("hard") == "larger"
    shown = json.loads(run("bank", "show", key[:12], "--json")[1])
    assert (shown["space"], shown["control"]) == ("larger", "hard")
    code, out, err = run("bank", "preview", key[:12], "--out", tmp_path / "rows.png")
    assert code == 0, err
    assert "larger" in run("bank", "list")[1]


def test_a_space_that_is_not_there_names_the_one_from_outside(
    generator: Published, run: Run, larger: Space
) -> None:
    code, _, err = run("generate", "--n", "70", "--space", "large")
    assert code == 2
    assert "no space 'large'; did you mean 'larger'?" in err


def test_a_control_is_one_by_its_facts_and_in_older_banks_by_its_space(
    write: Callable[..., Any],
) -> None:
    (record,) = [banks.record(write(n=10, space="none"))]
    assert (record.facts["control"], record.control) == ("unmixed", "unmixed")
    assert banks.record(write(n=10, space="w")).control == ""
    for space, control in {"none": "unmixed", "pixel": "pixel", "w": "", "of later": ""}.items():
        facts = {name: value for name, value in record.facts.items() if name != "control"}
        older = banks.Record(record.key, record.folder, {**facts, "space": space}, "", 0, 0.0)
        assert older.control == control


# Data sets


def stripes() -> Pool:
    """8x8 images of three classes, which differ by the direction of their stripes."""
    draws = np.random.default_rng(0)
    lines = np.indices((8, 8)).sum(axis=0), np.indices((8, 8))[0], np.indices((8, 8))[1]
    images = np.stack([(line % 2 * 200).astype(np.uint8) for line in lines])
    labels = np.repeat(np.arange(3), 40)
    noisy = images[labels][..., None] + draws.integers(0, 50, (120, 8, 8, 1)).astype(np.uint8)
    test = np.arange(120) % 40 >= 30
    parts = [(noisy[rows], labels[rows]) for rows in (~test, test)]
    return from_arrays(
        "stripes", ["slope", "row", "column"], *parts, head=30, flip=False, default=("exp", 3.0)
    )


def test_a_data_set_from_outside_is_listed_drawn_and_planned_for(
    home: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "stripes", stripes)
    rows = {row["name"]: row for row in json.loads(run("dataset", "list", "--json")[1])}
    assert rows["stripes"]["state"] == rows["digits_lt"]["state"] == "built in"
    assert (rows["stripes"]["train"], rows["stripes"]["test"]) == (90, 30)
    facts = json.loads(run("dataset", "show", "stripes", "--no-sheet", "--json")[1])
    assert facts["counts"] == [30, 17, 10]
    assert run("dataset", "verify", "stripes")[0] == 0
    code, _, err = run("dataset", "prepare", "stripes")
    assert (code, "stripes is built in and needs no preparation" in err) == (2, True)
    code, _, err = run("dataset", "prepare", "stripes", "--from", home)
    assert (code, "stripes is built in and needs no preparation" in err) == (2, True)
    code, out, err = run("generate", "--dataset", "stripes", "--n", "64", "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert (plan["state"], plan["train"]["dataset"]) == ("no generator", "stripes")
    code, _, err = run("dataset", "show", "stripe")
    assert (code, "did you mean 'stripes'?" in err) == (2, True)
