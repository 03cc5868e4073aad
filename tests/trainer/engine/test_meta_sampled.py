"""A head on draws of a learned sampler: the forward, the losses, the recipe."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stylegan_mix.rng import stream
from trainer import models
from trainer.engine.batch import Batch, Source
from trainer.engine.features import MetaSampled
from trainer.engine.mixing import Streams
from trainer.losses import balanced_softmax
from trainer.losses.meta import looked_ahead
from trainer.models import Outputs
from trainer.models.class_rates import ClassRates
from trainer.models.classifier import Classifier
from trainer.objectives import CrossEntropy, MetaSoftmax, Rows, Task
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.stage import Draw

N, K = 6, 3
TASK = Task((50, 20, 5))


def network() -> Classifier:
    """A network of which only the head learns."""
    model = models.build("resnet8", classes=K, channels=1)
    models.initialise(model, 0)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    return model.eval()


def batch() -> Batch:
    """Six rows with a loss, of classes 0 0 0 1 1 2, and six of evenly drawn classes."""
    label, index = torch.tensor([0, 0, 0, 1, 1, 2, *(0, 1, 2) * 2]), torch.arange(2 * N) + 100
    sources = (Source("real", slice(0, N)), Source("real-2", slice(N, 2 * N), judged=False))
    images = torch.randn(2 * N, 1, 8, 8)
    return Batch(images, label, label, torch.ones(2 * N), index, index, sources)


def streams(step: int = 0) -> Streams:
    return lambda name: stream(0, name, step)


def test_labels_places_and_features_are_those_of_the_drawn_rows() -> None:
    model, rows, rates = network(), batch(), ClassRates(TASK.counts)
    out, judged = MetaSampled()(model, rows, rates, streams())
    row = judged.index[:N] - 100
    assert len(set(row.tolist())) < N  # with replacement
    for values, before in (
        (judged.label_a, rows.label_a),
        (judged.label_b, rows.label_b),
        (judged.index_b, rows.index_b),
    ):
        assert torch.equal(values[:N], before[row])
        assert torch.equal(values[N:], before[N:])
    torch.testing.assert_close(out.features, model(rows.images).features[row])
    torch.testing.assert_close(out.logits, model(rows.images).logits[row])
    assert torch.equal(out.others["label"], rows.label_a[N:])


def test_the_draws_follow_the_rates_and_change_from_step_to_step() -> None:
    model, rows, rates = network(), batch(), ClassRates(TASK.counts)
    drawn = [MetaSampled()(model, rows, rates, streams(s))[1].index[:N] for s in range(2)]
    assert not torch.equal(*drawn)
    with torch.no_grad():
        rates.raw.copy_(torch.tensor([-30.0, -30.0, 0.0]))
    _, judged = MetaSampled()(model, rows, rates, streams())
    assert judged.label_a[:N].tolist() == [2] * N
    assert rates.rates.tolist() == torch.tensor([-30.0, -30.0, 0.0]).sigmoid().tolist()


def test_the_other_rows_are_answered_by_the_head_after_its_step() -> None:
    model, rows, rates = network(), batch(), ClassRates(TASK.counts)
    out, judged = MetaSampled(rate=0.7)(model, rows, rates, streams())
    share = (judged.index[:N] - 100).bincount(minlength=N) / N
    seen = model(rows.images).features
    ahead = looked_ahead(model.head, seen[:N], rows.label_a[:N], share, TASK.counts, 0.7)
    expected = F.linear(seen[N:], ahead["weight"], ahead["bias"])
    torch.testing.assert_close(out.others["meta"], expected)


def test_the_head_and_the_rates_have_gradients_of_their_own() -> None:
    """Of its two losses, each trains one of them."""
    model, rows, rates = network(), batch(), ClassRates(TASK.counts)
    head = model.get_parameter("head.weight")
    out, judged = MetaSampled()(model, rows, rates, streams())
    F.cross_entropy(out.others["meta"], out.others["label"]).backward()
    assert head.grad is None
    assert rates.raw.grad is not None and rates.raw.grad.any()
    rates.raw.grad = None
    balanced_softmax(out.logits, judged.label_a[:N], TASK.counts).mean().backward()
    assert rates.raw.grad is None
    assert head.grad is not None and head.grad.any()


def test_the_losses_add_up() -> None:
    others = {"meta": torch.randn(N, K), "label": torch.arange(N) % K}
    out, label = Outputs(torch.randn(N, 4), torch.randn(N, K), others), torch.arange(N) // 2
    objective = MetaSoftmax()
    found = objective.bind(TASK, objective.state(TASK))(out, Rows(label, label))
    plain = balanced_softmax(out.logits, label, TASK.counts)
    meta = F.cross_entropy(others["meta"], others["label"], reduction="none")
    torch.testing.assert_close(found, plain + meta)
    assert objective.corrects_prior


def test_balms_is_as_published() -> None:
    """2,000 of 13,000 steps on a frozen backbone: a new head, cosine from 0.1, decay 5e-4."""
    first, head = RECIPES["balms"].stages
    assert (first.objective, head.objective) == (CrossEntropy(), MetaSoftmax())
    assert (head.train, head.head, head.norms, head.start) == ("head", "new", "frozen", "train")
    assert (head.schedule, head.lr, head.weight_decay) == ("cosine", 1.0, 5e-4)
    assert abs(head.share - 2000 / 13000) < 0.005
    assert head.draws == (Draw("instance"), Draw("class", judged=False))
    assert head.forward == MetaSampled(rate=0.1)
