"""Changes of a training compared at equal time: data without test images, points, curves."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_training import StopAfter, tiny_plan

from stylegan_mix import datasets
from stylegan_mix.errors import Diverged, InvalidInput, Stopped
from stylegan_mix.estimates import Span
from stylegan_mix.metrics.probe import Schedule
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopEvent
from stylegan_mix.training.run import run_training
from stylegan_mix.training.saves import Saves
from stylegan_mix.training.schedules import is_half

PLAN = """
[base]
dataset = "digits_lt"
preset = "tiny8"
batch = 16
channel_base = 64
channel_max = 8
on_collapse = "go-on"

[judge]
n = 100
minutes = 0.02
points = 2

[[variants]]
name = "plain"
about = "the preset"

[[variants]]
name = "growing"
about = "at half the size at first"
grow = [0.5, 0.25]
"""


@pytest.fixture(scope="module")
def script(repo_root: Path, load_file: Callable[[Path], ModuleType]) -> ModuleType:
    return load_file(repo_root / "tools" / "experiments" / "generator_changes.py")


@pytest.fixture
def call(
    script: ModuleType, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """`call(options)` runs the script on `PLAN`, or `plan`; returns its status."""

    def called(*options: str, plan: str = PLAN) -> int:
        file = tmp_path / "plan.toml"
        file.write_text(plan)
        words = ["generator_changes.py", str(file), "--results", str(tmp_path / "results")]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [*words, *options])
            status: int = script.main()
        return status

    return called


def results(tmp_path: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "results" / f"{name}-seed0.json").read_text())
    return found


@pytest.mark.parametrize("share", [0.2, 0.05])
def test_held_out_images_are_training_images_that_nothing_is_trained_on(
    script: ModuleType, share: float
) -> None:
    digits = datasets.load("digits_lt")
    cut = script.held_out(digits, share)
    assert len(cut.train) + len(cut.test) == len(digits.train)
    own = {image.tobytes() for image in digits.train.images}
    kept, held = ({image.tobytes() for image in part.images} for part in (cut.train, cut.test))
    assert kept | held == own
    # The digits repeat no image.
    assert not kept & held
    assert np.bincount(cut.test.labels).tolist() == [
        max(round(share * count), 1) for count in digits.counts
    ]
    assert cut.counts.tolist() == np.bincount(cut.train.labels).tolist()
    assert len({digits.split_id, cut.split_id, cut.test_id, digits.test_id}) == 4
    again = script.held_out(digits, share)
    assert (again.split_id, again.test_id) == (cut.split_id, cut.test_id)
    one = dataclasses.replace(digits, counts=np.array([*digits.counts[:-1], 1]))
    with pytest.raises(InvalidInput, match=r"has 1 image\(s\), none to hold out"):
        script.held_out(one, 0.2)


def test_shares_of_the_time_become_kimg_by_the_speed_of_both_sizes(
    script: ModuleType, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    comparison = script.Comparison(file, tmp_path, None)

    def measured(plan: Any) -> Span:
        return Span(0.01, 0.01) if is_half(plan.preset, 0) else Span(0.04, 0.04)

    monkeypatch.setattr(script, "step_seconds", measured)
    # 1.2 s: 60 small steps of 16 images in the first half, 7.5 whole ones in the next quarter.
    found = comparison.changes_of(comparison.plan["variants"][1])
    assert found == {"grow_start": 0.96, "grow_end": 1.08}
    assert comparison.changes_of(comparison.plan["variants"][0]) == {}


# A step takes so many seconds, on any machine.
STEP = 0.1


class Steps(StopEvent):
    """A time limit that counts steps."""

    def __init__(self, minutes: float | None = None) -> None:
        super().__init__()
        self.left = math.inf if minutes is None else math.ceil(60 * minutes / STEP - 0.01)

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def requested(self) -> str | None:
        self.left -= 1
        return "minutes" if self.left <= 0 else None


def test_the_time_of_a_training_is_that_of_its_saved_state(script: ModuleType, home: Path) -> None:
    plan = tiny_plan()
    assert script.trained_seconds(plan) == 0
    with pytest.raises(Stopped):
        run_training(plan, Session(StopAfter(5)))
    began = script.trained_seconds(plan)
    assert began > 0
    run_training(plan)
    (line,) = map(json.loads, (plan.folder / "metrics.jsonl").read_text().splitlines())
    assert script.trained_seconds(plan) >= line["seconds"] >= began - 0.001


def test_a_comparison_in_miniature_is_resumed_and_draws_its_curves(
    script: ModuleType,
    call: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("stylegan_mix.metrics.measure", "stylegan_mix.metrics.probe"):
        monkeypatch.setattr(f"{module}.schedule_for", lambda size: Schedule(steps=3, batch=16))
    monkeypatch.setattr(script, "step_seconds", lambda plan: Span(STEP, STEP))
    monkeypatch.setattr(script, "StopSignals", Steps)
    monkeypatch.setattr(
        script, "trained_seconds", lambda plan: STEP * Saves(plan.folder).newest_step
    )

    class Killed(BaseException):
        pass

    point = script.Comparison.point

    def killed(self: Any, plan: Any) -> Any:
        monkeypatch.setattr(script.Comparison, "point", point)
        raise Killed

    monkeypatch.setattr(script.Comparison, "point", killed)
    with pytest.raises(Killed):
        call()
    assert results(tmp_path, "plain")["points"] == []
    assert call() == 0
    for name in ("plain", "growing"):
        record = results(tmp_path, name)
        first, last = record["points"]
        assert [one["seconds"] for one in (first, last)] == [0.6, 1.2]
        assert [one["kimg"] for one in (first, last)] == [0.096, 0.192]
        assert first["generator"] != last["generator"]
        assert {"kernel", "memorisation", "cas", "cas_few"} <= set(last)
        assert 0 <= last["cas"] <= 100
    assert results(tmp_path, "growing")["changes"] == {"grow_start": 0.096, "grow_end": 0.144}
    with Image.open(tmp_path / "results" / "curves.png") as picture:
        assert min(picture.size) > 500
    monkeypatch.setattr(script, "run_training", None)  # nothing is trained again
    capsys.readouterr()
    assert call() == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[0].split()[:4] == ["variant", "seed", "minutes", "kimg"]
    (tmp_path / "results" / "curves.png").unlink()
    assert call("--picture") == 0
    assert (tmp_path / "results" / "curves.png").exists()


def test_a_variant_that_diverges_is_told_and_the_others_go_on(
    script: ModuleType, call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = iter([Diverged("every class collapsed"), {"kernel": 1.0}, {"kernel": 0.5}])

    def point(self: Any, plan: Any) -> dict[str, Any]:
        found = next(points)
        if isinstance(found, Diverged):
            raise found
        return {"seconds": 1.0, "kimg": 1.0, "generator": "a", **found}

    monkeypatch.setattr(script, "_train_up_to", lambda plan, seconds: None)
    monkeypatch.setattr(script, "step_seconds", lambda plan: Span(0.02, 0.02))
    monkeypatch.setattr(script.Comparison, "point", point)
    assert call() == 0
    assert results(tmp_path, "plain")["failed"] == "every class collapsed"
    assert [one["kernel"] for one in results(tmp_path, "growing")["points"]] == [1.0, 0.5]
    assert call("--only", "plain") == 0


def test_a_stop_of_the_training_ends_the_comparison_with_its_code(
    script: ModuleType, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(plan: Any, session: Any) -> None:
        session.stop.set("SIGTERM")
        raise Stopped("stopped (SIGTERM)")

    monkeypatch.setattr(script, "run_training", stopped)
    assert call() == 75


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("n = 100", "n = 50"), 3, "has settings"),
        (('"the preset"', '"another"'), 3, "has asked"),
        (("points = 2", "points = 2\nfolds = 3"), 2, "knows no folds"),
        (('preset = "tiny8"', 'preset = "tiny8"\nsize = 3'), 2, "knows no size"),
    ],
)
def test_records_of_another_plan_and_unknown_settings_are_refused(
    script: ModuleType,
    call: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    code: int,
    message: str,
) -> None:
    found = {"seconds": 1.0, "kimg": 1.0, "generator": "a", "kernel": 1.0}
    monkeypatch.setattr(script, "_train_up_to", lambda plan, seconds: None)
    monkeypatch.setattr(script.Comparison, "point", lambda self, plan: dict(found))
    assert call("--only", "plain") == 0
    assert call("--only", "plain", plan=PLAN.replace(*change)) == code
    assert message in capsys.readouterr().err
    assert call("--only", "other") == 2
    assert "no variant other; there are plain, growing" in capsys.readouterr().err


def test_every_variant_of_the_files_is_a_training_that_can_be_planned(
    repo_root: Path, home: Path
) -> None:
    from stylegan_mix.presets import preset_named
    from stylegan_mix.training import preset_checks

    files = sorted((repo_root / "tools" / "experiments").glob("*_changes.toml"))
    assert len(files) == 2
    for file in files:
        plan = tomllib.loads(file.read_text())
        base = dict(plan["base"])
        size = {"digits_lt": 8, "cifar10_lt": 32}[base.pop("dataset")]
        preset = preset_named(base.pop("preset"), size)
        base.pop("imbalance", None)
        seen = set()
        for variant in plan["variants"]:
            changes = {k: v for k, v in variant.items() if k not in ("name", "about", "grow")}
            if "grow" in variant:
                changes |= {"grow_start": variant["grow"][0], "grow_end": sum(variant["grow"])}
            chosen = dataclasses.replace(preset, **base, **changes)
            preset_checks.check(chosen)
            preset_checks.check_effect(chosen, changes)
            seen.add(json.dumps(chosen.plain()))
        assert len(seen) == len(plan["variants"]) >= 6, "each is a training of its own"
