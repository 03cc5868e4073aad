"""Hyper-parameters of the recipes are those of the published code or text."""

from __future__ import annotations

import pytest

from trainer.engine.features import GlobalAndLocal
from trainer.models import Head
from trainer.objectives import (
    BalancedContrast,
    CrossEntropy,
    Deferred,
    ExpectedContrast,
    Focal,
    GaussianClouded,
    LabelAwareSmoothing,
    Ldam,
    LogitAdjusted,
    MemoryTransfer,
    MixtureConsistency,
    Objective,
    ParametricContrast,
    Remembered,
    Reweighted,
    SigmoidFocal,
    Sum,
    VectorScaled,
)
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.stage import Draw
from trainer.recipes.with_memory import Assignment, MemoryFusion, WeightedFusion
from trainer.spec import RunSpec

CE = CrossEntropy()
BALANCED = Reweighted(CE, 0.9999)


def test_the_protocol_is_that_of_ldam_with_the_factors_of_mislas() -> None:
    """200 epochs of 128, rate 0.1, five epochs of warm-up, 0.01 and 0.001 after 160 and 180."""
    spec = RunSpec()
    assert (spec.epochs, spec.batch, spec.lr, spec.momentum) == (200, 128, 0.1, 0.9)
    assert (spec.weight_decay, spec.warmup_epochs) == (2e-4, 5)
    assert [200 * mark for mark in spec.milestones] == [160, 180]
    assert spec.decay == (0.1, 0.01)
    assert spec.data.split_seed == 0


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("focal", Focal(gamma=1.0)),
        ("cb-ce", Reweighted(CE, 0.9999, "classes")),
        ("cb-focal", Reweighted(SigmoidFocal(1.0), 0.9999, "classes")),
        ("ce-drw", Deferred(CE, BALANCED, at=160 / 200)),
        ("ldam", Ldam(largest=0.5, scale=30.0, beta=0.0)),
        ("ldam-drw", Deferred(Ldam(0.5, 30.0), Ldam(0.5, 30.0, 0.9999), at=160 / 200)),
        ("balanced-softmax", LogitAdjusted(1.0)),
        ("logit-adjust", LogitAdjusted(1.0)),
        ("vs-loss", VectorScaled(gamma=0.2, tau=1.2)),
        ("label-aware-smoothing", LabelAwareSmoothing(first=0.3, last=0.0)),
        ("manifold-mixup", CE),
        ("memory-kt", MemoryTransfer(label_weight=0.2, temperature=1.0, rate=0.1)),
    ],
)
def test_losses_of_one_stage(name: str, objective: Objective) -> None:
    (stage,) = RECIPES[name].stages
    assert stage.objective == objective


FUSIONS = {
    "sum-logits": WeightedFusion("logits", 0.5),
    "sum-probabilities": WeightedFusion("probabilities", 0.5),
    "max": MemoryFusion("max"),
    "weighted-logits": WeightedFusion("logits"),
    "weighted-probabilities": WeightedFusion("probabilities"),
    "scaled-logits": WeightedFusion("scaled"),
    "attention": MemoryFusion("attention"),
}


def test_clouded_logits() -> None:
    """Noise of 0.5 at scale 30, then scale 20, margin 0.1 and gamma 1; on angles 0.1."""
    first, then = (stage.objective for stage in RECIPES["gcl"].stages)
    assert first == GaussianClouded("cosine", size=0.5, margin=0.0, scale=30.0, gamma=0.0)
    assert then == GaussianClouded("cosine", size=0.5, margin=0.1, scale=20.0, gamma=1.0)
    first, then = (stage.objective for stage in RECIPES["gcl-angular"].stages)
    assert first == GaussianClouded("angle", size=0.1, margin=0.0, scale=30.0, gamma=0.0)
    assert then == GaussianClouded("angle", size=0.1, margin=0.1, scale=20.0, gamma=1.0)


def test_balanced_contrast() -> None:
    """The shares 2 and 0.6 of its published use on CIFAR, temperature 0.1, 512 and 128 units."""
    (stage,) = RECIPES["bcl"].stages
    contrast = BalancedContrast(temperature=0.1, hidden=512, width=128)
    assert stage.objective == Sum(((2.0, LogitAdjusted(1.0)), (0.6, contrast)))
    assert stage.views == ("simclr", "simclr")


def test_contrast_with_distributions() -> None:
    """Both terms alike, temperature 0.1, 512 units with a batch norm and 128, a linear head."""
    (stage,) = RECIPES["proco"].stages
    contrast = ExpectedContrast(temperature=0.1, hidden=512, width=128)
    assert stage.objective == Sum(((1.0, LogitAdjusted(1.0)), (1.0, contrast)))
    needs = stage.objective.needs
    assert needs.others == {"contrast": Head("mlp", width=128, hidden=512, normed=True)}
    assert (needs.head, stage.views) == (None, ("simclr", "simclr"))


def test_two_mixtures() -> None:
    """Shares of Beta(0.5, 0.5), weights n ** -1.2, 4 times the agreement; cosine from 0.01."""
    (stage,) = RECIPES["glmc"].stages
    assert stage.objective == MixtureConsistency(power=1.2, consistency=4.0)
    assert stage.forward == GlobalAndLocal(alpha=0.5)
    assert (stage.lr * RunSpec.lr, stage.schedule, stage.weight_decay) == (
        pytest.approx(0.01),
        "cosine",
        5e-3,
    )
    assert stage.views == ("plain",)
    assert stage.draws == (Draw("instance"), Draw("instance", judged=False))


def test_parametric_contrast() -> None:
    """A queue of 1024, a key weighs 0.01, temperature 0.05, cosine from 0.05, decay 5e-4."""
    (stage,) = RECIPES["paco"].stages
    expected = ParametricContrast(alpha=0.01, temperature=0.05, queue=1024, momentum=0.999)
    assert stage.objective == expected
    assert stage.objective.needs.follower == 0.999
    assert (stage.schedule, stage.weight_decay) == ("cosine", 5e-4)
    assert stage.lr * RunSpec.lr == pytest.approx(0.05)
    assert stage.views == ("simclr",)


def test_the_head_of_mislas() -> None:
    """CIFAR-10-LT at imbalance 100: shares 0.3 and 0, the head at half the rate of its scales."""
    head = RECIPES["mislas"].stages[1]
    assert head.objective == LabelAwareSmoothing(0.3, 0.0, Head("rescaled"))
    assert (head.lr, head.rates) == (0.5, (("head.scale", 1.0),))


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("class-balanced", "class"),
        ("square-root", "square-root"),
        ("progressive", "progressive"),
        ("effective-number", "effective-number"),
    ],
)
def test_draws(name: str, sampler: str) -> None:
    (stage,) = RECIPES[name].stages
    assert (stage.objective, stage.rows) == (CE, "arm")
    assert [draw.sampler for draw in stage.draws] == [sampler]
    assert stage.draws == (Draw(stage.draws[0].sampler),)


def test_memories_of_class_means() -> None:
    """The means move by 0.1; weights by class: 10 of 200 epochs at the run's rate, from z + v'."""
    names = [name for name in RECIPES if name.startswith("memory-") and name != "memory-kt"]
    assert len(names) == 9
    for name in names:
        assert RECIPES[name].stages[0].objective == Remembered(CrossEntropy(), rate=0.1)
    head = RECIPES["memory-llw"].stages[1]
    assert (head.epochs(200), head.lr, head.schedule) == (10, 1.0, "constant")
    assert (head.weight_decay, head.norms, head.train) == (None, "frozen", "head")
    assert (head.draws, head.objective) == ((Draw("class"),), CrossEntropy(Head("weighed")))


def test_fusions_with_a_memory() -> None:
    found = {name: RECIPES[f"memory-{name}"].posthoc for name in FUSIONS}
    assert found == FUSIONS


def test_the_assignment_module() -> None:
    """Ten passes over 12,406 images in batches of 128 of each kind; SGD 0.1, 0.9, 5e-4."""
    assert Assignment() == RECIPES["memory-asm"].posthoc
    own = Assignment()
    assert own.steps == 10 * -(-12_406 // own.batch) and own.batch == 2 * 128
    assert (own.lr, own.momentum, own.weight_decay) == (0.1, 0.9, 5e-4)
