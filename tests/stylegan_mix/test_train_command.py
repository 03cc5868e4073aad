"""`train` as a user types it: what is said before it starts, and what comes of it at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix import errors, store
from stylegan_mix.estimates import Span
from stylegan_mix.generators import store as generator_store
from stylegan_mix.presets import default_preset, preset_named
from stylegan_mix.training import cost, preset_checks, publication

Run = Callable[..., tuple[int, str, str]]

SMALL = ("--batch", "16", "--channel-base", "64", "--channel-max", "8", "--device", "cpu")
TRAIN = ("train", "--dataset", "digits_lt", *SMALL)


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`flat(labels)` lets a published generator draw nothing but black of these classes."""
    draws = publication.class_samples_of

    def black(labels: Any) -> None:
        def drawn(*given: Any) -> dict[int, torch.Tensor]:
            found = draws(*given)
            return {c: 0 * few if c in labels else few for c, few in found.items()}

        monkeypatch.setattr(publication, "class_samples_of", drawn)

    return black


def _folder() -> Path:
    (folder,) = (store.home() / "training").glob("*/")
    return folder


# The end: a generator that draws nothing


def test_a_training_whose_every_class_is_dead_publishes_nothing_and_may_go_on(
    home: Path, run: Run, flat: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat(range(10))
    for _ in range(2):  # the same command ends alike
        code, out, err = run(*TRAIN, "--kimg", "0.16")
        assert (code, out) == (5, ""), err
    picture = _folder() / "grids" / "lost-00000.160.png"
    assert f"every class; the state stays in {_folder()}, a picture of it in {picture}" in err
    assert "a longer --kimg goes on from here; else try a smaller --lr" in err
    assert picture.is_file()
    assert generator_store.find() == []
    monkeypatch.undo()
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(home))
    code, out, err = run(*TRAIN, "--kimg", "0.32", "--json")
    assert code == 0, err
    assert [one.hash for one in generator_store.find()] == [json.loads(out)["generator"]]


@pytest.mark.parametrize(
    ("dead", "options", "named"),
    [((3, 9), (), "3, 9"), (range(10), ("--on-collapse", "go-on"), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9")],
)
def test_what_is_published_with_dead_classes_says_so_here_and_in_every_plan_of_a_bank(
    home: Path, run: Run, flat: Callable[..., None], dead: Any, options: tuple[str, ...], named: str
) -> None:
    flat(dead)
    code, _, err = run(*TRAIN, "--kimg", "0.16", *options)
    warning = f"warning: little but one picture is drawn of {named}\n"
    assert (code, warning in err) == (0, True), err
    code, _, err = run("generate", "--dataset", "digits_lt", "--n", "50", "--dry-run")
    assert (code, warning in err) == (0, True), err


def test_a_bank_of_a_generator_that_lives_has_no_warning(home: Path, run: Run) -> None:
    generate = ("generate", "--dataset", "digits_lt", "--n", "50", "--dry-run")
    for words in ((*TRAIN, "--kimg", "0.16"), generate):
        warned = [line for line in run(*words)[2].splitlines() if "warning" in line]
        assert len(warned) == 1 and "of its preset's images: 0.16 of 250 thousand" in warned[0]


# Averages


def test_averages_that_equal_the_main_one_are_named_and_the_others_say_which_they_are(
    home: Path, run: Run
) -> None:
    more = ("--more-ema", "50,0.001,80")
    code, out, err = run(*TRAIN, "--kimg", "0.032", *more, "--ema-ramp", "0.05", "--json")
    assert code == 0, err
    assert (
        "main average, so not published apart: that of 50, 80 thousand images: a half-life is at "
        "most 5 %" in err
    )
    found = json.loads(out)
    main, other = (
        (generator_store.load(one).folder / "GENERATOR_CARD.md").read_text()
        for one in (found["generator"], *found["more"])
    )
    assert "Weights: moving average of half-life 0.001 thousand images, kept beside" in other
    assert "Weights: moving average, SHA-256" in main
    code, _, err = run(*TRAIN, "--kimg", "0.032", "--more-ema", "50", "--ema-ramp", "0")
    assert (code, "main average" in err) == (0, False)


# Where it stands, before anything runs


def test_a_shorter_budget_says_before_it_starts_where_the_training_stands_and_what_is_there(
    home: Path, run: Run
) -> None:
    there = {}
    for kimg in ("0.16", "0.32"):
        there[kimg] = json.loads(run(*TRAIN, "--kimg", kimg, "--json")[1])["generator"][:12]
    code, out, err = run(*TRAIN, "--kimg", "0.08")
    assert (code, out) == (2, "")
    assert "stands at 0.32 thousand images, past the 0.08 that were asked for" in err
    for kimg, name in there.items():
        assert f"{kimg} thousand images (generator {name})" in err
    assert "such as --kimg 0.32, or train on with a longer --kimg" in err
    assert "going on" not in err
    assert "to train" not in err
    code, out, err = run(*TRAIN, "--kimg", "0.16", "--json")
    assert (code, json.loads(out)["generator"][:12]) == (0, there["0.16"]), err


def test_a_budget_of_the_same_steps_is_the_same_generator_and_an_absurd_one_is_refused(
    home: Path, run: Run
) -> None:
    code, first, _ = run(*TRAIN, "--kimg", "0.16")
    assert code == 0
    code, again, err = run(*TRAIN, "--kimg", "0.1599")  # 10 steps of 16 as well
    assert (code, again) == (0, first)
    assert "10 steps of 16" in err
    code, _, err = run(*TRAIN, "--kimg", "1e-9", "--seed", "1")
    assert code == 0
    assert "= 1 steps of 16" in err
    code, _, err = run(*TRAIN, "--kimg", "1e306")
    assert code == 2
    assert "is not in the range 0<x<=1000000000" in err


def test_a_training_that_has_begun_says_where_it_stands_and_what_is_left(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def of(plan: Any, *, start: float, pace: Any) -> cost.Cost:
        given.append(start)
        return cost.Cost(1, 1, Span(5400.0, 9000.0), Span(1200.0, 1800.0), 1)

    monkeypatch.setattr(cost, "estimate", of)
    _, _, err = run(*TRAIN, "--kimg", "0.32", "--dry-run")
    assert ": to train\n" in err
    assert "1.5 to 2.5 hours from the beginning on this machine, 0.0 MB" in err
    run(*TRAIN, "--kimg", "0.16")
    _, _, err = run(*TRAIN, "--kimg", "0.32", "--dry-run")
    assert ": to go on with from 0.16 thousand images\n" in err
    assert (
        "from the beginning on this machine, 20 to 30 minutes from 0.16 thousand images on" in err
    )
    assert given == [0.0, 0.16]


def test_a_range_that_says_nothing_is_not_printed(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "step_seconds", lambda plan: Span(0.1, 9.0))
    code, out, err = run(*TRAIN, "--dry-run")
    assert (code, out) == (0, "")
    assert "no estimate of the time: this machine is too slow" in err
    assert "from the beginning" not in err
    plan = json.loads(run(*TRAIN, "--dry-run", "--json")[1])
    assert (plan["cost"]["seconds"], plan["cost"]["seconds_left"]) == (None, None)
    assert plan["cost"]["steps"] > 0


def test_a_bank_that_needs_a_training_first_has_the_cost_of_both_in_its_plan(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "step_seconds", lambda plan: Span(0.1, 0.2))
    words = ("generate", "--dataset", "digits_lt", "--n", "2000", "--dry-run")
    code, out, err = run(*words)
    assert (code, out) == (0, "")
    assert "13 to 26 minutes from the beginning on this machine" in err
    assert "then a bank of 2,000 images, 0.2 MB" in err
    plan = json.loads(run(*words, "--json")[1])
    assert plan["cost"]["steps"] == 7813
    assert plan["cost"]["seconds_left"] == plan["cost"]["seconds"] == [781.3, 1562.6]
    assert plan["bytes"] > 128000


def test_the_default_data_set_is_said_to_be_one(home: Path, run: Run) -> None:
    for words in (("train", "--kimg", "0.032", *SMALL), ("generate", "--n", "50", "--dry-run")):
        code, _, err = run(*words)
        assert code == 0, err
        assert err.startswith("data set digits_lt: the default"), err
        assert "(choose with --dataset)" in err.splitlines()[0]
        assert "[default: digits_lt" in " ".join(run(words[0], "--help")[1].split())
    assert "the default" not in run(*TRAIN, "--kimg", "0.032")[2]


# What cannot be, and what has no effect yet


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("--utlo-weight", "0.5"), "add --utlo-resolution 4, or leave it out"),
        (("--utlo-resolution", "4", "--augment", "ada"), "  --augment ada:blit,color"),
    ],
)
def test_advice_on_utlo_can_be_followed_at_eight_pixels(
    home: Path, run: Run, options: tuple[str, ...], remedy: str
) -> None:
    code, _, err = run(*TRAIN, "--kimg", "0.032", *options)
    assert (code, remedy in err) == (2, True), err
    assert "--utlo-resolution 8" not in err


def test_advice_on_utlo_at_larger_images_is_eight_pixels() -> None:
    preset = replace(preset_named("cpu32", 32), augment="ada", utlo_resolution=4)
    with pytest.raises(errors.UsageFailure) as refused:
        preset_checks.check(preset)
    assert refused.value.remedy == "--utlo-resolution 8, or --augment ada:blit,color"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--lecam", "0.3", "--lecam-kimg", "1"), "--lecam-kimg 1"),
        (("--twins", "0.1", "--twins-kimg", "2"), "--twins-kimg 2"),
        (("--transition-start", "0.1", "--transition-end", "1.5"), "--transition-end 1.5"),
    ],
)
def test_what_a_budget_does_not_reach_is_a_warning(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], named: str
) -> None:
    monkeypatch.setattr(cost, "step_seconds", lambda plan: Span(0.1, 0.2))
    _, _, err = run(*TRAIN, "--kimg", "1", "--dry-run", *options)
    assert err.count("warning") == 1
    assert f"warning: {named} is not reached in 1 thousand images" in err
    assert "warning" not in run(*TRAIN, "--kimg", "3", "--dry-run", *options)[2]


def test_one_option_under_two_spellings_in_a_file_is_refused(
    home: Path, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "train.toml"
    path.write_text('more_ema = "5"\n"more-ema" = "80"\n')
    code, _, err = run(*TRAIN, "--kimg", "0.032", "--config", path)
    assert (code, "'more_ema' and 'more-ema' are one option" in err) == (2, True), err


def test_a_store_that_cannot_be_made_is_error_4_with_advice_for_every_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "file" / "store"))
    code, _, err = run(*TRAIN, "--kimg", "0.032")
    assert (code, "nothing can be written to" in err) == (4, True), err
    assert err.endswith("  choose another place for the store with STYLEGAN_MIX_HOME\n")


@pytest.mark.parametrize(("side", "proposed"), [(4, 8), (20, 16), (48, 64), (300, 256), (512, 256)])
def test_a_size_without_a_preset_is_told_without_naming_one(side: int, proposed: int) -> None:
    for device in ("cpu", "cuda"):
        with pytest.raises(errors.UsageFailure) as failed:
            default_preset(side, device)
        assert "auto" not in str(failed.value)
        assert f"no preset trains a generator of {side} pixels" in str(failed.value)
        assert f"--from PATH --size {proposed}" in str(failed.value.remedy)
    for name in ("cpu32", "gpu64"):
        with pytest.raises(errors.UsageFailure, match=f"of {side} pixels"):
            preset_named(name, side)
    with pytest.raises(errors.UsageFailure, match=f"preset 'auto' is for .* not {side}"):
        preset_named("auto", side)
