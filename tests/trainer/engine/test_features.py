"""Forward passes: the plain one, and mixing at a random depth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_mix.rng import stream
from trainer import models
from trainer.engine.batch import Batch, Source
from trainer.engine.features import GlobalAndLocal, ManifoldMixup, Plain
from trainer.engine.mixing import Streams, mix


@pytest.fixture
def model() -> Any:
    """A network of three classes whose statistics stay as they are."""
    network = models.build("resnet8", classes=3, channels=2)
    models.initialise(network, 0)
    return network.eval()


def draws(step: int = 0) -> Streams:
    return lambda name: stream(0, name, step)


def batch(*sources: Source) -> Batch:
    """Six unmixed rows."""
    label, index = torch.arange(6) % 3, torch.arange(6) + 10
    images = torch.randn(6, 2, 8, 8)
    return Batch(images, label, label, torch.ones(6), index, index, sources)


REAL = Source("real", slice(0, 6))


def test_a_model_is_its_maps_pooled_and_answered(model: Any) -> None:
    images = torch.randn(3, 2, 8, 8)
    maps = model.maps(images)
    assert maps.shape == (3, model.width, 2, 2)
    features = model.pool(maps)
    assert features.shape == (3, model.width)
    assert torch.equal(model.answer(features).logits, model(images).logits)


def test_the_plain_forward_is_the_model_on_the_images(model: Any) -> None:
    rows = batch(REAL)
    out, judged = Plain()(model, rows, None, draws())
    assert judged is rows
    assert torch.equal(out.logits, model(rows.images).logits)


def test_the_plain_forward_shows_further_views_to_the_same_network(model: Any) -> None:
    rows = replace(batch(REAL), views=torch.randn(2, 4, 2, 8, 8))
    out, judged = Plain()(model, rows, None, draws())
    assert judged is rows and len(out.views) == 2
    for seen, images in zip((out, *out.views), (rows.images, *rows.views), strict=True):
        torch.testing.assert_close(seen.logits, model(images).logits)
        assert seen.weight is model.head.weight
    part = out.of(slice(1, 3))
    assert torch.equal(part.views[1].features, out.views[1].features[1:3])
    assert part.weight is out.weight
    apart = out.detach()
    tensors = [apart.weight, *(one.features for one in (apart, *apart.views))]
    assert not any(value.requires_grad for value in tensors)


def test_batch_norms_see_all_views_together(model: Any) -> None:
    rows = replace(batch(REAL), views=torch.randn(2, 4, 2, 8, 8))
    out, _ = Plain()(model.train(), rows, None, draws())
    whole = model(torch.cat([rows.images, *rows.views]))
    torch.testing.assert_close(out.logits, whole.logits[:6])
    torch.testing.assert_close(out.views[1].logits, whole.logits[10:])


def test_views_without_rows_have_outputs_without_rows(model: Any) -> None:
    rows = replace(batch(replace(REAL, bank=True)), views=torch.randn(2, 0, 2, 8, 8))
    out, _ = Plain()(model, rows, None, draws())
    assert [len(view.logits) for view in out.views] == [0, 0]
    torch.testing.assert_close(out.logits, model(rows.images).logits)


def test_mixed_depths_give_labels_of_both_rows_and_their_shares(model: Any) -> None:
    rows = batch(REAL)
    at_maps = at_images = 0
    for step in range(12):
        out, judged = ManifoldMixup(alpha=1.0)(model, rows, None, draws(step))
        partner = judged.index_b - 10
        assert sorted(partner.tolist()) == list(range(6))
        assert torch.equal(judged.label_b, rows.label_a[partner])
        assert torch.equal(judged.label_a, rows.label_a)
        assert judged.sources == (replace(REAL, mixed=True),)
        assert len(np.unique(judged.lam)) == 6
        lam = judged.lam[:, None]
        features = model(rows.images).features
        shallow = model(mix(rows.images, partner, judged.lam)).features
        deep = lam * features + (1 - lam) * features[partner]
        at_maps += torch.allclose(out.features, deep, atol=1e-5)
        at_images += torch.allclose(out.features, shallow, atol=1e-5)
    assert at_maps + at_images == 12
    assert at_maps and at_images


def two_draws() -> Batch:
    """Three judged rows and three without a loss; further views of all, each with its own pixels."""
    sources = (Source("real", slice(0, 3)), Source("real-2", slice(3, 6), judged=False))
    label = torch.tensor([0, 1, 2, 1, 0, 0])
    views = torch.randn(1, 6, 2, 8, 8)
    return replace(batch(*sources), label_a=label, label_b=label, views=views)


def test_whole_images_and_boxes_are_mixed_with_the_other_draw_by_one_share(model: Any) -> None:
    rows = two_draws()
    out, judged = GlobalAndLocal(alpha=0.5)(model, rows, None, draws())
    share = judged.lam[:3]
    assert len(set(share.tolist())) == 3
    assert torch.equal(judged.label_a[:3], rows.label_a[:3])
    assert torch.equal(judged.label_b[:3], rows.label_a[3:])
    assert torch.equal(judged.index_b[:3], rows.index[3:])
    assert judged.sources == (replace(rows.sources[0], mixed=True), rows.sources[1])
    own = share[:, None, None, None]
    whole = own * rows.images[:3] + (1 - own) * rows.images[3:]
    torch.testing.assert_close(out.logits, model(whole).logits)
    (cut,) = out.views
    assert len(cut.logits) == 3


def test_the_boxes_are_of_the_further_view_and_the_share_is_not_that_of_what_is_left_of_them(
    monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    rows, seen = two_draws(), []
    monkeypatch.setattr(model, "maps", lambda images: seen.append(images) or images)
    monkeypatch.setattr(model, "pool", lambda maps: torch.zeros(len(maps), model.width))
    other = kept = 0
    for step in range(8):
        _, judged = GlobalAndLocal(alpha=0.5)(model, rows, None, draws(step))
        shown = seen.pop()
        assert rows.views is not None and len(shown) == 6
        cut, view = shown[3:], rows.views[0]
        mine, theirs = (cut == view[:3]).all(1), (cut == view[3:]).all(1)  # [3, H, W]
        assert (mine | theirs).all()
        left = mine.float().mean((1, 2))
        sides = 1 - (64 * (1 - judged.lam[:3])).sqrt().floor().square() / 64
        assert (left >= sides - 1e-6).all()  # a box is cut off at the edges
        other += int((left > sides + 1e-6).sum())
        kept += int(((left - sides).abs() < 1e-6).sum())
    assert other and kept
