"""ResNets for photographs: a 7x7 stem, then four groups of blocks of 64 to 512 base channels.

Tables of the field on ImageNet-LT, Places-LT and iNaturalist use these at 224 pixels. `N` batch,
`C` image channels, `H W` pixels. The last maps have a 32nd of the image's side, rounded up; any
side from 1 pixel on works.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.classifier import Classifier

__all__ = ["LargeResNet"]

BASES = (64, 128, 256, 512)
_WIDER = 4  # the output of a bottleneck, in units of its base
_SHARED = 2  # groups of blocks before the experts part


class LargeResNet(Classifier):
    """The ResNet for photographs, with projections where a shortcut changes shape ("option B").

    depths: blocks of each of the four groups. form: "basic" is two 3x3 convolutions and gives 512
    features; "bottleneck" is 1x1, 3x3, 1x1 and gives 2,048 (He et al. 2016, table 1 and Fig. 5).
    paths, width: the 3x3 convolution of a bottleneck has `paths` groups of `width` channels in the
    first group of blocks, twice as many in each later one (Xie et al. 2017, table 1: 32 and 4);
    one path of 64 channels is the plain bottleneck. experts: of several, each has the last two
    groups of blocks for itself, at full width, as in RIDE (Wang et al. 2021); their maps lie side
    by side, so there are as many times more features.

    The stride of a bottleneck lies in its 3x3 convolution, as in the code of the field and in Xie
    et al.; in He et al. it lies in the first 1x1. The numbers of parameters are the same, and
    ResNet-50 has 4.1 instead of 3.8 thousand million multiply-adds. The last batch norm of a block
    begins at one, not at zero, as in the code of the long-tailed methods.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        channels: int,
        *,
        form: Literal["basic", "bottleneck"],
        paths: int = 1,
        width: int = 64,
        experts: int = 1,
    ) -> None:
        wider = 1 if form == "basic" else _WIDER
        super().__init__(width=BASES[-1] * wider * experts)
        self.stem = nn.Conv2d(channels, BASES[0], 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(BASES[0])

        def groups(first: int, last: int) -> nn.Sequential:
            """Makes the blocks of some groups, one after another."""
            layers: list[nn.Module] = []
            before = BASES[first - 1] * wider if first else BASES[0]
            for base, depth in zip(BASES[first:last], depths[first:last], strict=True):
                for index in range(depth):
                    stride = 2 if index == 0 and base != BASES[0] else 1
                    if form == "basic":
                        layers.append(Basic(before, base, stride))
                    else:
                        inner = paths * width * base // BASES[0]
                        layers.append(Bottleneck(before, inner, base * wider, stride, paths))
                    before = base * wider
            return nn.Sequential(*layers)

        shared = len(BASES) if experts == 1 else _SHARED
        self.blocks = groups(0, shared)
        own = experts if experts > 1 else 0
        self.experts = nn.ModuleList(groups(shared, len(BASES)) for _ in range(own))

    def maps(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.stem_norm(self.stem(images)))
        maps: Tensor = self.blocks(F.max_pool2d(hidden, 3, stride=2, padding=1))
        if not self.experts:
            return maps
        return torch.cat([expert(maps) for expert in self.experts], dim=1)


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, Fig. 5 left)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = projection(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:  # [N, before, H, W] -> [N, after, H', W']
        hidden = F.relu(self.norm1(self.conv1(x)))
        hidden = self.norm2(self.conv2(hidden))
        return F.relu(hidden + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 of `paths` groups and a 1x1 convolution beside a shortcut.

    He et al. 2016, Fig. 5 right; Xie et al. 2017, Fig. 3 (c).
    """

    def __init__(self, before: int, inner: int, after: int, stride: int, paths: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=paths, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(after)
        self.shortcut = projection(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:  # [N, before, H, W] -> [N, after, H', W']
        hidden = F.relu(self.norm1(self.conv1(x)))
        hidden = F.relu(self.norm2(self.conv2(hidden)))
        hidden = self.norm3(self.conv3(hidden))
        return F.relu(hidden + self.shortcut(x))


def projection(before: int, after: int, stride: int) -> nn.Module:
    """Makes a shortcut: the identity, or a 1x1 convolution where the shape changes: option B."""
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
    )
