"""Networks of several experts, and the objective that trains them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer import models
from trainer.engine.folder import Finished, save_network
from trainer.models import Head
from trainer.models.classifier import Classifier
from trainer.objectives import BalancedExperts, CrossEntropy, Rows, Task
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.posthoc import TauNorm
from trainer.recipes.stage import Recipe, Stage

K = 5
TASK = Task((20, 10, 5, 2, 1))


def network(name: str = "resnet8", experts: int = 3) -> Classifier:
    head = Head("cosine", 30.0, experts=experts)
    model = models.build(name, classes=K, channels=2, head=head)
    models.initialise(model, 0)
    return model


def test_the_answer_is_the_mean_of_the_experts() -> None:
    out = network()(torch.randn(4, 2, 8, 8))
    assert out.features.shape == (4, 3 * 64)
    assert out.others["experts"].shape == (4, 3, K)
    torch.testing.assert_close(out.logits, out.others["experts"].mean(1))
    assert out.others["experts"].abs().max() <= 30.0


def test_each_expert_has_last_layers_and_a_head_of_its_own() -> None:
    """Noise in the layers of one changes its logits alone; that in the stem changes all."""
    model, images = network().eval(), torch.randn(4, 2, 8, 8)
    before = model(images).others["experts"]
    with torch.no_grad():
        model.get_parameter("experts.0.0.conv1.weight").add_(0.1)
    moved = (model(images).others["experts"] != before).any(2).any(0)
    assert moved.tolist() == [True, False, False]
    with torch.no_grad():
        model.get_parameter("blocks.0.conv1.weight").add_(0.1)
    assert (model(images).others["experts"] != before).any(2).any(0).all()
    assert not torch.equal(before[:, 1], before[:, 2])


@pytest.mark.parametrize("name", [name for name, one in models.MODELS.items() if one.side == 32])
def test_one_expert_is_the_plain_network_and_more_share_stem_and_first_width(name: str) -> None:
    """Parameters: all of E plain networks, less E - 1 times what is shared."""
    one = models.build(name, classes=K, channels=2, head=Head("cosine"))
    several = network(name)
    shared = [p for n, p in one.named_parameters() if n.startswith("stem")]
    blocks = list(one.get_submodule("blocks").children())
    shared += [p for part in blocks[: len(blocks) // 3] for p in part.parameters()]
    total = sum(p.numel() for p in one.parameters())
    again = sum(p.numel() for p in shared)
    assert sum(p.numel() for p in several.parameters()) == 3 * total - 2 * again
    assert not hasattr(one, "experts")


def test_a_saved_network_answers_as_before(tmp_path: Path, network_facts: dict[str, Any]) -> None:
    model, images = network().eval(), torch.randn(3, 2, 8, 8)
    head = {"form": "cosine", "scale": 30.0, "experts": 3}
    save_network(tmp_path / "net", model, {}, {**network_facts, "head": head})
    again = Finished.load(tmp_path / "net").network()
    assert torch.equal(again(images).logits, model(images).logits)


def test_the_objective_reads_the_experts_by_the_counts_of_its_task() -> None:
    out, label = network()(torch.randn(4, 2, 8, 8)), torch.tensor([0, 1, 4, 4])
    rows = Rows(label, torch.arange(4))
    each = out.others["experts"]
    pi = torch.tensor(TASK.counts).double().div(38)
    shifted = [F.cross_entropy(each[:, e] + e * pi.log().float(), label) for e in range(3)]
    found = BalancedExperts().bind(TASK)(out, rows).mean()
    torch.testing.assert_close(found, torch.stack(shifted).mean())
    found = BalancedExperts((1.0, 1.0, 1.0)).bind(TASK)(out, rows).mean()
    shifted = [F.cross_entropy(each[:, e] + pi.log().float(), label) for e in range(3)]
    torch.testing.assert_close(found, torch.stack(shifted).mean())
    plain = [F.cross_entropy(each[:, e], label) for e in range(3)]
    found = BalancedExperts().bind(TASK.balanced())(out, rows).mean()
    torch.testing.assert_close(found, torch.stack(plain).mean())


def test_it_corrects_for_class_shares_unless_no_expert_is_shifted() -> None:
    assert BalancedExperts().corrects_prior
    assert BalancedExperts((0.0, 1.0)).corrects_prior
    assert not BalancedExperts((0.0, 0.0)).corrects_prior
    with pytest.raises(ValueError, match="at least two experts"):
        BalancedExperts((1.0,))


def test_balpoe_is_as_published() -> None:
    (stage,) = RECIPES["balpoe"].stages
    assert stage.objective == BalancedExperts(taus=(0.0, 1.0, 2.0), scale=30.0)
    assert (stage.weight_decay, stage.schedule, stage.lr) == (5e-4, "step", 1.0)


def test_a_head_for_another_number_of_experts_than_its_backbone_is_refused() -> None:
    first = RECIPES["balpoe"].stages[0]
    then = Stage("head", CrossEntropy(), rows="real", train="head", start="train")
    told = "stage 'train' has a backbone for 3 experts, this one a head for 1"
    with pytest.raises(ValueError, match=told):
        Recipe("x", "for a test", (first, then))
    Recipe("x", "for a test", (first, replace(then, head="kept")))
    same = CrossEntropy(Head("cosine", 30.0, experts=3))
    Recipe("x", "for a test", (first, replace(then, objective=same)))


def test_a_correction_of_a_linear_head_is_refused_for_several() -> None:
    linear = Stage("train", CrossEntropy(Head(experts=2)))
    with pytest.raises(ValueError, match="changes a linear head"):
        Recipe("x", "for a test", (linear,), posthoc=TauNorm())
