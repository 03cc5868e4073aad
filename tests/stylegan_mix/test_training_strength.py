"""The strength of augmentation: the control's arithmetic, its groups, and schedules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan_mix.errors import UsageFailure
from stylegan_mix.training.augmentation.strength import (
    SCOPES,
    Feedback,
    adjust,
    fresh_signs,
    fresh_strength,
    groups_by,
    observe,
    ramped,
    strength_of,
    taken_signs,
)

CPU = torch.device("cpu")


def _seen(running: dict[str, torch.Tensor], group: int, positive: int, negative: int) -> None:
    signs = torch.tensor([1.0] * positive + [-1.0] * negative)
    observe(running, signs, torch.full((len(signs),), group))


def test_p_follows_the_published_equation_against_a_plain_simulation() -> None:
    rng = np.random.default_rng(0)
    feedback, running, expected = Feedback(kimg=20.0), fresh_strength(1, CPU), 0.0
    for turn in range(60):
        share = 0.95 if turn < 40 else 0.5
        signs = np.where(rng.random((4, 64)) < share, 1.0, -1.0)
        for batch in signs:
            observe(running, torch.from_numpy(batch), torch.zeros(64, dtype=torch.int64))
        adjust(running, feedback, batch=64)
        expected = min(max(expected + np.sign(signs.mean() - 0.6) * 64 * 4 / 20_000, 0), 1)
        assert float(running["ada.p"]) == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected < 0.5


def test_a_step_of_the_published_control_is_known() -> None:
    # By hand: batch 64 and 500 kimg move p by .000512.
    running = fresh_strength(1, CPU)
    _seen(running, 0, 64 * 4, 0)
    adjust(running, Feedback(), batch=64)
    assert float(running["ada.p"]) == pytest.approx(0.000512)
    assert float(running["ada.sign_sum"]) == float(running["ada.sign_count"]) == 0


def test_p_stays_between_zero_and_the_most() -> None:
    feedback, running = Feedback(kimg=0.1, most=0.8), fresh_strength(2, CPU)
    for _ in range(3):
        _seen(running, 0, 10, 0)
        _seen(running, 1, 0, 10)
        adjust(running, feedback, batch=16)
    torch.testing.assert_close(running["ada.p"], torch.tensor([0.8, 0.0]))


def test_every_group_goes_its_own_way_and_an_unseen_one_stays() -> None:
    feedback, running = Feedback(kimg=1.0), fresh_strength(3, CPU)
    running["ada.p"].fill_(0.5)
    _seen(running, 0, 10, 0)
    _seen(running, 2, 5, 5)
    adjust(running, feedback, batch=25)
    torch.testing.assert_close(running["ada.p"], torch.tensor([0.6, 0.5, 0.4]))
    torch.testing.assert_close(
        strength_of(running, torch.tensor([2, 0, 0])), torch.tensor([0.4, 0.6, 0.6])
    )


def test_a_small_group_counts_on_until_it_has_enough() -> None:
    feedback, running = Feedback(kimg=1.0, least_images=8), fresh_strength(2, CPU)
    for turn in range(2):
        _seen(running, 0, 4, 0)
        _seen(running, 1, 8, 0)
        adjust(running, feedback, batch=25)
        assert running["ada.p"].tolist() == pytest.approx([0.1 * turn, 0.1 * (turn + 1)])
    assert running["ada.sign_count"].tolist() == [0, 0]


def test_processes_that_sum_what_they_see_hold_what_one_would() -> None:
    signs = torch.randn(64).sign()
    groups = torch.randint(0, 3, (64,))
    alone, shared = fresh_strength(3, CPU), fresh_strength(3, CPU)
    observe(alone, signs, groups)
    other = fresh_strength(3, CPU)
    observe(other, signs[1::2], groups[1::2])
    seen = torch.stack([other["ada.sign_sum"], other["ada.sign_count"]])
    observe(shared, signs[::2], groups[::2], total=lambda sums: sums + seen)
    for name in alone:
        assert torch.equal(alone[name], shared[name]), name


def test_groups_cover_all_classes_by_scope() -> None:
    counts = [500, 300, 200, 120, 80, 50, 30, 20, 10, 5]
    assert groups_by("all", counts).of_class == (0,) * 10
    assert groups_by("class", counts).of_class == tuple(range(10))
    shot = groups_by("shot", counts)
    assert shot.names == ("many", "medium", "few")
    assert shot.of_class == (0, 0, 0, 1, 1, 1, 1, 2, 2, 2)
    assert groups_by("shot", [200] * 5 + [50] * 5 + [3] * 2).of_class == (
        *[0] * 5,
        *[1] * 5,
        *[2] * 2,
    )
    for scope in SCOPES:
        groups = groups_by(scope, counts)
        assert set(groups.of_class) == set(range(len(groups.names)))
    with pytest.raises(UsageFailure, match="did you mean 'shot'"):
        groups_by("shots", counts)


def test_a_ramp_rises_to_its_strength() -> None:
    assert [ramped(0.6, seen, 100.0) for seen in (0, 50, 100, 900)] == pytest.approx(
        [0.0, 0.3, 0.6, 0.6]
    )
    assert ramped(0.6, 0.0, 0.0) == 0.6


def test_mean_signs_are_of_the_images_since_they_were_last_taken() -> None:
    running = fresh_signs(3, torch.device("cpu"), of="class")
    observe(running, torch.tensor([1.0, -1.0, 1.0, 1.0]), torch.tensor([0, 0, 2, 2]), of="class")
    assert taken_signs(running, of="class") == [0.0, None, 1.0]
    observe(running, torch.tensor([-1.0]), torch.tensor([2]), of="class")
    assert taken_signs(running, of="class") == [None, None, -1.0]
