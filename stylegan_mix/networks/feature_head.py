"""A judge of images by the features of a trained network that stays as it is.

`N` batch, `C` channels, `R` pixels, `F` channels of the features, `h w` their positions, `K`
classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from stylegan_mix.networks.layers import Convolution, FullyConnected
from stylegan_mix.networks.mapping import Mapping

__all__ = ["FeatureHead", "FrozenFeatures"]


class FrozenFeatures(nn.Module):
    """A chain relu(conv3x3(x) + b) of constants: images [N,C,R,R] -> features [N,F,h,w].

    `layers` are weight [O,I,3,3], bias [O] and stride of each. They are buffers: saved with the
    network, and never trained.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor, int]]) -> None:
        super().__init__()
        self.strides = [stride for _, _, stride in layers]
        for number, (weight, bias, _) in enumerate(layers):
            self.register_buffer(f"weight{number}", weight.detach().clone())
            self.register_buffer(f"bias{number}", bias.detach().clone())
        self.width = len(layers[-1][1])

    def forward(self, images: Tensor) -> Tensor:
        """Computes the features in float32."""
        x = images.to(torch.float32)
        for number, stride in enumerate(self.strides):
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            x = functional.conv2d(x, weight, bias, stride=stride, padding=1).relu()
        return x


class FeatureHead(nn.Module):
    """Images [N,C,R,R] and label -> logits [N], by frozen features.

    Features of every position pass a layer of their own, and their mean a dense one. The logit is
    the projection of the result on the embedded label (Miyato and Koyama 2018, projection
    discriminator, without the unconditional term), as in the discriminator.
    """

    def __init__(self, features: FrozenFeatures, *, classes: int) -> None:
        super().__init__()
        width = features.width
        self.features = features
        self.conv = Convolution(width, width, 1)
        self.fc = FullyConnected(width, width, act="lrelu")
        self.out = FullyConnected(width, width)
        self.mapping = Mapping(z_dim=0, classes=classes, w_dim=width, layers=1, track_average=False)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        """Judges images in -1 to 1 with label [N] or [N,K]."""
        x = self.conv(self.features(images)).mean(dim=(2, 3))
        x = self.out(self.fc(x))
        return (x * self.mapping(None, label)).sum(dim=1) / math.sqrt(x.shape[1])
