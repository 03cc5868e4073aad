"""A loss and a mixer from outside: one class and one line of a catalogue each, no other change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_mix.errors import Stopped
from stylegan_mix.session import Session
from trainer.engine.arms import ARMS, Arm
from trainer.engine.batch import Batch
from trainer.engine.mixing import Mixed, Streams
from trainer.engine.run import run_recipe
from trainer.models import Head, Outputs
from trainer.objectives import Loss, Needs, Objective, Rows, Task
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.stage import Recipe, Stage
from trainer.spec import DataSpec, RunSpec

STATES: list[Any] = []


@dataclass(frozen=True)
class Prototypes(Objective):
    """Cross-entropy on a learned map of the features, near the running mean of their class.

    It asks for all that an objective can have: a further head, noise, parameters that learn and a
    buffer that follows the steps.
    """

    momentum: float = 0.9
    stochastic = True
    reads_state = True

    @property
    def needs(self) -> Needs:
        return Needs(others={"side": Head("cosine", 4.0)})

    def state(self, task: Task) -> nn.Module:
        made = nn.Module()
        made.map = nn.Linear(task.features, len(task.counts))
        made.register_buffer("means", torch.zeros(len(task.counts), task.features))
        STATES.append(made)
        return made

    def bind(self, task: Task, state: Any = None) -> Loss:
        def loss(student: Outputs, rows: Rows) -> Tensor:
            noise = rows.draws.normal(len(rows.label))
            logits = student.logits + state.map(student.features) + student.others["side"]
            pull = (student.features - state.means[rows.label]).square().mean(1)
            return F.cross_entropy(logits, rows.label, reduction="none") + pull * noise.exp()

        return loss

    def after_step(self, state: Any, out: Outputs, batch: Batch) -> None:
        for label, feature in zip(batch.label_a.tolist(), out.features, strict=True):
            state.means[label].lerp_(feature, 1 - self.momentum)


@dataclass(frozen=True)
class Halves:
    """The left half of an image beside the right half of its neighbour."""

    alpha: float

    def __call__(
        self, planes: Tensor, labels: np.ndarray, counts: np.ndarray, draws: Streams
    ) -> Mixed:
        partner = np.roll(np.arange(len(labels)), draws("halves").integers(1, len(labels)))
        mixed = planes.clone()
        half = planes.shape[3] // 2
        mixed[:, :, :, half:] = planes[partner][:, :, :, half:]
        return Mixed(mixed, partner, np.full(len(labels), 0.5, np.float32))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines."""
    toy = Recipe("prototypes", "near its class", (Stage("train", Prototypes()),))
    monkeypatch.setitem(RECIPES, "prototypes", toy)
    monkeypatch.setitem(ARMS, "halves", Arm(mixer=Halves))
    STATES.clear()


SPEC: dict[str, Any] = {
    "data": DataSpec("digits_lt", imbalance=20.0, profile="exp"),
    "model": "resnet8",
    "epochs": 2,
    "bn_refresh_batches": 2,
}


@pytest.mark.usefixtures("opened", "home")
def test_a_stage_with_a_state_goes_on_at_any_step_with_the_same_bits(
    stop_after: Any, require_same: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    spec = RunSpec(recipe="prototypes", aug="halves", **SPEC)
    run_recipe(spec, tmp_path / "whole", session=Session(stop_after()))
    (state,) = STATES  # one a stage, although the loss is bound twice
    assert state.map.bias.abs().min() > 0 and state.means.abs().max(1).values.min() > 0
    for looks in (1, 4):
        parts = tmp_path / str(looks)
        with pytest.raises(Stopped):
            run_recipe(spec, parts, session=Session(stop_after(looks)))
        run_recipe(spec, parts, session=Session(stop_after()))
        require_same(tmp_path / "whole", parts)


@pytest.mark.usefixtures("opened", "home")
def test_the_command_knows_both_names(trainer: Any, tmp_path: Path) -> None:
    words = "run --dataset digits_lt --aug halves --recipe prototypes --model resnet8 --epochs 1"
    code, _, told = trainer(*words.split(), "--bn-refresh-batches", "1", "--out", str(tmp_path))
    assert code == 0, told
    assert "halves" in told and "prototypes" in told
    (path,) = tmp_path.glob("digits_lt-prototypes-halves-*/seed-0/result.json")
    record = json.loads(path.read_text())
    assert (record["arm"], record["method"]["name"]) == ("halves", "prototypes")
    facts = record["method"]["stages"][0]["objective"]
    assert facts == {"kind": "Prototypes", "momentum": 0.9}
    code, listed, _ = trainer("recipes")
    assert code == 0 and "prototypes" in listed


def test_a_new_arm_or_recipe_renames_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [RunSpec(aug=aug, recipe=recipe) for aug in ("none", "mixup") for recipe in RECIPES]
    before = [spec.key for spec in specs]
    monkeypatch.setitem(ARMS, "halves", Arm(mixer=Halves))
    monkeypatch.setitem(RECIPES, "prototypes", RECIPES["ce"])
    assert [spec.key for spec in specs] == before
