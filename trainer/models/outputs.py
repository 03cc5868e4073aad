"""What every classifier answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Outputs"]


class Outputs(NamedTuple):
    """features: [N, D], what the head saw; logits: [N, K]; both float32."""

    features: Tensor
    logits: Tensor
