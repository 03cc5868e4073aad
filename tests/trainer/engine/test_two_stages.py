"""Second stages of decoupled recipes: what they train, at which rate, and what they keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix.session import Session
from trainer.engine import loop
from trainer.engine.folder import Finished
from trainer.engine.run import run_recipe
from trainer.models import Head
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.stage import Draw
from trainer.spec import DataSpec, RunSpec

SPEC = RunSpec(
    data=DataSpec("digits_lt", imbalance=20.0, profile="exp"),
    model="resnet8",
    epochs=2,
    bn_refresh_batches=1,
)
TWO = ("lws", "mislas", "gcl", "gcl-angular")


def trained(name: str, folder: Path, stop: Any) -> tuple[Finished, Finished]:
    spec = replace(SPEC, recipe=name, recipe_version=RECIPES[name].version)
    run_recipe(spec, folder, session=Session(stop), checkpoint_seconds=1e9)
    first, second = (Finished.load(folder / "weights" / stage) for stage in ("train", "head"))
    return first, second


def changed(first: Finished, second: Finished) -> set[str]:
    """The tensors of the second network that the first has not, or has otherwise."""
    return {
        name
        for name, value in second.weights.items()
        if name not in first.weights or not torch.equal(value, first.weights[name])
    }


@pytest.mark.usefixtures("home")
def test_lws_learns_one_factor_for_each_class_and_nothing_else(
    stop_after: Any, tmp_path: Path
) -> None:
    first, second = trained("lws", tmp_path / "run", stop_after())
    assert changed(first, second) == {"head.scale"}
    assert second.head == Head("scaled")
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        before, after = first.network()(images).logits, second.network()(images).logits
    torch.testing.assert_close(after, second.weights["head.scale"] * before)


@pytest.mark.usefixtures("home")
def test_mislas_learns_the_whole_head_and_its_norms_follow(stop_after: Any, tmp_path: Path) -> None:
    first, second = trained("mislas", tmp_path / "run", stop_after())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    followed = {name for name in first.weights if name.endswith(statistics)}
    learned = {"head.scale", "head.weight", "head.bias"}
    assert changed(first, second) == learned | followed
    assert second.head == Head("rescaled")
    alike = torch.cosine_similarity(first.weights["head.weight"], second.weights["head.weight"])
    assert (alike > 0.9).all()


@pytest.mark.parametrize("name", ["gcl", "gcl-angular"])
@pytest.mark.usefixtures("home")
def test_gcl_goes_on_with_its_own_head_at_another_scale(
    name: str, stop_after: Any, tmp_path: Path
) -> None:
    first, second = trained(name, tmp_path / "run", stop_after())
    assert changed(first, second) == {"head.weight"}
    assert (first.head, second.head) == (Head("cosine", 30.0), Head("cosine", 20.0))
    alike = torch.cosine_similarity(first.weights["head.weight"], second.weights["head.weight"])
    assert (alike > 0.9).all()


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("mislas", {"head.scale": 0.1, "head.weight": 0.05, "head.bias": 0.05}),
        ("lws", {"head.scale": 0.1}),
        ("gcl", {"head.weight": 0.002}),
    ],
)
@pytest.mark.usefixtures("home")
def test_parameters_of_a_head_begin_at_their_own_rates(
    name: str, rates: dict[str, float], stop_after: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    found: dict[str, float] = {}
    step = loop.one_step

    def watched(job: loop.Job, state: loop.State) -> torch.Tensor:
        values = step(job, state)
        if job.name == "head" and state.step == 0:
            names = {id(one): name for name, one in state.model.named_parameters()}
            for group in state.optimiser.param_groups:
                for one in group["params"]:
                    if one.grad is not None:
                        found[names[id(one)]] = group["lr"]
        return values

    monkeypatch.setattr(loop, "one_step", watched)
    trained(name, tmp_path / "run", stop_after())
    assert found == pytest.approx(rates)


@pytest.mark.usefixtures("home")
def test_a_rate_of_a_parameter_that_is_not_there_is_an_error(
    stop_after: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    train, head = RECIPES["mislas"].stages
    odd = replace(head, rates=(("head.factor", 1.0),))
    monkeypatch.setitem(RECIPES, "mislas", replace(RECIPES["mislas"], stages=(train, odd)))
    with pytest.raises(ValueError, match=r"sets the rates of \['head.factor'\]"):
        trained("mislas", tmp_path / "run", stop_after())


# Published numbers, for 200 epochs at a rate of 0.1, on CIFAR-10-LT at imbalance 100


@pytest.mark.parametrize(
    ("name", "epochs", "rate", "norms", "weight_decay"),
    [
        ("lws", 10, 0.1, "frozen", 5e-4),
        ("mislas", 10, 0.05, "follow", None),
        ("gcl", 30, 0.002, "frozen", None),
        ("gcl-angular", 30, 0.002, "frozen", None),
    ],
)
def test_second_stages_are_as_published(
    name: str, epochs: int, rate: float, norms: str, weight_decay: float | None
) -> None:
    train, head = RECIPES[name].stages
    assert (train.rows, train.draws, train.share) == ("arm", (Draw(),), 1.0)
    assert (head.epochs(200), 0.1 * head.lr) == (epochs, pytest.approx(rate))
    assert (head.train, head.start, head.head) == ("head", "train", "kept")
    assert (head.rows, head.draws, head.schedule) == ("real", (Draw("class"),), "cosine")
    assert (head.norms, head.weight_decay) == (norms, weight_decay)
