"""Head-to-tail fusion of channels within a batch of two draws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stylegan_mix.rng import stream
from trainer import models
from trainer.engine.batch import Batch, Source
from trainer.engine.features import HeadToTail
from trainer.engine.mixing import Streams
from trainer.models import Head, Outputs
from trainer.models.classifier import Classifier

N = 5


def network() -> Classifier:
    model = models.build("resnet8", classes=3, channels=1)
    models.initialise(model, 0)
    return model.eval()


def batch() -> Batch:
    label, index = torch.arange(2 * N) % 3, torch.arange(2 * N)
    sources = (Source("real", slice(0, N)), Source("real-2", slice(N, 2 * N), judged=False))
    images = torch.randn(2 * N, 1, 8, 8)
    return Batch(images, label, label, torch.ones(2 * N), index, index, sources)


def streams(seed: int) -> Streams:
    return lambda name: stream(seed, name)


@torch.no_grad()
def fused(rho: float, model: Classifier, rows: Batch, seed: int = 0) -> Outputs:
    outputs, judged = HeadToTail(rho)(model, rows, None, streams(seed))
    assert judged is rows
    return outputs


@pytest.mark.parametrize(("rho", "borrowed"), [(0.25, 16), (0.31, 19), (1.0, 64)])
def test_whole_channels_are_those_of_the_other_draw(rho: float, borrowed: int) -> None:
    """floor(rho 64) of them, the same for all rows; pooled channels are the channels pooled."""
    model, rows = network(), batch()
    features = fused(rho, model, rows).features
    with torch.no_grad():
        own, given = model(rows.images).features.split(N)
    taken = (features != own).any(0)
    assert taken.sum() == borrowed
    torch.testing.assert_close(features, torch.where(taken, given, own))


def test_each_expert_borrows_as_many_channels_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head("cosine", experts=3)
    model = models.build("resnet8", classes=3, channels=1, head=head).eval()
    models.initialise(model, 0)
    values = iter((0.0, 1.0))  # of all maps of the judged rows, then of the others
    monkeypatch.setattr(model, "maps", lambda _: torch.full((N, 3 * 64, 2, 2), next(values)))
    taken = fused(0.25, model, batch()).features.bool().all(0)
    assert taken.view(3, 64).sum(1).tolist() == [16, 16, 16]
    assert not torch.equal(taken[:64], taken[64:128])


def test_without_channels_to_borrow_it_is_the_network_on_the_judged_draw() -> None:
    model, rows = network(), batch()
    with torch.no_grad():
        alone = model(rows.images[:N])
    torch.testing.assert_close(fused(0.0, model, rows).logits, alone.logits)


def test_the_channels_change_from_step_to_step() -> None:
    model, rows = network(), batch()
    one, same, other = (fused(0.25, model, rows, seed).features for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_each_draw_has_batch_statistics_of_its_own() -> None:
    """In training mode the images of one draw have no part in how the other is normalised."""
    model, rows = network().train(), batch()
    brighter = rows.images.clone()
    brighter[N:] += 3
    features = fused(0.25, model, rows).features
    moved = fused(0.25, model, replace(rows, images=brighter)).features
    kept = (features == moved).all(0)
    assert kept.sum() == 48
