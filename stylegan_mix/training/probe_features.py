"""Features of the probe for the discriminator: constants that are saved with the training.

The probe is the small classifier of the metrics, trained on exactly the training part of the split
(`stylegan_mix.metrics.probe`), so nothing from outside enters. `C` channels, `R` pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stylegan_mix.datasets import Dataset
from stylegan_mix.metrics.probe import SmallNet, ensure_probe
from stylegan_mix.networks import Discriminator
from stylegan_mix.networks.feature_head import FeatureHead, FrozenFeatures
from stylegan_mix.session import Session

__all__ = ["PROBE_SEED", "blank_head", "features_of", "multiplications", "take_probe"]

PROBE_SEED = 0
"""The seed of the probe that a discriminator sees: the default of the metrics."""


def features_of(network: SmallNet) -> FrozenFeatures:
    """Takes the layers of a classifier before its mean over positions, with fixed statistics.

    Batch normalisation with mean m and variance v is the factor g / sqrt(v + eps) on weights, and
    the bias b - m g / sqrt(v + eps) (Ioffe and Szegedy 2015, section 3.1).
    """
    return FrozenFeatures([_layer(*stage.children()) for stage in network.body])


def _layer(convolution: Any, norm: Any, _: nn.Module) -> tuple[Tensor, Tensor, int]:
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias - norm.running_mean * factor
    return convolution.weight * factor[:, None, None, None], bias, convolution.stride[0]


def blank_head(*, resolution: int, channels: int, classes: int) -> FeatureHead:
    """Makes a head on the features of an untrained probe, which `take_probe` replaces."""
    probe = SmallNet(resolution=resolution, channels=channels, classes=classes)
    return FeatureHead(features_of(probe), classes=classes)


def multiplications(resolution: int) -> int:
    """Counts the multiplications of the features of one image of three channels."""
    with torch.device("meta"):
        features = features_of(SmallNet(resolution=resolution, channels=3, classes=1))
    count, size = 0, resolution
    for number, stride in enumerate(features.strides):
        size = -(-size // stride)
        count += size**2 * features.get_buffer(f"weight{number}").numel()
    return count


def take_probe(
    discriminator: Discriminator, dataset: Dataset, device: torch.device, session: Session
) -> None:
    """Gives the discriminator's head the probe of the split, which is trained if there is none."""
    probe = ensure_probe(dataset, PROBE_SEED, device, session)
    assert discriminator.feature_head is not None, "a plan with a probe_weight has this head"
    constants = features_of(probe.network(device)).state_dict()
    discriminator.feature_head.features.load_state_dict(constants)
    session.say(f"the discriminator also sees features of probe {probe.hash[:12]}")
