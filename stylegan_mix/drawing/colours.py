"""The colours of pictures; each shot group has one colour everywhere."""

from __future__ import annotations

__all__ = ["COLOURS", "GROUP_COLOURS"]

# Of Okabe and Ito, distinct for colour-blind readers too; the pale yellow comes last.
COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc3311",
    "#7a5195",
    "#56b4e9",
    "#666666",
    "#b8a800",
)

# Of Paul Tol's muted scheme, so that no arm of a plot looks like a group.
GROUP_COLOURS = {"many": "#332288", "medium": "#44aa99", "few": "#cc6677"}
