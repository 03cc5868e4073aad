"""Heads of classifiers as values; `classifier.head_of` makes their modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["CORRECTED_FORMS", "MEMORY_FORMS", "Head", "HeadForm"]

_OfCorrections = Literal[
    "fused-logits",
    "fused-probabilities",
    "fused-scaled",
    "fused-max",
    "fused-attention",
    "assigned",
]
HeadForm = Literal["linear", "cosine", "scaled", "rescaled", "mlp", "weighed", _OfCorrections]

CORRECTED_FORMS: tuple[str, ...] = get_args(_OfCorrections)
"""The forms of which no stage trains anything: corrections of a finished network make them."""

MEMORY_FORMS = ("weighed", *CORRECTED_FORMS)
"""The forms that read a memory of class means beside a linear head."""


@dataclass(frozen=True)
class Head:
    """A map from features f [N, D] to outputs z [N, K].

    "linear": z_c = w_c . f + b_c. "cosine": z_c = scale cos(w_c, f), without bias. The scale is the
    head's and not the loss's, so that softmax(z) is the model's probability for every head.
    "scaled": z_c = s_c (w_c . f + b_c), of which only s_c is learned, from `scale` on (LWS, Kang et
    al. 2020, section 4.3). "rescaled": the same, with w_c and b_c learned too (Zhong et al. 2021).
    "mlp": two layers with `hidden` units and a ReLU between them, a projection that never answers;
    normed: True if a batch norm stands before the ReLU.
    The `MEMORY_FORMS` join a linear head and a memory of class means (`memory_heads`).
    width: number of outputs, None for one per class. detached: True if no gradient flows from the
    head to the features, so that it does not shape the backbone. experts: the number of equal parts
    of the features, each with a map of its own; z is the mean of theirs. A backbone has as many
    experts as its head.
    """

    form: HeadForm = "linear"
    scale: float = 1.0
    width: int | None = None
    detached: bool = False
    experts: int = 1
    hidden: int | None = None
    normed: bool = False

    def __post_init__(self) -> None:
        if self.form not in get_args(HeadForm):
            raise ValueError(f"form must be one of {get_args(HeadForm)}, got {self.form!r}")
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.form in ("linear", *MEMORY_FORMS) and self.scale != 1:
            raise ValueError(f"a head of form '{self.form}' has no scale")
        if self.experts < 1:
            raise ValueError(f"experts must be at least 1, got {self.experts}")
        if (self.form == "mlp") != (self.hidden is not None) or self.hidden == 0:
            raise ValueError(f"an MLP has hidden units, and it alone has; got {self!r}")
        if self.form != "mlp" and self.normed:
            raise ValueError(f"an MLP alone has a batch norm, got {self!r}")
