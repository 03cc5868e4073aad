"""The losses of the two players, each a function of one equation. N is the batch.

All return one value per sample, [N]; only the training step reduces.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["fool_loss", "r1_penalty", "spot_fake_loss", "spot_real_loss"]


def fool_loss(fake_logits: Tensor) -> Tensor:
    """Computes -log sigmoid(D(G(z))), non-saturating (Goodfellow et al. 2014): [N] -> [N]."""
    return functional.softplus(-fake_logits)


def spot_fake_loss(fake_logits: Tensor) -> Tensor:
    """Computes the discriminator's -log(1 - sigmoid(D(G(z)))) on generated images: [N] -> [N]."""
    return functional.softplus(fake_logits)


def spot_real_loss(real_logits: Tensor) -> Tensor:
    """Computes the discriminator's -log sigmoid(D(x)) on real images: [N] -> [N]."""
    return functional.softplus(-real_logits)


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Computes the gradient penalty R1 on reals, |grad_x D(x)|^2 (Mescheder et al. 2018), [N].

    `real_images` [N,C,H,W] requires a gradient. The penalty is differentiable itself.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])
