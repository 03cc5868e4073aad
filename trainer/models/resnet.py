"""ResNets for small images (He et al. 2016, section 4.2): 6n + 2 layers of 16, 32, 64 channels.

`N` batch, `C` image channels, `H W` pixels, 64 features. Any image side from 8 to 64 pixels works:
two strides of 2, then a global average.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.classifier import Classifier
from trainer.models.layers import convolved, normed

__all__ = ["ExpertResNet", "ResNet"]

WIDTHS = (16, 32, 64)


class ResNet(Classifier):
    """The CIFAR ResNet of 6 * `blocks` + 2 layers with parameter-free ("option A") shortcuts."""

    def __init__(self, blocks: int, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__(width=widths[-1])
        self.stem = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = _rows_of_blocks(WIDTHS[0], widths, blocks)

    def maps(self, images: Tensor) -> Tensor:
        maps: Tensor = self.blocks(normed(self.stem_norm, self.stem(images)))
        return maps


class ExpertResNet(ResNet):
    """The CIFAR ResNet in which every expert has the two later widths for itself.

    Stem and first width are shared, as in RIDE (Wang et al. 2021) for CIFAR, at full width. The
    maps of all experts lie side by side, so there are `experts` times 64 features.
    """

    def __init__(self, blocks: int, channels: int, experts: int) -> None:
        super().__init__(blocks, channels, WIDTHS[:1])
        self.width = experts * WIDTHS[-1]
        self.experts = nn.ModuleList(
            _rows_of_blocks(WIDTHS[0], WIDTHS[1:], blocks) for _ in range(experts)
        )

    def maps(self, images: Tensor) -> Tensor:
        shared = super().maps(images)
        return torch.cat([expert(shared) for expert in self.experts], dim=1)


def _rows_of_blocks(before: int, widths: Sequence[int], count: int) -> nn.Sequential:
    """Makes `count` blocks of each width after maps of `before` channels."""
    layers: list[nn.Module] = []
    for width in widths:
        for index in range(count):
            stride = 2 if index == 0 and width != WIDTHS[0] else 1
            layers.append(Block(before, width, stride))
            before = width
    return nn.Sequential(*layers)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, Fig. 2 left)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride, self.extra = stride, width - before

    def forward(self, x: Tensor) -> Tensor:  # [N, before, H, W] -> [N, width, H', W']
        hidden = normed(self.norm1, convolved(self.conv1, x))
        hidden = convolved(self.conv2, hidden)
        return normed(self.norm2, hidden, shortcut(x, self.stride, self.extra))


def shortcut(x: Tensor, stride: int, extra: int) -> Tensor:
    """Takes every `stride`-th pixel, and zeros as new channels: option A (He et al. 2016, 4.2)."""
    if stride == 1 and extra == 0:
        return x
    half = extra // 2
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, half, extra - half))
