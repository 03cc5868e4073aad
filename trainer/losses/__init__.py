"""Losses as equations: pure functions of tensors, one value a row, each with its source.

Those that are named here read logits [N, K], labels [N] int64 and, where they need them, the
training images of each class, [K], and return a loss of each row, [N]. They are for any PyTorch
model and loader; `balanced_experts` reads the logits of several experts, [N, E, K]. A row with two
labels has lam loss(a) + (1 - lam) loss(b).
"""

from __future__ import annotations

from trainer.losses.experts import balanced_experts
from trainer.losses.gaussian import gcl, gcl_angular
from trainer.losses.labels import cross_entropy, focal, label_aware_smoothing, sigmoid_focal
from trainer.losses.margin import ldam
from trainer.losses.priors import balanced_sigmoid, balanced_softmax, logit_adjust, vs_loss
from trainer.losses.weights import cb_ce, cb_focal, class_weights

__all__ = [
    "balanced_experts",
    "balanced_sigmoid",
    "balanced_softmax",
    "cb_ce",
    "cb_focal",
    "class_weights",
    "cross_entropy",
    "focal",
    "gcl",
    "gcl_angular",
    "label_aware_smoothing",
    "ldam",
    "logit_adjust",
    "sigmoid_focal",
    "vs_loss",
]
