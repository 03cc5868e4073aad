"""Fusions of two answers: of a linear head, and of a memory of class means. `N` rows, `K` classes.

Most are known by the code of Sonseca (2021), a thesis without a published text. z are the logits of
the head, v the cosines of features and class means (`losses.memory.nearness`). Cosines lie between
-1 and 1 and logits do not, so v is brought to the range of z first: by an increasing line
(`losses.memory.matched`), or by a factor (`by_factor`). The code can do both to the same v one
after the other; here every fusion does one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attended", "by_factor", "surer", "weighted_logits", "weighted_probabilities"]


def by_factor(scores: Tensor, logits: Tensor) -> Tensor:
    """Computes e v, e = max z / max v for each row, so that the largest of both are equal, [N, K].

    scores: v, [N, K]; logits: z, [N, K]. A factor that is not positive would turn the order of v
    around. So a row whose largest z or v is not positive has z itself.
    """
    top, ceiling = scores.amax(1, keepdim=True), logits.amax(1, keepdim=True)
    fits = (top > 0) & (ceiling > 0)
    factor = ceiling / torch.where(fits, top, 1.0)
    return torch.where(fits, factor * scores, logits)


def weighted_logits(plain: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Computes w z + (1 - w) v, [N, K].

    plain: z, [N, K]; other: v in the range of z, [N, K]; share: w in [0, 1], a scalar.
    """
    return torch.lerp(other, plain, share)


def weighted_probabilities(plain: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Computes log(w softmax(z) + (1 - w) softmax(v)), whose softmax is the mixture itself, [N, K].

    plain: z, [N, K]; other: v in the range of z, [N, K]; share: w in [0, 1], a scalar.
    """
    first = F.log_softmax(plain, dim=1) + share.log()
    return torch.logaddexp(first, F.log_softmax(other, dim=1) + (1 - share).log())


def surer(plain: Tensor, other: Tensor) -> Tensor:
    """Computes max(log softmax(z), log softmax(v)), so that the surer of both answers, [N, K].

    plain: z, [N, K]; other: v in the range of z, [N, K]. The code takes the largest of z and e v,
    whose largest values are equal by the choice of e. So its two winners tie in every row, and
    rounding or the order of the classes decides. Probabilities of v in the range of z do not tie.
    """
    return torch.maximum(F.log_softmax(plain, dim=1), F.log_softmax(other, dim=1))


def attended(plain: Tensor, features: Tensor, memory: Tensor) -> Tensor:
    """Computes K a z, a = softmax(m_c . f / |f|) over the classes, [N, K].

    plain: z, [N, K]; features: f, [N, D]; memory: m, [K, D]. The factor K keeps the size of z, so
    that equal means leave z as it is; no answer depends on it. A negative z falls as its class gets
    nearer, as in the code.
    """
    attention = (F.normalize(features, dim=1) @ memory.T).softmax(1)
    return memory.shape[0] * attention * plain
