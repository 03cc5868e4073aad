"""The contract of every recipe: the steps of each of its stages, on real rows and with a bank.

Their objectives, the rule of mixed labels and the printed form are tested for every recipe in
`test_objectives.py` and `test_recipes.py`, whole runs in `test_runs.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from other_settings import arm_with_bank, data_for
from torch import Tensor

from stylegan_mix.session import Session
from trainer.engine import loop
from trainer.engine.arms import ARMS
from trainer.engine.run import run_recipe
from trainer.recipes.catalogue import RECIPES
from trainer.spec import DataSpec, RunSpec, VoteSpec


def flat(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a `State.dump`, by path, as copies."""
    found = {}
    for name, value in state.items():
        inner = flat(value) if isinstance(value, dict) else {"": value.clone()}
        found.update({f"{name}/{path}": one for path, one in inner.items()})
    return found


@torch.no_grad()
def spoil(state: loop.State) -> None:
    """Changes everything that a checkpoint should hold."""
    kept = [*state.model.parameters(), *state.model.buffers(), state.tally.epoch]
    kept += [*state.objective.parameters(), *state.objective.buffers()] if state.objective else []
    kept += [*state.follower.parameters(), *state.follower.buffers()] if state.follower else []
    kept += [one["momentum_buffer"] for one in state.optimiser.state.values() if one]
    for value in kept:
        value.logical_not_() if value.dtype == torch.bool else value.add_(1)


def watched(seen: list[str]) -> Callable[[loop.Job, loop.State], Tensor]:
    """Stands in for `loop.one_step`: makes the step, and tests it."""
    step = loop.one_step

    def one_step(job: loop.Job, state: loop.State) -> Tensor:
        before, saved = flat(state.dump()), copy.deepcopy(state.dump())
        values = step(job, state)
        trained = [one for group in state.optimiser.param_groups for one in group["params"]]
        grads = [one.grad for one in trained if one.grad is not None]  # none where it is held
        assert values.isfinite().all()
        assert all(grad.isfinite().all() for grad in grads) and any(grad.any() for grad in grads)
        own = dict(state.model.named_parameters())
        after = flat(state.dump())
        for name, parameter in own.items():
            moved = not torch.equal(after[f"model/{name}/"], before[f"model/{name}/"])
            assert moved <= any(parameter is one for one in trained), name
        if state.step == 1:
            spoil(state)
            state.restore(saved)
            assert torch.equal(step(job, state), values)
            again = flat(state.dump())
            assert all(torch.equal(again[name], value) for name, value in after.items())
            seen.append(job.name)
        return values

    return one_step


CASES = [(name, aug) for name in RECIPES for aug in dict.fromkeys(("none", arm_with_bank(name)))]
# The other arms, with a loss that has a state, and with one that knows images by their rows.
CASES += [("memory-kt", aug) for aug, arm in ARMS.items() if aug != "none" and not arm.bank]
CASES += [("patched-one-hot", "cmo"), ("gcl", "cmo"), ("gcl", "lob-mixup")]


@pytest.mark.parametrize(("name", "aug"), CASES)
def test_steps_are_finite_train_what_they_should_and_go_on_from_a_saved_state_with_the_same_bits(
    name: str, aug: str, bank_for: Any, stop_after: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    data = data_for(name, DataSpec("digits_lt", imbalance=20.0, profile="exp"))
    spec = RunSpec(
        data=data,
        recipe=name,
        recipe_version=RECIPES[name].version,
        aug=aug,
        bank=bank_for(data) if aug == "hybrid" else None,
        model="resnet8",
        epochs=1,
        bn_refresh_batches=1,
        votes=VoteSpec(views=2) if name == "patched-one-hot" else VoteSpec(),
    )
    seen: list[str] = []
    monkeypatch.setattr(loop, "one_step", watched(seen))
    run_recipe(spec, tmp_path / "run", session=Session(stop_after()), checkpoint_seconds=1e9)
    assert seen == [stage.name for stage in RECIPES[name].stages]
