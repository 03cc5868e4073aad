"""Class weights in a loss keep the size of a step."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from stylegan_mix.datasets.class_weights import inverse_effective_number
from trainer.losses.weights import over_images

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
