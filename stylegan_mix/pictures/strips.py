"""Interpolation strips: one latent under two classes, and all shares between."""

from __future__ import annotations

import numpy as np

from stylegan_mix.banks.preview import STEPS, heads
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.latents.plan import Mixing, Rows, path
from stylegan_mix.pictures.choice import pairs
from stylegan_mix.pictures.picture import Picture, of_image
from stylegan_mix.pictures.viewer import Subject

__all__ = ["strip", "strips"]


def strip(subject: Subject, pair: tuple[int, int], index: int) -> np.ndarray:
    """Decodes latent `index` at lam from 1 (the first class) to 0 -> uint8 [11,H,W,C]."""
    mixing = Mixing(len(subject.names), subject.network.z_dim, space="w", seed=subject.seed)
    rows = path(mixing, pair, index, STEPS)
    return subject.mixed(Rows(rows.pair, rows.lam, np.stack([rows.z[0], rows.z[0]])))


def strips(subject: Subject) -> Picture | None:
    """Draws strips between head and tail, within the tail, within the head; None for one class."""
    found = pairs(subject.counts)
    chosen = [pair for kind in found.values() for pair in kind]
    if not chosen:
        return None
    names = subject.names
    told = "; ".join(
        f"{kind}: {', '.join(f'{names[a]} to {names[b]}' for a, b in kind_pairs)}"
        for kind, kind_pairs in found.items()
    )
    sheet = Sheet(
        title=f"{subject.published.card['dataset']}: between two classes",
        note=f"{subject.origin}; one latent a row under both classes, mixed in w; "
        "lam is the share of the left class",
        left=[names[first] for first, _ in chosen],
        right=[names[second] for _, second in chosen],
        columns=heads(mixes=True),
        cells=[list(strip(subject, pair, index)) for index, pair in enumerate(chosen)],
        corner="lam",
    )
    caption = (
        f"Each row is one latent under two classes, w = lam w_a + (1 - lam) w_b at {STEPS} values "
        f"of lam, psi {subject.truncation:g}, the same stored noise; the ends are unmixed. {told}; "
        f"{subject.origin}."
    )
    return of_image("strips.png", "Between two classes", caption, draw(sheet))
