"""Terms that join a player's loss, each a function of one equation.

N is the batch, L the number of w an image takes, D the width of w. Terms of single samples return
[N]. The Barlow loss compares coordinates over the batch and returns a scalar.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "barlow_loss",
    "lecam_fake_penalty",
    "lecam_real_penalty",
    "most_square",
    "path_lengths",
    "squared_spectral_norm",
]


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """Computes |J^T y| (Karras et al. 2020, StyleGAN2, section 3.2): [N,C,H,W], [N,L,D], y -> [N].

    y is standard normal `noise` over sqrt(H W). The length is the root of the mean, over the L
    layers, of the squared norm of the gradient in w. It is differentiable itself.
    """
    y = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def barlow_loss(one: Tensor, two: Tensor, off_diagonal: float) -> Tensor:
    """Computes sum_i (C_ii - 1)^2 + off_diagonal sum_ij C_ij^2, i != j, of two views of w [N,D].

    NoisyTwins (Rangwani et al. 2023). C [D,D] is the correlation of the views over the batch, each
    coordinate brought to mean 0 and variance 1.
    """
    correlation = _standardised(one).T @ _standardised(two) / len(one)
    on = (correlation.diagonal() - 1).square().sum()
    off = correlation.square().sum() - correlation.diagonal().square().sum()
    return on + off_diagonal * off


def _standardised(rows: Tensor) -> Tensor:
    variance, mean = torch.var_mean(rows, dim=0, correction=0)
    return (rows - mean) * (variance + 1e-5).rsqrt()


def most_square(width: int) -> tuple[int, int]:
    """Finds the most square h x w = `width` with h <= w: 512 -> 16 x 32."""
    height = max(h for h in range(1, math.isqrt(width) + 1) if width % h == 0)
    return height, width // height


def squared_spectral_norm(w: Tensor, start: Tensor, *, iterations: int = 4) -> Tensor:
    """Computes sigma_max^2 of each w as its most square matrix: [N,D] -> [N].

    Group spectral regularisation (gSR, Rangwani et al. 2022). This generator has no conditional
    normalisation, so it is applied to w, as in the comparison by Rangwani et al. 2023
    (NoisyTwins). Power iteration begins at `start` [N, D / h], which holds no gradient; the vectors
    are constants to the gradient.
    """
    groups = w.view(len(w), *most_square(w.shape[1]))
    fixed = groups.detach()
    v = torch.nn.functional.normalize(start, dim=1)
    for _ in range(iterations):
        u = torch.nn.functional.normalize(torch.einsum("nhw,nw->nh", fixed, v), dim=1)
        v = torch.nn.functional.normalize(torch.einsum("nhw,nh->nw", fixed, u), dim=1)
    return torch.einsum("nh,nhw,nw->n", u, groups, v).square()


def lecam_real_penalty(real_logits: Tensor, usual_fake: Tensor) -> Tensor:
    """Computes relu(D(x) - E D(G))^2, E a moving average (LeCam, Tseng et al. 2021): [N]."""
    return (real_logits - usual_fake).relu().square()


def lecam_fake_penalty(fake_logits: Tensor, usual_real: Tensor) -> Tensor:
    """Computes relu(E D(x) - D(G))^2, E a moving average (LeCam, Tseng et al. 2021): [N]."""
    return (usual_real - fake_logits).relu().square()
