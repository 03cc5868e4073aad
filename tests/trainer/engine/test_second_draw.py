"""Partners from a second draw, and partners and shares that favour rare classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta

from stylegan_mix.rng import stream
from trainer.engine import mixing
from trainer.engine.arms import ARMS, Arm
from trainer.engine.batch import Batch, Source
from trainer.engine.batches import Batches
from trainer.engine.loop import Losses, row_losses
from trainer.engine.second_draw import BalancedMixup, ContextMix
from trainer.models import Outputs
from trainer.objectives import CrossEntropy, Ldam, LogitAdjusted, Task
from trainer.recipes.stage import Stage
from trainer.spec import RunSpec

CPU = torch.device("cpu")
STAGE = Stage("train", CrossEntropy())


def streams(seed: int) -> mixing.Streams:
    """The same draws of every name in every call."""
    return lambda name: stream(seed, name)


def constant(values: np.ndarray, height: int = 8, width: int = 6) -> torch.Tensor:
    """Images with one value each, so that the mean of a mixed one tells its true shares."""
    tall = torch.from_numpy(values.astype(np.float32))[:, None, None, None]
    return tall.expand(len(values), 2, height, width).clone()


def close(found: float, expected: float, variance: float, draws: int) -> bool:
    """True if a mean of independent draws is within five standard errors."""
    return abs(found - expected) < 5 * np.sqrt(variance / draws)


# UniMix


def test_a_share_leans_toward_the_rarer_class_and_wraps_at_one() -> None:
    lam = np.array([0.2, 0.5, 0.5, 0.0, 1.0, 0.25], np.float32)
    own, other = np.array([10, 10, 20, 30, 30, 30]), np.array([30, 30, 20, 10, 10, 10])
    found = mixing.toward_the_rarer(lam, own, other)
    np.testing.assert_allclose(found, [0.95, 0.25, 1.0, 0.25, 0.25, 0.5], rtol=1e-6)
    assert found.dtype == np.float32


def test_partners_are_drawn_in_proportion_to_a_power_of_their_class_size() -> None:
    """8,000 rows of a class of 100 images at 1/10, 2,000 of a class of 4 at 1/2: 4/9 and 5/9."""
    count = np.repeat([100, 4], [8000, 2000])
    partner = mixing.by_rarity(count, -0.5, stream(0, "partner"))
    assert len(partner) == 10_000
    assert close((count[partner] == 4).mean(), 5 / 9, 20 / 81, 10_000)
    within = np.bincount(partner[count[partner] == 4] - 8000, minlength=2000)
    assert within.max() <= 15 and (within > 0).mean() > 0.9  # of 2.8 on average
    even = mixing.by_rarity(count, 0.0, stream(0, "partner"))
    assert close((count[even] == 4).mean(), 0.2, 0.16, 10_000)
    assert (count[mixing.by_rarity(count, -20.0, stream(0, "partner"))] == 4).all()


def test_unimix_gives_image_and_label_the_same_share() -> None:
    size = 20_000
    labels, counts = np.repeat([0, 1], size // 2), np.array([90, 10])
    planes = constant(np.arange(size) / size)
    before = planes.clone()
    mixed = mixing.UniMix(0.8)(planes, labels, counts, streams(4))
    told = (mixed.lam * np.arange(size) + (1 - mixed.lam) * mixed.partner) / size
    np.testing.assert_allclose(mixed.planes.mean((1, 2, 3)).numpy(), told, atol=1e-5)
    assert torch.equal(planes, before)
    # Half of the rows weigh 90 ** -0.5, the others 10 ** -0.5, which is three times as much.
    assert close((labels[mixed.partner] == 1).mean(), 0.75, 3 / 16, size)
    for own, lean in ((0, 0.1), (1, 0.9)):
        rows = (labels == own) & (labels[mixed.partner] != own)
        expected = 0.5 + lean - beta(0.8, 0.8).sf(1 - lean)
        assert close(mixed.lam[rows].mean(), expected, 0.1, int(rows.sum()))
        near = np.abs(mixed.lam[rows] - lean) < 0.02
        density = beta(0.8, 0.8).cdf(0.02) + beta(0.8, 0.8).sf(0.98)
        assert close(near.mean(), density, density * (1 - density), int(rows.sum()))


def test_at_alpha_one_the_lean_of_unimix_changes_nothing() -> None:
    """So the arm has another default."""
    lam = mixing.shares(1.0, 20_000, stream(0, "lam"))
    found = mixing.toward_the_rarer(lam, np.full(20_000, 90), np.full(20_000, 10))
    deciles = np.histogram(found, 10, (0, 1))[0] / 20_000
    assert all(close(share, 0.1, 0.09, 20_000) for share in deciles)
    assert ARMS["unimix"].alpha == 0.8
    assert all(arm.alpha == RunSpec.alpha for name, arm in ARMS.items() if name != "unimix")


# CMO and balanced mixup


def test_half_of_the_rows_show_a_box_of_their_partner() -> None:
    count = 4000
    own, other = np.zeros(count), np.ones(count)
    planes = constant(own, 32, 32)
    mixed = ContextMix(1.0)(planes, constant(other, 32, 32), streams(1))
    shown = mixed.planes.mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(1 - mixed.lam, shown, atol=1e-6)
    assert not planes.any()
    # A box of less than one pixel is none: 1 - lam < 1 / 32 ** 2.
    alone = 0.5 + 0.5 / 1024
    assert close((mixed.lam == 1).mean(), alone, 0.25, count)
    assert mixed.lam.dtype == np.float32


def test_a_mixer_of_two_draws_is_the_one_of_a_batch_with_other_partners() -> None:
    planes, counts = torch.randn(50, 2, 9, 7), np.array([50])
    labels = np.zeros(50, np.int64)
    for plain, joiner in (
        (mixing.CutMix(0.7), ContextMix(0.7, often=1.0)),
        (mixing.Mixup(0.7), BalancedMixup(0.7)),
    ):
        expected = plain(planes, labels, counts, streams(2))
        found = joiner(planes, planes[expected.partner], streams(2))
        assert torch.equal(found.planes, expected.planes)
        np.testing.assert_array_equal(found.lam, expected.lam)
    never = ContextMix(0.7, often=0.0)(planes, planes.flip(0), streams(2))
    assert torch.equal(never.planes, planes) and (never.lam == 1).all()


def test_the_arms_have_the_published_settings() -> None:
    made = {name: arm.joiner(0.3) for name, arm in ARMS.items() if arm.joiner}
    assert made == {"cmo": ContextMix(0.3, often=0.5), "lob-mixup": BalancedMixup(0.3)}
    assert [name for name, arm in ARMS.items() if arm.balanced] == ["lob-mixup"]
    assert mixing.UniMix(0.8).tau == -0.5


def test_an_arm_mixes_in_one_way() -> None:
    for faults in ({"mixer": mixing.Mixup}, {"even": True}):
        with pytest.raises(ValueError, match="a mixer or a joiner"):
            Arm(joiner=ContextMix, **faults)  # type: ignore[arg-type]


# In batches


def batches(aug: str, data: Any, *, stage: Stage = STAGE, steps: int = 20, **more: Any) -> Batches:
    settings = {"batch": 8, "seed": 1, "final_real_fraction": 0.1, **more}
    return Batches(
        RunSpec(aug=aug, **settings),
        data,
        stage=stage,
        number=0,
        bank=None,
        steps=steps,
        device=CPU,
    )


def pairs(made: Batches, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels a and b of all rows."""
    found = [made(step) for step in range(steps)]
    a, b = (
        torch.cat([getattr(one, name) for one in found]).numpy() for name in ("label_a", "label_b")
    )
    return a, b


def test_cmo_pastes_even_classes_onto_every_image_once_a_pass(data: Any) -> None:
    """Of 12, 6 and 3 images."""
    made, plain = batches("cmo", data, steps=500), batches("none", data, steps=500)
    for step in (0, 7):
        assert torch.equal(made(step).index, plain(step).index)
        assert torch.equal(made(step).label_a, plain(step).label_a)
        alone = made(step).lam == 1
        assert torch.equal(made(step).images[alone], plain(step).images[alone])
        assert not torch.equal(made(step).images, plain(step).images)
    assert made(0).sources == (Source("real", slice(0, 8), mixed=True, even_partners=True),)
    a, b = pairs(made, 450)
    np.testing.assert_allclose(np.bincount(a) / len(a), [12 / 21, 6 / 21, 3 / 21], atol=0.005)
    assert all(close(share, 1 / 3, 2 / 9, len(b)) for share in np.bincount(b) / len(b))


def test_lob_mixup_has_both_labels_even_and_independent(data: Any) -> None:
    made = batches("lob-mixup", data, steps=500)
    mixed = Source("real", slice(0, 8), mixed=True, even=True, even_partners=True)
    assert made(0).sources == (mixed,)
    assert made(499).sources == (Source("real", slice(0, 8), even=True),)
    a, b = pairs(made, 450)
    table = np.histogram2d(a, b, bins=3)[0] / len(a)
    assert all(close(share, 1 / 9, 8 / 81, len(a)) for share in table.flat)
    for step in range(20):
        batch = made(step)
        assert not torch.equal(batch.index, batch.index_b)
    a, _ = pairs(lambda step: made(450 + step), 50)  # type: ignore[arg-type]
    assert all(close(share, 1 / 3, 2 / 9, len(a)) for share in np.bincount(a) / len(a))


def test_images_of_the_second_draw_are_cropped_and_flipped_on_their_own(data: Any) -> None:
    """White images: a box shows black where its own edge is, and white over that of the row."""
    data.train.images[...] = 255
    made = batches("cmo", data, pad=2, flip=False)
    plain = batches("none", data, pad=2, flip=False)
    found, alone = (torch.cat([one(step).images for step in range(18)]) for one in (made, plain))
    assert (found < alone).any() and (found > alone).any()


def test_a_stage_of_real_rows_is_drawn_as_ever_in_a_balanced_arm(data: Any) -> None:
    stage = Stage("train", CrossEntropy(), rows="real")
    made, plain = (batches(aug, data, stage=stage) for aug in ("lob-mixup", "none"))
    for step in range(20):
        assert torch.equal(made(step).images, plain(step).images)
        assert made(step).sources == plain(step).sources == (Source("real", slice(0, 8)),)


# Losses


def mixed_batch(**drawn: bool) -> Batch:
    index = torch.arange(4)
    return Batch(
        torch.zeros(4, 1, 8, 8),
        torch.tensor([0, 0, 1, 2]),
        torch.tensor([2, 1, 0, 2]),
        torch.tensor([0.25, 1.0, 0.0, 0.5]),
        index,
        index,
        (Source("real", slice(0, 4), mixed=True, **drawn),),
    )


def test_each_label_has_the_counts_of_its_own_draw() -> None:
    counts, logits = (60, 30, 10), torch.randn(4, 3)
    shift = torch.tensor(counts).div(100).log()
    losses = Losses.of(LogitAdjusted(), Task(counts), None)
    out = Outputs(torch.zeros(4, 2), logits)
    for drawn, of_a, of_b in (
        ({}, shift, shift),
        ({"even_partners": True}, shift, torch.zeros(3)),
        ({"even": True}, torch.zeros(3), torch.zeros(3)),
        ({"even": True, "even_partners": True}, torch.zeros(3), torch.zeros(3)),
    ):
        batch = mixed_batch(**drawn)
        a = F.cross_entropy(logits + of_a, batch.label_a, reduction="none")
        b = F.cross_entropy(logits + of_b, batch.label_b, reduction="none")
        found = row_losses(losses, out, batch)
        torch.testing.assert_close(found, batch.lam * a + (1 - batch.lam) * b)


def test_margins_of_a_second_draw_are_those_of_equal_classes() -> None:
    task, cosines = Task((60, 30, 10)), torch.rand(4, 3)
    out = Outputs(torch.zeros(4, 2), cosines * 30)
    batch = mixed_batch(even_partners=True)
    losses = Losses.of(Ldam(0.5, 30.0), task, None)
    margin = torch.zeros(4, 3)
    margin[torch.arange(4), batch.label_b] = 0.5
    b = F.cross_entropy(30 * (cosines - margin), batch.label_b, reduction="none")
    found = row_losses(losses, out, batch)
    torch.testing.assert_close(found[2], b[2])  # lam = 0
