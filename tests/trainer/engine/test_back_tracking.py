"""Features of earlier passes: their queues, their draws, and the head that learns from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_mix.errors import Stopped
from stylegan_mix.rng import stream
from stylegan_mix.session import Session
from trainer import models
from trainer.engine.batch import Batch, Source
from trainer.engine.features import FromQueues
from trainer.engine.mixing import Streams
from trainer.engine.run import run_recipe
from trainer.models import Outputs
from trainer.models.classifier import Classifier
from trainer.models.feature_queues import FeatureQueues
from trainer.objectives import BackTracked, Rows, Task
from trainer.recipes.catalogue import RECIPES
from trainer.spec import DataSpec, RunSpec

D = 2


def write(queues: FeatureQueues, label: list[int], features: Tensor) -> None:
    queues.follow(features, torch.tensor(label), torch.ones(len(label), dtype=torch.bool))


def draw(queues: FeatureQueues, label: int, shares: list[float]) -> Tensor:
    found, there = queues.drawn(torch.full((len(shares),), label), torch.tensor(shares))
    assert there.all()
    return found


@pytest.mark.parametrize(
    ("classes", "largest", "imbalance", "target", "deepest"),
    [(100, 500, 100, 109, 22), (10, 5000, 100, 1241, 25)],
)
def test_depths_are_those_of_cifar(
    classes: int, largest: int, imbalance: int, target: int, deepest: int
) -> None:
    """Of CIFAR-100-LT and CIFAR-10-LT: enough snapshots of each class for an even share."""
    counts = [int(largest * imbalance ** (-i / (classes - 1))) for i in range(classes)]
    counts[-1] = largest // imbalance
    queues = FeatureQueues(counts, 1)
    assert queues.target == target
    assert (int(queues.depth[0]), int(queues.depth[-1])) == (1, deepest)
    assert len(queues.features) <= 3 * sum(counts) + classes


def test_old_features_are_moved_to_the_newest_mean_by_hand() -> None:
    """Two passes of a class of two images: means 2 and 12, so old ones move by 10."""
    queues = FeatureQueues((6, 2), 1)  # T = 4, two snapshots of the class 1
    write(queues, [1, 1], torch.tensor([[1.0], [3.0]]))
    assert draw(queues, 1, [0.0, 0.5]).flatten().tolist() == [1.0, 3.0]
    write(queues, [1, 1], torch.tensor([[10.0], [14.0]]))
    found = draw(queues, 1, [0.0, 0.25, 0.5, 0.75]).flatten().tolist()
    assert found == [10.0, 14.0, 11.0, 13.0]  # the newest first
    write(queues, [1], torch.tensor([[99.0]]))  # of a pass that is not whole
    assert draw(queues, 1, [0.0, 0.25, 0.5, 0.75]).flatten().tolist() == found
    write(queues, [1], torch.tensor([[101.0]]))  # mean 100: the first pass is gone
    assert draw(queues, 1, [0.0, 0.25, 0.5, 0.99]).flatten().tolist() == [99.0, 101.0, 98.0, 102.0]


def test_of_a_large_class_the_newest_pass_is_enough() -> None:
    queues = FeatureQueues((6, 2), 1)
    for start in (0, 100):
        write(queues, [0] * 6, torch.arange(6.0)[:, None] + start)
    found = draw(queues, 0, [0.0, 0.3, 0.6, 0.99]).flatten().tolist()
    assert found == [100.0, 101.0, 102.0, 103.0]  # its first T of them


def test_a_class_without_a_whole_pass_has_no_features() -> None:
    queues = FeatureQueues((3, 2), 1)
    write(queues, [0, 0, 0, 1], torch.ones(4, 1))
    _, there = queues.drawn(torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    assert there.tolist() == [True, False]


@pytest.mark.parametrize("sizes", [(1,) * 60, (7,) * 8 + (4,), (60,), (13, 47)])
def test_features_may_come_in_any_portions(sizes: tuple[int, ...]) -> None:
    """Also in batches that hold several passes; by a plain model of lists."""
    counts = (9, 3, 1)
    label = torch.from_numpy(stream(0, "test.label").integers(3, size=60))
    features = torch.randn(60, D)
    queues = FeatureQueues(counts, D)
    for part, own in zip(label.split(sizes), features.split(sizes), strict=True):
        write(queues, part.tolist(), own)
    for c, n in enumerate(counts):
        mine = features[label == c]
        whole = mine[: len(mine) // n * n].split(n)
        newest = whole[-1].mean(0)
        depth = math.ceil(5 / n)
        moved = [one - one.mean(0) + newest for one in reversed(whole[-depth:])]
        expected = torch.cat(moved)[:5]
        shares = [(i + 0.5) / len(expected) for i in range(len(expected))]
        torch.testing.assert_close(draw(queues, c, shares), expected)


def test_rows_that_are_not_taken_leave_no_trace() -> None:
    queues = FeatureQueues((2, 2), D)
    features, label = torch.randn(4, D), torch.tensor([0, 1, 0, 1])
    queues.follow(features, label, torch.tensor([True, False, True, False]))
    assert queues.written.tolist() == [2, 0]
    torch.testing.assert_close(draw(queues, 0, [0.0, 0.5]), features[::2])


# The forward and the objective


def network() -> Classifier:
    needs = BackTracked().needs
    assert needs.head is not None
    model = models.build("resnet8", classes=3, channels=1, head=needs.head, others=needs.others)
    models.initialise(model, 0)
    return model.eval()


def batch(lam: Tensor | None = None) -> Batch:
    """Four training images, one drawn evenly, and one row of a bank."""
    label, index = torch.tensor([0, 1, 0, 1, 2, 2]), torch.arange(6)
    sources = (
        Source("real", slice(0, 4), mixed=lam is not None),
        Source("even", slice(4, 5), even=True),
        Source("bank", slice(5, 6), bank=True, mixed=True),
    )
    share = torch.ones(6) if lam is None else lam
    return Batch(torch.randn(6, 1, 8, 8), label, label.flip(0), share, index, index, sources)


def streams(step: int) -> Streams:
    return lambda name: stream(0, name, step)


def filled() -> FeatureQueues:
    """Queues of two classes of three that have features: 100 and 200."""
    queues = FeatureQueues((2, 2, 2), 64)
    write(queues, [0, 0, 1, 1], torch.tensor([100.0, 100.0, 200.0, 200.0])[:, None].expand(4, 64))
    return queues


def test_the_answering_head_sees_kept_features_and_the_others_the_images() -> None:
    model, rows, queues = network(), batch(), filled()
    out, judged = FromQueues()(model, rows, queues, streams(0))
    plain = model(rows.images)
    assert judged is rows
    assert torch.equal(out.features, plain.features)
    assert torch.equal(out.others["plain"], plain.others["plain"])
    label = out.others["label"]
    assert set(label.tolist()) == {-1, 0, 1}
    kept = torch.tensor([100.0, 200.0])[label.clamp(min=0)][:, None].expand(6, 64)
    expected = torch.where((label >= 0)[:, None], model.head(kept), plain.logits)
    torch.testing.assert_close(out.logits, expected)


def test_classes_are_drawn_evenly_and_anew_in_every_step() -> None:
    model, rows, queues = network(), batch(), filled()
    write(queues, [2, 2], torch.ones(2, 64))
    steps = [FromQueues()(model, rows, queues, streams(s))[0].others["label"] for s in range(200)]
    shares = torch.cat(steps).bincount(minlength=3) / 1200
    assert (shares - 1 / 3).abs().max() < 0.05
    assert not torch.equal(steps[0], steps[1])


def test_each_head_learns_from_its_own_rows() -> None:
    out = Outputs(
        torch.randn(3, D),
        torch.randn(3, 3),
        {"plain": torch.randn(3, 3), "label": torch.tensor([2, -1, 0])},
    )
    task, label = Task((5, 3, 1), features=D), torch.tensor([0, 1, 1])
    found = BackTracked().bind(task, BackTracked().state(task))(out, Rows(label, label))
    heads = [(out.others["plain"], label), (out.logits, torch.tensor([2, 1, 0]))]
    expected = sum(F.cross_entropy(z, y, reduction="none") for z, y in heads)
    torch.testing.assert_close(found, expected)


def test_only_the_plain_head_trains_the_backbone() -> None:
    model, rows = network(), batch()
    out, _ = FromQueues()(model, rows, filled(), streams(0))
    F.cross_entropy(out.logits, rows.label_a).backward()
    assert model.get_parameter("stem.weight").grad is None
    assert model.get_parameter("head.weight").grad is not None
    F.cross_entropy(out.others["plain"], rows.label_a).backward()
    assert model.get_parameter("stem.weight").grad is not None


def test_almost_pure_training_images_are_kept_and_no_others() -> None:
    queues = FeatureQueues((2, 2, 2), D)
    out = Outputs(torch.randn(6, D), torch.randn(6, 3))
    lam = torch.tensor([1.0, 0.8, 0.79, 0.1, 1.0, 1.0])
    BackTracked().after_step(queues, out, batch(lam))
    assert queues.written.tolist() == [1, 1, 0]
    BackTracked().after_step(queues, out, batch())
    assert queues.written.tolist() == [3, 3, 0]


def test_the_queues_are_saved_whole() -> None:
    queues = filled()
    assert {"features", "sums", "written"} <= set(queues.state_dict())
    again = BackTracked().state(Task((2, 2, 2), features=64))
    assert isinstance(again, FeatureQueues)
    again.load_state_dict(queues.state_dict())
    assert torch.equal(draw(again, 1, [0.0, 0.9]), draw(queues, 1, [0.0, 0.9]))
    assert not list(again.parameters())


def test_a_run_goes_on_with_the_queues_that_it_had(
    home: Path,
    stop_after: Any,
    require_same: Callable[[Path, Path], None],
    tmp_path: Path,
) -> None:
    """Three passes of three steps, stopped after every few steps: the same bits."""
    data = DataSpec("digits_lt", imbalance=20.0, profile="exp")
    spec = RunSpec(data, recipe="breadcrumbs", model="resnet8", epochs=3, bn_refresh_batches=1)

    def run(name: str, stop: Any) -> None:
        run_recipe(spec, tmp_path / name, session=Session(stop), checkpoint_seconds=1e9)

    run("whole", stop_after())
    stops = 0
    while stops < 20:
        try:
            run("pieces", stop_after(1))
            break
        except Stopped:
            stops += 1
    assert 2 < stops < 20
    require_same(tmp_path / "pieces", tmp_path / "whole")


def test_breadcrumbs_is_as_published() -> None:
    """One cosine over all epochs, weight decay 5e-4; prior corrected by its draws."""
    (stage,) = RECIPES["breadcrumbs"].stages
    assert (stage.objective, stage.forward) == (BackTracked(), FromQueues())
    assert (stage.schedule, stage.weight_decay, stage.rows) == ("cosine", 5e-4, "arm")
    assert stage.objective.corrects_prior and not RECIPES["breadcrumbs"].takes_drw
    assert not RECIPES["breadcrumbs"].takes_head
