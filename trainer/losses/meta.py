"""The meta-sampler of balanced meta-softmax: draws by learned rates, and a step of look-ahead.

Ren et al. 2020, section 3.2. `N` rows of a batch, `M` draws from them, `K` classes, `D` features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from trainer.losses.counts import Counts
from trainer.losses.priors import balanced_softmax

__all__ = ["answered", "drawn_by_rates", "looked_ahead"]


def drawn_by_rates(raw: Tensor, label: Tensor, gumbel: Tensor) -> tuple[Tensor, Tensor]:
    """Draws rows with probabilities in proportion to sigmoid(raw_y), with replacement.

    raw: [K]; label: y, [N] int64; gumbel: [M, N], standard Gumbel noise. Returns the row of each
    draw, [M] int64, and the share of each row in the draws, [N]. The gradient of a share is that of
    its Gumbel-softmax at temperature 1 (straight-through).
    """
    scores = F.logsigmoid(raw)[label] + gumbel
    row, soft = scores.argmax(1), scores.softmax(1)
    hard = F.one_hot(row, len(label)).to(soft)
    return row, (hard + soft - soft.detach()).mean(0)


def looked_ahead(
    head: nn.Module, features: Tensor, label: Tensor, share: Tensor, counts: Counts, rate: float
) -> dict[str, Tensor]:
    """Computes the parameters of a head after one step of gradient descent on weighted rows.

    The step descends sum_i share_i L(head(f_i), y_i) at `rate`; L is balanced softmax of `counts`,
    [K]. features: f, [N, D]; label: y, [N] int64; share: [N]. Their gradient flows to `share`
    alone: the head itself, and the features, are taken for constants.
    """
    now = {name: value.detach().requires_grad_() for name, value in head.named_parameters()}
    values = balanced_softmax(answered(head, now, features.detach()), label, counts)
    slopes = torch.autograd.grad((share * values).sum(), list(now.values()), create_graph=True)
    return {
        name: value.detach() - rate * slope
        for (name, value), slope in zip(now.items(), slopes, strict=True)
    }


def answered(head: nn.Module, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Computes the logits of a head with other parameters, [N, K]; features: [N, D]."""
    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = functional_call(head, dict(parameters), (features,))
    return logits
