"""The losses of the two players, each a function of one equation. N is the batch.

All return one value per sample, [N]; only the training step reduces.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["fool_loss", "r1_penalty", "spot_fake_loss", "spot_real_loss"]


def fool_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating generator loss -log sigmoid(D(G(z))) (Goodfellow et al. 2014): [N] -> [N]."""
    return functional.softplus(-fake_logits)


def spot_fake_loss(fake_logits: Tensor) -> Tensor:
    """Discriminator loss on generated images, -log(1 - sigmoid(D(G(z)))): [N] -> [N]."""
    return functional.softplus(fake_logits)


def spot_real_loss(real_logits: Tensor) -> Tensor:
    """Discriminator loss on real images, -log sigmoid(D(x)): [N] -> [N]."""
    return functional.softplus(-real_logits)


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Zero-centred gradient penalty R1 on reals (Mescheder et al. 2018): |grad_x D(x)|^2, [N].

    `real_images` [N,C,H,W] requires a gradient; the penalty is differentiable in its turn.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])
