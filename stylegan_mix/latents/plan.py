"""The mixing plan: the classes, shares and latents of row i, as a pure function of i.

Rows are drawn in absolute blocks of `BLOCK`. A row depends on (seed, stream, block, place in the
block) and on nothing else. So neither the length of a bank nor the process that computes a block
can change it. `N` rows, `K` classes, `Z` latent width; `lam` is the share of class a, in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_mix.latents.pairing import Pairing
from stylegan_mix.latents.shares import Law
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.rng import stream

__all__ = ["BLOCK", "Mixing", "Rows", "block", "labels", "path", "rows"]

BLOCK = 64
"""Rows in a block; part of every bank's key."""


@dataclass(frozen=True)
class Mixing:
    """The arguments of a plan.

    `classes` K, `z_dim` Z and `w_dim` D come from the generator; `alpha` is the parameter of the
    symmetric Beta distribution of lam, `law` that distribution; `pairing` draws the classes;
    `space` is a name of `spaces.SPACES`; `seed` is any integer. D is read by spaces with masks.
    """

    classes: int
    z_dim: int
    space: str = "w"
    alpha: float = 1.0
    seed: int = 0
    pairing: Pairing = Pairing()
    law: Law = Law()
    w_dim: int = 0


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a plan: `pair` [N, 2] int32, `lam` [N] float32, `z` [2, N, Z] float32.

    `mask` [N, D] float32 in [0, 1) decides on the channels of w in a space that masks them; it is
    None elsewhere.
    """

    pair: np.ndarray
    lam: np.ndarray
    z: np.ndarray
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lam)

    def cut(self, rows: slice) -> Rows:
        """Takes some of the rows."""
        mask = None if self.mask is None else self.mask[rows]
        return Rows(self.pair[rows], self.lam[rows], self.z[:, rows], mask)


def labels(mixing: Mixing, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the classes and shares of block `index`: pair [64, 2] int32, lam [64] float32.

    By default, classes a and b are drawn independently and uniformly, a = b included: every class
    gets the same expected label mass, however long the tail of the training set. lam ~ Beta(alpha,
    alpha) per row (Zhang et al. 2018, mixup). A space that mixes nothing keeps class a of the same
    draw and is (a, a) with lam = 1. So are the unmixed rows of a pairing.
    """
    pair = mixing.pairing.draw(stream(mixing.seed, "mix.pair", index), mixing.classes, BLOCK)
    if not SPACES[mixing.space].mixes:
        return pair[:, [0, 0]], np.ones(BLOCK, np.float32)
    lam = mixing.law.draw(stream(mixing.seed, "mix.lam", index), mixing.alpha, BLOCK)
    if mixing.pairing.unmixed:
        alone = stream(mixing.seed, "mix.unmixed", index).random(BLOCK) < mixing.pairing.unmixed
        pair[alone, 1] = pair[alone, 0]
        lam[alone] = 1
    return pair, lam


def block(mixing: Mixing, index: int) -> Rows:
    """Draws the `BLOCK` rows of block `index`, always whole."""
    pair, lam = labels(mixing, index)
    draw = stream(mixing.seed, "mix.z", index)
    z = draw.standard_normal((2, BLOCK, mixing.z_dim), dtype=np.float32)
    return Rows(pair, lam, z, _mask(mixing, "mix.mask", index, BLOCK))


def _mask(mixing: Mixing, name: str, index: int, rows: int) -> np.ndarray | None:
    if not SPACES[mixing.space].masks:
        return None
    return stream(mixing.seed, name, index).random((rows, mixing.w_dim), np.float32)


def rows(mixing: Mixing, start: int, stop: int) -> Rows:
    """Draws rows [start, stop) of the plan, from as many blocks as they span."""
    if not 0 <= start < stop:
        raise ValueError(f"rows [{start}, {stop}) are not a range of a plan")
    first = start // BLOCK
    blocks = [block(mixing, index) for index in range(first, -(-stop // BLOCK))]
    masks = [part.mask for part in blocks if part.mask is not None]
    whole = Rows(
        np.concatenate([part.pair for part in blocks]),
        np.concatenate([part.lam for part in blocks]),
        np.concatenate([part.z for part in blocks], axis=1),
        np.concatenate(masks) if masks else None,
    )
    return whole.cut(slice(start - first * BLOCK, stop - first * BLOCK))


def path(mixing: Mixing, pair: tuple[int, int], index: int, steps: int) -> Rows:
    """Walks between two fixed latents, for the eye: `steps` shares from 1 (a) down to 0 (b).

    `index` numbers the latents. In a space that mixes nothing there is no path: the rows are
    `steps` different samples of class a.
    """
    draw = stream(mixing.seed, "preview.z", index)
    if not SPACES[mixing.space].mixes:
        z = draw.standard_normal((2, steps, mixing.z_dim), dtype=np.float32)
        return Rows(np.full((steps, 2), pair[0], np.int32), np.ones(steps, np.float32), z)
    z = draw.standard_normal((2, 1, mixing.z_dim), dtype=np.float32)
    share = np.linspace(1.0, 0.0, steps, dtype=np.float32)
    mask = _mask(mixing, "preview.mask", index, 1)
    return Rows(
        np.tile(np.array(pair, np.int32), (steps, 1)),
        share,
        z.repeat(steps, axis=1),
        None if mask is None else mask.repeat(steps, axis=0),
    )
