"""Class weights in a loss keep the size of a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan_mix.datasets.class_weights import inverse_effective_number
from trainer.losses import cb_ce, cb_focal, class_weights, sigmoid_focal
from trainer.losses.weights import over_images, power_weights

# CIFAR-10-LT at imbalance 100.
COUNTS = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])


def test_effective_numbers_of_cifar10_at_100() -> None:
    expected = [0.0506, 0.0769, 0.1211, 0.1950, 0.3188, 0.5246, 0.8683, 1.4426, 2.4092, 3.9927]
    np.testing.assert_allclose(inverse_effective_number(COUNTS, 0.9999), expected, atol=6e-5)


def test_weights_have_mean_one_over_images_and_keep_their_ratios() -> None:
    weights = torch.from_numpy(inverse_effective_number(COUNTS, 0.9999))
    found = over_images(weights, torch.from_numpy(COUNTS))
    assert abs(float(found.repeat_interleave(torch.from_numpy(COUNTS)).mean()) - 1) < 1e-12
    torch.testing.assert_close(found / found[0], weights / weights[0])


def test_over_a_whole_pass_the_loss_is_that_of_the_weighted_mean() -> None:
    """PyTorch divides by the sum of the weights in the batch; a pass holds every image once."""
    counts = torch.tensor([40, 20, 5])
    label = torch.arange(3).repeat_interleave(counts)
    logits = torch.randn(65, 3, dtype=torch.float64)
    weights = over_images(torch.tensor([0.1, 0.5, 2.4]).double(), counts)
    found = (weights[label] * F.cross_entropy(logits, label, reduction="none")).mean()
    torch.testing.assert_close(found, F.cross_entropy(logits, label, weight=weights))


def test_equal_counts_have_equal_weights() -> None:
    weights = torch.from_numpy(inverse_effective_number(np.array([9, 9, 9]), 0.9999))
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(over_images(weights, torch.tensor([9, 9, 9])), ones)


def test_effective_numbers_of_cifar100_at_100() -> None:
    """The first and the last of a hundred classes of 500 to 5 images."""
    counts = [int(500 * 0.01 ** (c / 99)) for c in range(100)]
    found = class_weights(counts, 0.9999)
    assert [round(float(found[c]), 4) for c in (0, -1)] == [0.0449, 4.3783]


def test_weights_have_mean_one_over_classes_or_over_images() -> None:
    over_classes = class_weights(COUNTS.tolist(), 0.9999)
    assert abs(float(over_classes.mean()) - 1) < 1e-12
    shares = torch.from_numpy(COUNTS / COUNTS.sum())
    images = class_weights(COUNTS.tolist(), 0.9999, "images")
    assert abs(float(torch.dot(images, shares)) - 1) < 1e-12
    torch.testing.assert_close(images / images[0], over_classes / over_classes[0])
    assert class_weights(COUNTS.tolist(), 0.0).tolist() == [1.0] * 10


def test_class_balanced_cross_entropy_weighs_rows_by_their_own_class() -> None:
    logits, label = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    n = np.array([40, 20, 10, 5])
    raw = 0.01 / (1 - 0.99**n)
    weights = torch.from_numpy(raw * 4 / raw.sum())
    expected = weights[label] * F.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(cb_ce(logits, label, n.tolist(), 0.99), expected)


def test_class_balanced_focal_loss_is_a_weighted_sum_over_classes_of_lowered_logits() -> None:
    logits, label = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    n = np.array([40, 20, 10, 5])
    raw = 0.01 / (1 - 0.99**n)
    weights = torch.from_numpy(raw * 4 / raw.sum())
    expected = weights[label] * sigmoid_focal(logits - np.log(3), label, 2.0)
    torch.testing.assert_close(cb_focal(logits, label, n.tolist(), beta=0.99, gamma=2.0), expected)


def test_on_equal_counts_the_weights_are_gone() -> None:
    logits, label = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3, 0])
    plain = F.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(cb_ce(logits, label, (7,) * 4), plain)
    torch.testing.assert_close(
        cb_focal(logits, label, (7,) * 4), sigmoid_focal(logits - np.log(3), label, 1.0)
    )


def test_weights_by_powers_of_the_counts() -> None:
    """n ** -1 of 4, 2 and 1 images: 1, 2 and 4 over their mean; power 0 weighs alike."""
    expected = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64) * 3 / 7
    torch.testing.assert_close(power_weights((4, 2, 1), 1.0), expected)
    assert torch.equal(power_weights((4, 2, 1), 0.0), torch.ones(3, dtype=torch.float64))
    steep = power_weights(COUNTS.tolist(), 1.2)
    assert float(steep[-1] / steep[0]) == pytest.approx(100**1.2)
    assert float(steep.mean()) == pytest.approx(1)
