"""CutMix boxes and Remix's rule for labels."""

from __future__ import annotations

import numpy as np
import torch

from stylegan_mix.rng import stream
from trainer.engine import mixing
from trainer.engine.arms import ARMS


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_boxes_lie_inside_and_the_label_has_the_share_of_what_is_kept() -> None:
    lam = draws().random(500).astype(np.float32)
    found = mixing.boxes(lam, 8, 6, draws(1))
    top, bottom, left, right = found.T
    assert (top >= 0).all() and (top <= bottom).all() and (bottom <= 8).all()
    assert (left >= 0).all() and (left <= right).all() and (right <= 6).all()
    kept = mixing.kept_share(found, 8, 6)
    zeros, ones = torch.zeros(500, 1, 8, 6), torch.ones(1, 1, 8, 6)
    images = torch.cat([zeros, ones])
    pasted = mixing.paste(
        images, torch.full((501,), 500), torch.from_numpy(np.r_[found, [[0] * 4]])
    )
    np.testing.assert_allclose(1 - pasted[:500].mean((1, 2, 3)).numpy(), kept, atol=1e-6)


def test_a_box_has_the_size_of_its_share_unless_the_edge_cuts_it() -> None:
    lam = np.full(4000, 0.75, np.float32)  # sides of one half
    top, bottom, left, right = mixing.boxes(lam, 8, 16, draws()).T
    whole = (top > 0) & (bottom < 8) & (left > 0) & (right < 16)
    assert whole.any() and (bottom - top <= 4).all() and (right - left <= 8).all()
    assert set(bottom[whole] - top[whole]) == {4} and set(right[whole] - left[whole]) == {8}
    centres = np.unique(top[(top > 0) & (bottom < 8)])
    assert set(centres) == {1, 2, 3}
    assert set(bottom[top == 0]) == {2, 3, 4} and set(top[bottom == 8]) == {4, 5}


def test_a_pasted_box_shows_the_partner_and_nothing_else_changes() -> None:
    images = torch.randn(3, 2, 5, 5)
    partner, box = torch.tensor([1, 2, 0]), torch.tensor([[1, 3, 0, 4]] * 3)
    pasted = mixing.paste(images, partner, box)
    inside = torch.zeros(5, 5, dtype=torch.bool)
    inside[1:3, 0:4] = True
    assert torch.equal(pasted[:, :, inside], images[partner][:, :, inside])
    assert torch.equal(pasted[:, :, ~inside], images[:, :, ~inside])


def test_a_share_of_one_leaves_image_and_label() -> None:
    lam = np.ones(20, np.float32)
    found = mixing.boxes(lam, 8, 8, draws())
    assert (mixing.kept_share(found, 8, 8) == 1).all()
    images = torch.randn(20, 1, 8, 8)
    assert torch.equal(
        mixing.paste(images, torch.arange(20).flip(0), torch.from_numpy(found)), images
    )


def test_a_share_of_zero_takes_a_box_as_large_as_the_image() -> None:
    found = mixing.boxes(np.zeros(2000, np.float32), 4, 4, draws())
    assert [0, 4, 0, 4] in found.tolist()
    assert mixing.kept_share(found, 4, 4).min() == 0


def test_remix_gives_the_label_to_the_rarer_class() -> None:
    """Head and tail: n = 30 and 10, just kappa = 3 apart; tau = 0.5."""
    lam = np.array([0.1, 0.49, 0.5, 0.9], np.float32)
    head, tail = np.full(4, 30), np.full(4, 10)
    rule = {"kappa": 3.0, "tau": 0.5}
    found = mixing.remixed(lam, head, tail, **rule)
    np.testing.assert_array_equal(found, np.array([0, 0, 0.5, 0.9], np.float32))
    found = mixing.remixed(lam, tail, head, **rule)
    np.testing.assert_array_equal(found, np.array([0.1, 0.49, 0.5, 1], np.float32))


def test_remix_is_mixup_between_classes_of_like_size() -> None:
    lam = draws().random(100).astype(np.float32)
    counts = draws(1).integers(10, 30, (2, 100))  # at most 2.9 times as many
    np.testing.assert_array_equal(mixing.remixed(lam, *counts, 3.0, 0.5), lam)


def test_remix_keeps_pure_shares() -> None:
    counts = draws().integers(1, 1000, (2, 100))
    ones, zeros = np.ones(100, np.float32), np.zeros(100, np.float32)
    np.testing.assert_array_equal(mixing.remixed(ones, *counts, 3.0, 0.5), ones)
    np.testing.assert_array_equal(mixing.remixed(zeros, *counts, 3.0, 0.5), zeros)


def streams(seed: int) -> mixing.Streams:
    """The same draws of every name in every call."""
    return lambda name: stream(seed, name)


def test_cutmix_labels_rows_by_the_area_that_they_keep() -> None:
    """Image i is i everywhere, so the mean of the mixed one tells its true shares."""
    count = 200
    planes = torch.arange(float(count))[:, None, None, None].expand(count, 2, 8, 6).clone()
    labels, counts = np.arange(count), np.ones(count, np.int64)
    mixed = mixing.CutMix(1.0)(planes, labels, counts, streams(3))
    shares = mixed.lam * labels + (1 - mixed.lam) * mixed.partner
    np.testing.assert_allclose(mixed.planes.mean((1, 2, 3)).numpy(), shares, rtol=1e-5)
    assert torch.equal(planes[:, 0, 0, 0], torch.arange(float(count)))
    assert 0.4 < mixed.lam.mean() < 0.9 and (mixed.lam < 1).mean() > 0.8


def test_remix_mixes_images_as_mixup_and_labels_by_the_counts() -> None:
    planes, counts = torch.randn(200, 1, 4, 4), np.array([90, 30, 29, 1])
    labels = draws().integers(0, 4, 200)
    plain = mixing.Mixup(1.0)(planes, labels, counts, streams(5))
    mixed = mixing.Remix(1.0)(planes, labels, counts, streams(5))
    assert torch.equal(mixed.planes, plain.planes)
    np.testing.assert_array_equal(mixed.partner, plain.partner)
    own, other = counts[labels], counts[labels[plain.partner]]
    np.testing.assert_array_equal(mixed.lam, mixing.remixed(plain.lam, own, other, 3.0, 0.5))
    assert (mixed.lam == 0).any() and (mixed.lam == 1).any()


def test_every_mixing_arm_has_a_mixer_of_its_name() -> None:
    made = {name: arm.mixer(0.3) for name, arm in ARMS.items() if arm.mixer}
    assert made == {
        "mixup": mixing.Mixup(0.3),
        "mixup-even": mixing.Mixup(0.3),
        "cutmix": mixing.CutMix(0.3),
        "remix": mixing.Remix(0.3, kappa=3.0, tau=0.5),
        "unimix": mixing.UniMix(0.3, tau=-0.5),
        "hybrid": mixing.Mixup(0.3),
    }
