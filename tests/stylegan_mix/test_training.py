"""Generator training as a command: the same weights however it is interrupted."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import StopAfter, tiny_plan

from stylegan_mix import arrays, datasets, store
from stylegan_mix.errors import Diverged, MissingEnvironment, Stopped, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import cost, loop, step
from stylegan_mix.training.disk_room import disk_bytes
from stylegan_mix.training.memory import least_bytes
from stylegan_mix.training.plan import TrainPlan, finished, plan_text, plan_training
from stylegan_mix.training.run import run_training
from stylegan_mix.training.saves import CHECKPOINT_KIND
from stylegan_mix.training.state import TrainState
from stylegan_mix.training.step_inputs import Game, begin


def _train(plan: TrainPlan) -> Published:
    with StopSignals() as stop:
        return run_training(plan, Session(stop))[0]


def test_a_finished_training_is_published_found_and_given_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan()
    published = _train(plan)
    monkeypatch.setattr(
        "stylegan_mix.training.run.train_on_plan", None
    )  # nothing of it is begun again
    assert _train(plan) == published
    assert generator_store.find(split_id=plan.dataset.split_id) == [published]
    assert generator_store.load(published.hash[:10]) == published
    assert generator_store.find(split_id="0" * 64) == []
    assert (published.folder / "grid.png").stat().st_size > 1000
    assert (
        "zero" in (published.folder / "GENERATOR_CARD.md").read_text()
        or "| 0 |" in (published.folder / "GENERATOR_CARD.md").read_text()
    )
    assert len(published.card["diversity"]) == 10


def test_the_published_network_is_the_average_and_draws_images(home: Path) -> None:
    published = _train(tiny_plan())
    network = generator_store.network(published)
    assert not network.training
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    images = network(z, torch.tensor([0, 1, 2]), noise="const")
    assert images.shape == (3, 1, 8, 8)
    assert torch.isfinite(images).all()


# Everything that remembers something from step to step.
REMEMBERING = {
    "augment": "ada:blit,color",
    "ada_kimg": 0.5,
    "ada_groups": "class",
    "path_weight": 2.0,
    "path_interval": 4,
    "lecam": 0.3,
    "transition_end": 0.2,
    "more_ema": "0.02,3",
    "ema_ramp": 0.0,
}


@pytest.mark.parametrize("changes", [{}, REMEMBERING], ids=["plain", "everything that remembers"])
def test_stopping_anywhere_gives_the_same_generator(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plan = tiny_plan(**changes)
    with StopSignals() as stop:
        whole = run_training(plan, Session(stop))
    undisturbed = _logged(plan)
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    for steps in (0, 6, 8):
        with pytest.raises(Stopped, match="thousand images"):
            run_training(plan, Session(StopAfter(steps)))
    with StopSignals() as stop:
        pieces = run_training(plan, Session(stop))
    assert [one.hash for one in pieces] == [one.hash for one in whole]
    assert len({one.hash for one in whole}) == (3 if changes else 1)
    lines = _logged(plan)
    assert lines == undisturbed
    assert lines[-1]["step"] == 20
    assert max(lines[-1].get("ada_p", [1])) > 0


def _logged(plan: TrainPlan) -> list[dict[str, Any]]:
    """The log of a training, but for the clock."""
    lines = map(json.loads, (plan.folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in one.items() if name != "seconds"} for one in lines]


def test_a_log_that_cannot_be_cut_ends_with_code_4_and_keeps_its_lines(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run_training(tiny_plan(), Session(StopAfter(4)))
    log = tiny_plan().folder / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 19}\n')

    replace = os.replace

    def full(source: str, target: Path) -> None:
        if Path(target) == log:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(MissingEnvironment, match=r"full: could not write \S+metrics.jsonl"):
            _train(tiny_plan())
    assert len(log.read_text().splitlines()) == 2
    _train(tiny_plan())
    assert [one["step"] for one in _logged(tiny_plan())] == [1, 20]


def test_a_training_that_goes_on_with_other_operators_says_so_and_its_card_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {"device": "cpu", "operators": "others", "torch": "2.11", "processes": 4}
    with monkeypatch.context() as then, pytest.raises(Stopped):
        then.setattr(loop, "numerics_of", lambda game: before)
        run_training(tiny_plan(), Session(StopAfter(6)))
    published = _train(tiny_plan())
    assert "begun with other operators, torch, processes" in capsys.readouterr().err
    assert [one["processes"] for one in published.card["numerics"]] == [4, 1]
    assert "numerics" not in _train(tiny_plan(lr=0.001)).card


def test_a_longer_budget_goes_on_and_equals_one_long_training(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _train(tiny_plan(kimg=0.16))
    longer = _train(tiny_plan(kimg=0.32))
    assert len(generator_store.find()) == 2
    assert generator_store.find()[0].hash == longer.hash
    with pytest.raises(UsageFailure, match=r"stands at 0\.32 thousand images"):
        _train(tiny_plan(kimg=0.08))
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    assert _train(tiny_plan(kimg=0.32)).hash == longer.hash


def test_every_option_that_names_a_training_changes_its_key(home: Path) -> None:
    base = tiny_plan()
    changes = {
        "lr": 0.001,
        "r1_gamma": 0.1,
        "label_weight": 0.5,
        "label_noise": 0.0,
        "real_power": 1.0,
        "label_power": 0.0,
        "augment": "translation",
        "precision": "bfloat16",
        "ema_kimg": 5.0,
    }
    keys = {tiny_plan(**{name: value}).key for name, value in changes.items()}
    assert len(keys | {base.key}) == len(changes) + 1
    assert tiny_plan(kimg=7).key == base.key


def test_a_loss_that_is_no_number_ends_with_code_5_and_a_sound_checkpoint(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run_training(tiny_plan(), Session(StopAfter(4)))
    real = step.losses.fool_loss
    monkeypatch.setattr(step.losses, "fool_loss", lambda logits: real(logits) * float("nan"))
    with pytest.raises(Diverged, match=r"again, after it had been taken back once: loss_g") as end:
        _train(tiny_plan())
    assert "float32" not in str(end.value.remedy)
    monkeypatch.undo()
    os.environ["STYLEGAN_MIX_HOME"] = str(home)
    assert _train(tiny_plan()).card["kimg"] == 0.32


def test_no_state_is_kept_to_go_back_to_whose_weights_are_no_numbers(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rhythm = dataclasses.replace(loop.Rhythm(), picture_kimg=0.16)  # 10 steps
    monkeypatch.setattr(loop, "Rhythm", lambda **given: dataclasses.replace(rhythm, **given))
    real = loop.train_step
    lost = []

    def breaks(state: TrainState, game: Game, player: Any) -> step.Facts:
        facts = real(state, game, player)
        if state.step == 20 and not state.attempt:
            lost.append(state.step)
            next(state.generator.parameters()).data[0] = torch.nan  # no loss has seen it yet
        return facts

    monkeypatch.setattr(loop, "train_step", breaks)
    plan = tiny_plan(kimg=0.64)
    assert _train(plan).card["attempts"] == 2
    assert lost == [20]
    (event,) = map(json.loads, (plan.folder / "events.jsonl").read_text().splitlines())
    assert (event["step"], event["reason"]) == (20, "a weight is not a finite number")


def test_a_generator_keeps_the_clamp_of_its_training_in_another_precision(home: Path) -> None:
    half, full = (_train(tiny_plan(kimg=0.016, precision=one)) for one in ("float16", "float32"))
    loaded = [generator_store.network(one, precision="float32") for one in (half, full)]
    assert [one.synthesis.b8.conv0.clamp for one in loaded] == [256.0, None]


def test_a_budget_that_is_already_past_is_refused_and_nothing_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        run_training(tiny_plan(), Session(StopAfter(8)))
    checkpoints = tiny_plan().folder / "checkpoints"
    before = {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")}
    with pytest.raises(UsageFailure, match="past the"):
        _train(tiny_plan(kimg=0.016))
    assert before == {path: path.stat().st_mtime_ns for path in checkpoints.rglob("*")}


def test_a_stop_ends_the_wait_for_another_process(home: Path) -> None:
    plan = tiny_plan()
    stop = StopAfter(3)
    with (
        store.locked(home / "training" / f"{plan.key}.lock"),
        pytest.raises(Stopped, match="while waiting for process"),
    ):
        run_training(plan, Session(stop))


def test_averages_that_a_ramp_keeps_equal_are_one_generator_with_the_card_of_the_main_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(kimg=0.032, more_ema="50,0.001", ema_ramp=0.05)
    with StopSignals() as stop:
        first = run_training(plan, Session(stop))
    assert [one.card.get("half_life") for one in first] == [None, 0.001]
    assert len({one.hash for one in first}) == 2
    assert finished(plan) == first
    assert finished(plan)[0].hash == _train(plan).hash


def test_the_first_grid_is_named_once(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    often = loop.Rhythm(picture_kimg=0.16)  # 10 of 20 steps
    monkeypatch.setattr(loop, "Rhythm", lambda save_seconds: often)
    plan = tiny_plan()
    _train(plan)
    assert len(list((plan.folder / "grids").iterdir())) == 2
    named = [line for line in capsys.readouterr().err.splitlines() if "drawn as" in line]
    assert len(named) == 1
    assert Path(named[0].rpartition(": ")[2]) in (plan.folder / "grids").iterdir()


def test_a_disk_that_is_full_at_a_log_or_a_grid_ends_with_code_4(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_for_pictures(path: Path, data: bytes) -> None:
        full() if path.suffix == ".png" else replace_file(path, data)

    replace_file = store.replace_file
    places = {
        "stylegan_mix.training.journal.append_text": full,
        "stylegan_mix.store.replace_file": full_for_pictures,
    }
    for place, filled in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, filled)
            with pytest.raises(MissingEnvironment, match="space|full"):
                _train(tiny_plan(kimg=0.016))


def test_of_several_processes_one_answers_a_dry_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ("train", "--preset", "tiny8", "--batch", "16", "--dry-run", "--json")
    for rank, answers in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        code, out, _ = run(*words)
        assert code == 0
        assert bool(out) == answers
    monkeypatch.delenv("RANK")
    assert json.loads(run(*words)[1])["cost"]["steps"] > 0


def test_what_is_no_generator_in_the_folder_of_generators_is_left_out(home: Path) -> None:
    published = _train(tiny_plan(kimg=0.016))
    (home / "generators" / "notes.txt").write_text("mine")
    assert [one.hash for one in generator_store.find()] == [published.hash]
    (line,) = generator_store.left_out()
    assert re.search(r"left out: (.|\n)*move \S+notes.txt away", line)


def test_what_cannot_be_is_refused(home: Path) -> None:
    with pytest.raises(UsageFailure, match="32 pixels"):
        plan_training(
            datasets.load("digits_lt"),
            preset="cpu32",
            kimg=1,
            seed=0,
            device="cpu",
            command="",
        )
    refused = [
        ({"augment": "colour"}, "did you mean 'color'"),
        ({"augment": "ada", "utlo_resolution": 4}, "cannot move images of 4 pixels"),
        ({"augment": "ada", "strength": "0.5", "ada_target": 0.3}, "fixed --strength 0.5"),
        ({"augment": "ada", "strength": "0.5", "ada_groups": "shot"}, "fixed --strength 0.5"),
        ({"r1_gamma": 0.0, "merged_r1": True}, "at --r1-gamma 0 there is none"),
        ({"utlo_resolution": 3}, "power of 2 from 4 to 4"),
        ({"utlo_resolution": 4, "transition_end": 1.0}, "choose one"),
        ({"transition_start": 2.0, "transition_end": 1.0}, "lies behind"),
        ({"strength": "strong"}, "adaptive or a number"),
        ({"ada_groups": "shots"}, "did you mean 'shot'"),
        ({"path_weight": 1.0}, "needs a --path-interval"),
        ({"twins": 0.1, "batch": 15}, "even batch"),
        ({"twins": 0.1, "label_noise": 0.0}, "label noise"),
        ({"more_ema": "5;80"}, "positive numbers"),
        ({"augment": "ada", "ada_kimg": 0.0}, "no images to rise over"),
        ({"strength": "0.5"}, "--strength 0.5 changes nothing without --augment"),
        ({"noise_beta": 0.99, "label_noise": 0.0}, "nothing without --label-noise"),
        ({"twins_gamma": 0.1}, "nothing without --twins"),
    ]
    for changes, message in refused:
        with pytest.raises(UsageFailure, match=message):
            tiny_plan(**changes)


def test_a_plan_of_data_as_it_is_can_be_shown(home: Path) -> None:
    data = datasets.load("digits_lt", profile="natural")
    plan = plan_training(
        data, preset=None, kimg=None, seed=0, device="cpu", command="stylegan-mix train"
    )
    assert "digits_lt (natural class sizes, 1,057 images" in plan_text(plan)


def test_the_cost_of_a_batch_that_cannot_be_is_refused_as_its_training_is(home: Path) -> None:
    with pytest.raises(UsageFailure, match="must be a multiple of 4"):
        cost.estimate(tiny_plan(batch=6))


@pytest.mark.parametrize("changes", [{"batch": 10**8}, {"channel_base": 10**8}])
def test_what_no_memory_could_hold_is_refused_before_it_is_tried(
    home: Path, changes: dict[str, int]
) -> None:
    # As if the set were large enough for the batch.
    plan = tiny_plan()
    large = dataclasses.replace(plan.preset, **{**changes, "channel_max": 10**6})
    plan = dataclasses.replace(plan, preset=large)
    for way in (cost.estimate, _train):
        with pytest.raises(
            MissingEnvironment, match=r"need more than [\d,]+ GB|needs [\d,.]{9,} MB"
        ):
            way(plan)


@pytest.mark.parametrize("changes", [{}, {"more_ema": "5,80"}, {"channel_max": 64}])
def test_the_least_memory_is_less_than_what_a_training_holds(changes: dict[str, Any]) -> None:
    plan = tiny_plan(**changes)
    state, _ = begin(plan.preset, plan.dataset, seed=0, device=torch.device("cpu"))
    networks = [state.generator, state.discriminator, state.average, *state.more]
    copies = [4, 4, *[1] * (len(networks) - 2)]
    weights = sum(
        4 * copy * sum(weight.numel() for weight in network.parameters())
        for network, copy in zip(networks, copies, strict=True)
    )
    assert 0.5 * weights < least_bytes(plan.preset, 0) < weights
    # A row: three features of 8x8 pixels in float32.
    row = least_bytes(plan.preset, 1) - least_bytes(plan.preset, 0)
    assert row == 3 * 4 * 8 * 8 * min(plan.preset.channel_base // 8, plan.preset.channel_max)


def test_the_cost_of_a_plan_grows_with_it_and_leaves_nothing(home: Path) -> None:
    short, long = (cost.estimate(tiny_plan(kimg=kimg)) for kimg in (0.32, 32))
    assert (short.steps, short.images) == (20, 320)
    assert (long.steps, long.images) == (2000, 32000)
    assert 0 < short.whole.low <= short.whole.high
    assert short.left == short.whole
    assert not tiny_plan().folder.exists()
    _train(tiny_plan())
    (saved,) = (tiny_plan().folder / "checkpoints").iterdir()
    container = arrays.open_container(saved, kind=CHECKPOINT_KIND)
    state = sum(container[name].nbytes for name in container.names)
    assert 4 * state < short.bytes == disk_bytes(tiny_plan()) <= long.bytes


def _command(*extra: str) -> list[str]:
    return [
        *(sys.executable, "-m", "stylegan_mix", "train", "--dataset", "digits_lt"),
        *("--kimg", "1", "--batch", "16", "--threads", "1", "--json", *extra),
    ]


@pytest.mark.slow
def test_killed_at_random_times_the_same_command_ends_with_the_same_weights(
    home: Path, repo_root: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    draws = np.random.default_rng()  # any moment: a failure prints them
    moments = sorted(int(number) for number in draws.integers(1, 30, 3))
    print("killed at steps", moments)

    def run(place: str, *, killed_at: list[int]) -> str:
        environment["STYLEGAN_MIX_HOME"] = str(tmp_path / place)
        for moment in killed_at:
            process = subprocess.Popen(_command("--save-minutes", "0"), env=environment)
            while _newest_step(tmp_path / place) < moment:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert process.returncode == -signal.SIGKILL
        done = subprocess.run(_command(), env=environment, capture_output=True, check=True)
        return str(json.loads(done.stdout)["generator"])

    assert run("killed", killed_at=moments) == run("whole", killed_at=[])


def _newest_step(home: Path) -> int:
    steps = home.glob("training/*/checkpoints/step-*")
    return max((int(path.name.removeprefix("step-")) for path in steps), default=0)
