"""Mean directions of each class, followed while a network is trained. `K` classes, `P` numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ClassDirections"]


class ClassDirections(nn.Module):
    """Sums of unit vectors by class: of the last epoch and this one, and of this one alone.

    An epoch has `images` images. When one ends, its own sums take the place of the others. sums:
    [2, K, P]; counts: [2, K], vectors in them; seen: the images of this epoch so far.
    """

    sums: Tensor
    counts: Tensor
    seen: Tensor

    def __init__(self, classes: int, numbers: int, images: int) -> None:
        super().__init__()
        self.images = images
        self.register_buffer("sums", torch.zeros(2, classes, numbers))
        self.register_buffer("counts", torch.zeros(2, classes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def means(self) -> Tensor:
        """The mean vectors of the last epoch and this one, [K, P]; 0 for a class without any."""
        return self.sums[0] / self.counts[0].clamp(min=1)[:, None]

    def follow(self, views: Tensor, label: Tensor) -> None:
        """Adds the vectors of each view, [V, N, P], of images of the classes `label`, [N] int64."""
        member = F.one_hot(label, self.sums.shape[1]).to(self.sums)  # [N, K]
        self.sums += member.T @ F.normalize(views, dim=2).sum(0)
        self.counts += len(views) * member.sum(0)
        self.seen += len(label)
        full = self.seen >= self.images
        for kept in (self.sums, self.counts):
            now = kept[1].clone()
            kept[0] = torch.where(full, now, kept[0])
            kept[1] = torch.where(full, 0, now)
        self.seen.copy_(torch.where(full, 0, self.seen))
