"""Features of earlier passes over the training images, kept by class. `K` classes, `D` features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeatureQueues"]


class FeatureQueues(nn.Module):
    """Queues of features by class, from which classes are drawn evenly (Liu et al. 2022).

    A *snapshot* of class c is n_c features that came one after another: those of one pass over its
    images. The queue of c holds its newest L_c whole snapshots and the one that is being written;
    L_c = ceil(T / n_c), so that there are T = ceil(sum n / K) features of every class. All queues
    together hold at most three features for each training image and class.

    features: [sum_c (L_c + 1) n_c, D]; sums: of each snapshot, [sum_c (L_c + 1), D]; written: the
    features of each class so far, [K] int64.
    """

    features: Tensor
    sums: Tensor
    written: Tensor
    counts: Tensor
    depth: Tensor
    first: Tensor
    first_sum: Tensor

    def __init__(self, counts: Sequence[int], width: int) -> None:
        super().__init__()
        n = torch.tensor(tuple(counts))
        self.target = -(-sum(counts) // len(counts))
        depth = -(-self.target // n)
        sizes, snapshots = (depth + 1) * n, depth + 1
        self.register_buffer("features", torch.zeros(int(sizes.sum()), width))
        self.register_buffer("sums", torch.zeros(int(snapshots.sum()), width))
        self.register_buffer("written", torch.zeros(len(n), dtype=torch.int64))
        for name, value in (
            ("counts", n),
            ("depth", depth),
            ("first", sizes.cumsum(0) - sizes),
            ("first_sum", snapshots.cumsum(0) - snapshots),
        ):
            self.register_buffer(name, value)

    def follow(self, features: Tensor, label: Tensor, taken: Tensor) -> None:
        """Writes the features of the taken rows, in their order.

        features: [N, D]; label: [N] int64; taken: [N] bool.
        """
        features, label = features[taken], label[taken]
        member = F.one_hot(label, len(self.counts))  # [N, K]
        before = (member.cumsum(0) - member).gather(1, label[:, None])[:, 0]
        place = self.written[label] + before
        self.written += member.sum(0)
        snapshot = place // self.counts[label]
        newest = (self.written - 1) // self.counts
        kept = snapshot >= newest[label] - self.depth[label]
        features, label = features[kept], label[kept]
        place, snapshot = place[kept], snapshot[kept]
        slot, sums = self._slots(label, snapshot)
        inner = place % self.counts[label]
        self.features[slot + inner] = features
        self.sums[sums[inner == 0]] = 0
        self.sums.index_add_(0, sums, features)

    def drawn(self, label: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Draws a feature of each class in `label`, moved to the mean of its newest snapshot.

        label: [N] int64; share: [N] in [0, 1), the place among the newest T features of the class
        in whole snapshots, or among as many as there are. Returns features [N, D], and whether the
        class has a whole snapshot, [N] bool; where it has none, the feature is of no use.
        """
        n, whole = self.counts, self.written // self.counts
        there = torch.minimum(whole, self.depth) * n
        place = (share * there.clamp(max=self.target)[label]).long()
        snapshot = whole[label] - 1 - place // n[label]
        slot, sums = self._slots(label, snapshot)
        newest = self._slots(label, whole[label] - 1)[1]
        shift = (self.sums[newest] - self.sums[sums]) / n[label][:, None]
        return self.features[slot + place % n[label]] + shift, there[label] > 0

    def _slots(self, label: Tensor, snapshot: Tensor) -> tuple[Tensor, Tensor]:
        """Finds where the features of a snapshot of a class begin, and where their sum is."""
        turn = snapshot % (self.depth[label] + 1)
        return self.first[label] + turn * self.counts[label], self.first_sum[label] + turn
