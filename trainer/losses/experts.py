"""The loss of several experts that are corrected for class shares to different degrees.

`N` rows, `E` experts, `K` classes, pi_c the share of class c of all training images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_mix.errors import InvalidInput
from trainer.losses.counts import Counts
from trainer.losses.priors import logit_adjust

__all__ = ["balanced_experts"]


def balanced_experts(
    logits: Tensor, label: Tensor, counts: Counts, taus: Sequence[float] = (0.0, 1.0, 2.0)
) -> Tensor:
    """Computes mean_e -log softmax(z_e + tau_e log pi)_y (Aimar et al. 2023, BalPoE), [N].

    logits: z, [N, E, K], of each expert; label: y, [N] int64, or shares of all classes [N, K];
    counts: [K]; taus: one for each expert. The mean of the logits over the experts predicts. It is
    balanced if the mean of the taus is 1.
    """
    if logits.dim() != 3 or logits.shape[1] != len(taus):
        raise InvalidInput(
            f"logits must be [N, {len(taus)}, K] for the taus of {len(taus)} experts, "
            f"got {list(logits.shape)}"
        )
    experts = zip(logits.unbind(1), taus, strict=True)
    each = [logit_adjust(z, label, counts, tau) for z, tau in experts]
    return torch.stack(each).mean(0)
