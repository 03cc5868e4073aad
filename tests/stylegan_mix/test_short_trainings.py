"""Generators that saw a small share of their preset's budget: every command names the share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.generators import budget
from stylegan_mix.generators.card import card_text
from stylegan_mix.generators.store import Published
from stylegan_mix.presets import PRESETS, auto_preset

Run = Callable[..., tuple[int, str, str]]

SMALL = ("--batch", "16", "--channel-base", "64", "--channel-max", "8", "--device", "cpu")


def _card(kimg: float | None, of: float | None) -> dict[str, Any]:
    return {"kimg": kimg, "preset": {"name": "cpu32", **({} if of is None else {"kimg": of})}}


@pytest.mark.parametrize(
    ("kimg", "of", "told"),
    [
        (6.0, 200.0, "shown 3 % of its preset's images: 6 of 200 thousand"),
        (0.128, 250.0, "shown less than 1 % of its preset's images: 0.128 of 250 thousand"),
        (0.0, 1.0, "shown less than 1 % of its preset's images: 0 of 1 thousand"),
        (1000, 25000, "shown 4 % of its preset's images: 1,000 of 25,000 thousand"),
        (99.9, 200.0, "shown 50 % of its preset's images: 99.9 of 200 thousand"),
        (100.0, 200.0, ""),
        (200.0, 200.0, ""),
        (1000.0, 200.0, ""),
        (None, 200.0, ""),  # imported
        (6.0, None, ""),
        (float("nan"), 200.0, ""),
        (-6.0, 200.0, ""),
        (6.0, 0.0, ""),
        (6.0, float("nan"), ""),
    ],
)
def test_a_small_share_is_told_and_a_finished_training_never(
    kimg: float | None, of: float | None, told: str
) -> None:
    found = budget.short(_card(kimg, of))
    assert told in found
    assert bool(found) == bool(told)


@pytest.mark.parametrize("name", [*PRESETS, "auto"])
@pytest.mark.parametrize("share", [0.03, 1.0])
def test_a_bank_knows_the_budget_by_the_name_of_the_preset(name: str, share: float) -> None:
    preset = auto_preset(64) if name == "auto" else PRESETS[name]
    side = preset.resolution
    facts = {
        "generator_preset": name,
        "generator_kimg": share * preset.kimg,
        "image_shape": [side, side, 3],
    }
    found = budget.short_for_bank(facts)
    assert bool(found) == (share < 1)
    assert budget.short_for_bank({**facts, "generator_imported": {"split": "declared"}}) == ""
    assert budget.short_for_bank({**facts, "generator_preset": "of another version"}) == ""
    assert budget.short_for_bank({**facts, "generator_kimg": None}) == ""


def test_train_and_all_that_follows_name_the_share(home: Path, run: Run, short: None) -> None:
    text = "this generator was shown less than 1 % of its preset's images: 0.16 of 250 thousand"
    told = f"warning: {text}"
    code, out, err = run("train", "--dataset", "digits_lt", *SMALL, "--kimg", "0.16")
    assert code == 0, err
    assert told in err.splitlines()[-1]
    name = out.rpartition("generator ")[2][:12]
    code, out, err = run("generate", "--dataset", "digits_lt", "--n", "64", "--json")
    assert (code, told in err) == (0, True), err
    key = json.loads(out)["key"][:12]
    for words in (
        ("generators", "show", name),
        ("generate", "--dataset", "digits_lt", "--n", "64"),  # it exists by now
        ("bank", "show", key),
        ("bank", "preview", key),
        ("bank", "judge", key, "--dry-run"),
        ("metrics", name, "--n", "60", "--no-cas"),
        ("metrics", "--bank", key, "--n", "60", "--no-cas"),
    ):
        code, out, err = run(*words)
        assert code == 0, err
        assert text in out + err, words
    report = json.loads(run("metrics", name, "--n", "60", "--no-cas", "--json")[1])
    assert told in report["notes"][0]
    for word in ("list", "show"):
        assert "0.16 of 250" in run("generators", word, *[name] * (word == "show"))[1]
    card = next((home / "banks").glob(f"{key}*/BANK_CARD.md"))
    assert f"**Warning: {text};" in card.read_text()


def test_the_card_of_a_finished_training_has_no_warning(generator: Published) -> None:
    assert "Warning" in card_text(generator.hash, generator.card)
    done = {**generator.card, "kimg": 1.0}
    text = card_text(generator.hash, done)
    assert "arning" not in text
    assert "for 1 of 1 thousand images, seed 0" in text
