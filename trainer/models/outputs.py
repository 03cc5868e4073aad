"""The answer of a classifier, the same for every model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Outputs"]


class Outputs(NamedTuple):
    """Outputs of a classifier: features [N, D], the input of the heads, and logits [N, K].

    logits are those of the head that answers at test. others: further outputs by name, a row each:
    those of further heads [N, K'], projections [N, P], and those of each expert, "experts"
    [N, E, K], where logits are the mean of several. weight: that of the head that answers, [K, D],
    the same for all rows, or None if it has no single one. views: the outputs of further views of
    the same images, one for each view, where a stage has views. All are float32.
    """

    features: Tensor
    logits: Tensor
    others: Mapping[str, Tensor] = MappingProxyType({})
    weight: Tensor | None = None
    views: tuple[Outputs, ...] = ()

    def of(self, rows: slice) -> Outputs:
        """Selects the outputs of some rows."""
        others = {name: value[rows] for name, value in self.others.items()}
        views = tuple(view.of(rows) for view in self.views)
        return Outputs(self.features[rows], self.logits[rows], others, self.weight, views)

    def detach(self) -> Outputs:
        """Returns the same numbers without their graph."""
        others = {name: value.detach() for name, value in self.others.items()}
        weight = None if self.weight is None else self.weight.detach()
        views = tuple(view.detach() for view in self.views)
        return Outputs(self.features.detach(), self.logits.detach(), others, weight, views)
