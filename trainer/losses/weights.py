"""Weights of classes in a loss. `N` rows, `K` classes, n_c training images of class c."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from stylegan_mix.datasets.class_weights import inverse_effective_number
from trainer.losses.counts import Counts, as_counts, counts_for
from trainer.losses.labels import cross_entropy, sigmoid_focal

__all__ = [
    "Mean",
    "cb_ce",
    "cb_focal",
    "class_weights",
    "over_images",
    "power_weights",
    "rare_positives",
]

Mean = Literal["classes", "images"]
"""The mean of the weights that is 1: over classes, or over training images."""


def class_weights(counts: Counts, beta: float, mean: Mean = "classes") -> Tensor:
    """Computes weights in proportion to (1 - beta) / (1 - beta ** n_c), [K] float64.

    The inverse effective numbers of images (Cui et al. 2019, section 3). beta in [0, 1), and 0
    weighs all classes alike. A mean of 1 over classes is that of the paper; see `over_images` for
    the other.
    """
    n = as_counts(counts)
    weights = torch.from_numpy(inverse_effective_number(n.cpu().numpy(), beta)).to(n.device)
    return over_images(weights, n) if mean == "images" else weights


def over_images(weights: Tensor, counts: Tensor) -> Tensor:
    """Scales class weights so that their mean over all training images is 1, [K].

    weights, counts: [K]. Re-weighting then keeps the size of a step. Published code of
    class-weighted losses divides each batch by the sum of its weights, which couples its rows; this
    is that divisor in expectation.
    """
    shares = counts.to(weights) / counts.sum()
    return weights / torch.dot(shares, weights)


def power_weights(counts: Counts, power: float) -> Tensor:
    """Computes weights in proportion to n_c ** -power, with mean 1 over classes, [K] float64.

    counts: n_c, [K]. power = 0 weighs all classes alike.
    """
    raw = as_counts(counts) ** -power
    return raw / raw.mean()


def cb_ce(logits: Tensor, label: Tensor, counts: Counts, beta: float = 0.9999) -> Tensor:
    """Computes -w_y log softmax(z)_y (Cui et al. 2019, section 4), [N].

    w: the `class_weights` of `beta`. logits: z, [N, K]; label: y, [N] int64; counts: [K]. The mean
    over a batch divides by its rows, not by the sum of their weights.
    """
    return class_weights(counts_for(logits, counts), beta).to(logits)[label] * cross_entropy(
        logits, label
    )


def rare_positives(classes: int) -> float:
    """Computes -log(K - 1), the log odds of one class among K equal ones.

    As the bias that a head begins with, it keeps the sum over K - 1 negatives from swamping the
    first steps (Cui et al. 2019). A constant for all classes changes no prediction.
    """
    return -math.log(max(classes - 1, 1))


def cb_focal(
    logits: Tensor, label: Tensor, counts: Counts, *, beta: float = 0.9999, gamma: float = 1.0
) -> Tensor:
    """Computes w_y times the `sigmoid_focal` loss of z - log(K - 1), [N].

    Cui et al. 2019, section 4; w: the `class_weights` of `beta`. The paper begins the biases of the
    head at -log(K - 1); here they begin at 0 and the constant is added, which is the same but for
    weight decay. Code that other papers took over weighs a softmax focal loss instead, and takes p
    from the weighted loss.
    logits: z, [N, K]; label: y, [N] int64; counts: [K].
    """
    each = sigmoid_focal(logits + rare_positives(logits.shape[1]), label, gamma)
    return class_weights(counts_for(logits, counts), beta).to(each)[label] * each
