"""The judged samples: drawn from a generator with given labels, or rows of a bank.

`N` samples, `K` classes, `Z` latent width, `H W C` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_mix import rng
from stylegan_mix.banks.reader import Bank
from stylegan_mix.latents.decoding import decode_rows
from stylegan_mix.latents.plan import BLOCK, Rows
from stylegan_mix.latents.spaces import SPACES
from stylegan_mix.metrics.scores import allocate
from stylegan_mix.networks import Generator
from stylegan_mix.session import Session

__all__ = ["Samples", "bank_rows", "decode_block", "drawn", "labels_for", "redrawn"]


@dataclass(frozen=True, eq=False)
class Samples:
    """`images` uint8 [N,H,W,C], their class int64 [N], and the row of the bank int64 [N] or None.

    The class of a mixed row is that of the larger share.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray | None = None


def labels_for(counts: np.ndarray, how: str, n: int) -> np.ndarray:
    """Lists labels of n samples, ascending: "uniform", or by the "frequency" `counts` [K]."""
    share = np.ones(len(counts)) if how == "uniform" else counts.astype(np.float64)
    return np.repeat(np.arange(len(counts)), allocate(share, n))


def drawn(
    network: Generator,
    labels: np.ndarray,
    *,
    seed: int,
    truncation: float,
    session: Session = Session(),
) -> Samples:
    """Draws one sample a label; sample i is a function of (seed, its block, place in it, label).

    The forward always computes whole blocks. `InvalidInput` (exit code 3) if images are not finite.
    """
    progress = session.track(len(labels), "images", f"samples of seed {seed}")
    blocks = []
    for index in range(-(-len(labels) // BLOCK)):
        session.go_on(f"samples of seed {seed} were being drawn")
        asked = labels[index * BLOCK : (index + 1) * BLOCK]
        images = decode_block(network, asked, index, seed=seed, truncation=truncation)
        blocks.append(images[: len(asked)])
        progress.update(index * BLOCK + len(asked))
    progress.close()
    return Samples(np.concatenate(blocks), labels)


def redrawn(
    network: Generator, labels: np.ndarray, rows: np.ndarray, *, seed: int, truncation: float
) -> np.ndarray:
    """Draws again some rows [n] of `drawn` for these labels: uint8 [n,H,W,C]."""
    found = {}
    for index in np.unique(rows // BLOCK).tolist():
        asked = labels[index * BLOCK : (index + 1) * BLOCK]
        found[index] = decode_block(network, asked, index, seed=seed, truncation=truncation)
    return np.stack([found[row // BLOCK][row % BLOCK] for row in rows.tolist()])


def decode_block(
    network: Generator, labels: np.ndarray, index: int, *, seed: int, truncation: float
) -> np.ndarray:
    """Draws images [64,H,W,C] uint8 of block `index`; missing labels are filled up with 0."""
    device = next(network.parameters()).device
    classes = np.zeros(BLOCK, np.int32)
    classes[: len(labels)] = labels
    z = rng.stream(seed, "metrics.z", index).standard_normal((BLOCK, network.z_dim), np.float32)
    rows = Rows(np.stack([classes, classes], axis=1), np.ones(BLOCK, np.float32), np.stack([z, z]))
    decoded = decode_rows(
        network,
        rows,
        space=SPACES["none"],
        truncation=truncation,
        draws=rng.Draws(rng.torch_generator(seed, "metrics.noise", index, device=device)),
    )
    return decoded.fetch(f" in block {index}")


def bank_rows(bank: Bank, n: int, *, seed: int) -> Samples:
    """Selects n different rows of a bank, drawn by seed, sorted by class."""
    rows = np.sort(rng.stream(seed, "metrics.rows").permutation(len(bank))[:n])
    pair, lam = bank.pair[rows].astype(np.int64), bank.lam[rows]
    labels = np.where(lam >= 0.5, pair[:, 0], pair[:, 1])
    order = np.argsort(labels, kind="stable")
    return Samples(np.asarray(bank.images[rows[order]]), labels[order], rows[order])
