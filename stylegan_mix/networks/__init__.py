"""StyleGAN2: mapping and synthesis network, discriminator (Karras et al. 2020, CVPR and NeurIPS).

The layers have the names of the published checkpoints, and so have the keys of `state_dict()`. Only
the constant resampling filters, which are no state here, are missing.
"""

from __future__ import annotations

from stylegan_mix.networks.discriminator import Discriminator
from stylegan_mix.networks.generator import Generator, to_uint8

__all__ = ["Discriminator", "Generator", "to_uint8"]
