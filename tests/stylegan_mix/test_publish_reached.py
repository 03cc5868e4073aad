"""`train --publish`: a generator of what an unfinished training has, which goes on untouched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import StopAfter, damage, tiny_plan

from stylegan_mix import store
from stylegan_mix.errors import Diverged, InvalidInput, Stopped
from stylegan_mix.generators import store as generator_store
from stylegan_mix.session import Session
from stylegan_mix.training import publication
from stylegan_mix.training.plan import TrainPlan, finished, start_of
from stylegan_mix.training.run import publish_reached, run_training
from stylegan_mix.training.saves import Saves

Run = Callable[..., tuple[int, str, str]]

TRAIN = ("train", "--dataset", "digits_lt", "--batch", "16", "--channel-base", "64")
TRAIN += ("--channel-max", "8", "--device", "cpu")


def stopped(plan: TrainPlan, steps: int = 7) -> float:
    """Trains some steps, and returns the kimg that were reached."""
    with pytest.raises(Stopped):
        run_training(plan, Session(StopAfter(steps)))
    return start_of(plan)


def command(kimg: float) -> str:
    return f"stylegan-mix train --kimg {kimg:g}"


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_reached_is_published_and_the_training_ends_as_if_nothing_had_been(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run_training(tiny_plan())[0].hash
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    plan = tiny_plan()
    kimg = stopped(plan)
    before = content(plan.folder)
    (published,) = publish_reached(plan, command)
    assert content(plan.folder) == before
    assert published.card["kimg"] == kimg
    assert published.card["command"] == command(kimg)
    assert finished(plan) == []
    assert run_training(plan)[0].hash == whole != published.hash
    assert finished(plan)[0].hash == whole


def test_it_is_the_generator_of_a_training_that_ends_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = tiny_plan(more_ema="0.001,50", ema_ramp=0.0)
    kimg = stopped(plan)
    reached = publish_reached(plan, command)
    assert publish_reached(plan, command) == reached
    assert [one.card.get("half_life") for one in reached] == [None, 0.001, 50.0]
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    there = run_training(tiny_plan(kimg=kimg, more_ema="0.001,50", ema_ramp=0.0))
    assert [one.hash for one in there] == [one.hash for one in reached]


def test_a_training_under_way_is_published_without_waiting_for_it(home: Path) -> None:
    plan = tiny_plan()
    stopped(plan)
    with store.locked(home / "training" / f"{plan.key}.lock"):
        assert len(publish_reached(plan, command)) == 1


def test_a_damaged_newest_state_gives_the_one_before_with_its_own_budget(home: Path) -> None:
    plan = tiny_plan()
    first = stopped(plan, 5)
    assert stopped(plan, 5) > first
    newest = max((plan.folder / "checkpoints").iterdir())
    damage(newest)
    (published,) = publish_reached(plan, command)
    assert published.card["kimg"] == first
    assert published.card["command"] == command(first)


def test_states_that_are_all_damaged_are_code_3(home: Path) -> None:
    plan = tiny_plan()
    stopped(plan)
    for folder in (*(plan.folder / "checkpoints").iterdir(), *(plan.folder / "kept").iterdir()):
        damage(folder)
    with pytest.raises(InvalidInput, match="no saved state in"):
        publish_reached(plan, command)
    assert generator_store.find() == []


def test_a_state_of_dead_classes_is_not_published(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan()
    kimg = stopped(plan)
    draws = publication.class_samples_of

    def black(*given: object) -> dict[int, torch.Tensor]:
        return {c: 0 * few for c, few in draws(*given).items()}

    monkeypatch.setattr(publication, "class_samples_of", black)
    with pytest.raises(Diverged, match=f"no generator to publish at {kimg:g} thousand images"):
        publish_reached(plan, command)
    assert generator_store.find() == []
    assert start_of(plan) == kimg


# As a user types it


@pytest.mark.parametrize("begun", [False, True])
def test_without_a_step_there_is_nothing_to_publish(home: Path, run: Run, begun: bool) -> None:
    if begun:
        assert run(*TRAIN, "--minutes", "1e-9")[0] == 75
        (folder,) = (path for path in (home / "training").iterdir() if path.is_dir())
        Saves(folder).checkpoints.clear()
    code, out, err = run(*TRAIN, "--seed", "0", "--publish")
    assert (code, out) == (3, ""), err
    assert "there is nothing to publish of digits_lt yet: no step of training" in err
    if begun:
        assert "for the first time a minute after its start (--save-minutes)" in err
        assert "the same command without --publish goes on" in err
    else:
        assert "no training was begun with this preset, these options and this --seed" in err
        assert "the same command without --publish begins one" in err
    assert generator_store.find() == []


def test_the_command_publishes_and_later_goes_on(home: Path, run: Run) -> None:
    code, _, err = run(*TRAIN, "--kimg", "0.32", "--minutes", "1e-9")
    assert code == 75, err
    code, out, err = run(*TRAIN, "--kimg", "0.32", "--publish", "--dry-run")
    assert (code, out) == (0, ""), err
    assert "has 0.016 thousand images" in err
    assert generator_store.find() == []
    code, out, err = run(*TRAIN, "--kimg", "0.32", "--publish", "--json")
    assert code == 0, err
    published = generator_store.load(json.loads(out)["generator"])
    assert published.card["kimg"] == 0.016
    assert "--kimg 0.016" in published.card["command"]
    assert "--publish" not in published.card["command"]
    code, out, err = run(*TRAIN, "--kimg", "0.32", "--json")
    assert (code, json.loads(out)["generator"] == published.hash) == (0, False), err
    assert "to go on with from 0.016 thousand images" in err


def test_a_bank_is_made_of_what_was_published(home: Path, run: Run) -> None:
    run(*TRAIN, "--minutes", "1e-9")
    run(*TRAIN, "--publish")
    code, _, err = run("generate", "--dataset", "digits_lt", "--n", "10", "--no-train")
    assert code == 0, err
    assert "0.016 of 250 thousand images" in err
