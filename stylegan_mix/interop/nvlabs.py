"""StyleGAN2-ADA checkpoints: published parameter names and construction settings -> our networks.

Our layers carry the published names; the published state also lists the constant resampling
filters, which are checked here and dropped. `state` maps names to arrays, `meta` holds `c_dim`,
`resolution`, `img_channels`, and under `G` and `D` the keyword arguments of the two networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from stylegan_mix.console import InvalidInput
from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.networks.layers import Resampler

__all__ = ["discriminator", "generator", "published_names"]

FILTER = "resample_filter"


def generator(
    state: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    compute_dtype: torch.dtype = torch.float32,
) -> Generator:
    """A generator with the published weights, in evaluation mode.

    `InvalidInput` names missing, unexpected and misshapen entries of `state`, and settings in
    `meta` that have no counterpart here.
    """
    settings = _Settings(meta, "G")
    mapping = settings.nested("mapping_kwargs", {"num_layers": 8})
    synthesis = settings.nested(
        "synthesis_kwargs",
        {
            "channel_base": 32768,
            "channel_max": 512,
            "num_fp16_res": 0,
            "conv_clamp": None,
            "architecture": "skip",
        },
    )
    own = settings.flat({"z_dim": 512, "w_dim": 512}, ("mapping_kwargs", "synthesis_kwargs"))
    network = Generator(
        **settings.shared(),
        z_dim=own["z_dim"],
        w_dim=own["w_dim"],
        mapping_layers=mapping["num_layers"],
        channel_base=synthesis["channel_base"],
        channel_max=synthesis["channel_max"],
        architecture=synthesis["architecture"],
        conv_clamp=synthesis["conv_clamp"],
        compute_dtype=compute_dtype,
    )
    return _fill(network, state, "generator")


def discriminator(
    state: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    compute_dtype: torch.dtype = torch.float32,
) -> Discriminator:
    """A discriminator with the published weights, in evaluation mode; errors as in `generator`."""
    settings = _Settings(meta, "D")
    mapping = settings.nested("mapping_kwargs", {"num_layers": 8})
    epilogue = settings.nested("epilogue_kwargs", {"mbstd_group_size": 4})
    own = settings.flat(
        {
            "architecture": "resnet",
            "channel_base": 32768,
            "channel_max": 512,
            "num_fp16_res": 0,
            "conv_clamp": None,
        },
        ("mapping_kwargs", "epilogue_kwargs"),
    )
    network = Discriminator(
        **settings.shared(),
        channel_base=own["channel_base"],
        channel_max=own["channel_max"],
        architecture=own["architecture"],
        minibatch_std_group=epilogue["mbstd_group_size"],
        mapping_layers=mapping["num_layers"],
        conv_clamp=own["conv_clamp"],
        compute_dtype=compute_dtype,
    )
    return _fill(network, state, "discriminator")


def published_names(network: nn.Module) -> list[str]:
    """All names of parameters and buffers that the published state of `network` has, sorted."""
    return sorted([*network.state_dict(), *_filters(network)])


def _filters(network: nn.Module) -> dict[str, torch.Tensor]:
    """The resampling filters that a published state lists, by name."""
    holders = {name: one for name, one in network.named_modules() if isinstance(one, Resampler)}
    return {f"{name}.{FILTER}": one.resample_filter for name, one in holders.items()}


# --------------------------------------------------------------------- settings


class _Settings:
    """The part of `meta` that describes one network; anything unknown in it is an error."""

    def __init__(self, meta: Mapping[str, Any], part: str) -> None:
        missing = [key for key in ("c_dim", "resolution", "img_channels", part) if key not in meta]
        if missing:
            raise InvalidInput(f"network settings lack {', '.join(missing)}")
        self.meta, self.part, self.own = meta, part, dict(meta[part])

    def shared(self) -> dict[str, int]:
        """What both networks take."""
        return {
            "resolution": self.meta["resolution"],
            "image_channels": self.meta["img_channels"],
            "classes": self.meta["c_dim"],
        }

    def nested(self, key: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """The settings under `key`, with the published defaults."""
        return self._known(self.own.get(key, {}), defaults, f"{self.part}.{key}")

    def flat(self, defaults: dict[str, Any], nested: tuple[str, ...]) -> dict[str, Any]:
        """The network's own settings, but those under `nested`, with the published defaults."""
        given = {key: value for key, value in self.own.items() if key not in nested}
        return self._known(given, defaults, self.part)

    def _known(
        self, given: Mapping[str, Any], defaults: dict[str, Any], where: str
    ) -> dict[str, Any]:
        unknown = [key for key in given if key not in defaults]
        if unknown:
            raise InvalidInput(
                f"network settings {where} have no counterpart here for {', '.join(unknown)}; "
                f"known: {', '.join(defaults)}"
            )
        return {**defaults, **given}


# --------------------------------------------------------------------- state


def _fill(network: Any, state: Mapping[str, Any], what: str) -> Any:
    """The network with `state` in it, after every name and shape has been checked."""
    own, filters = network.state_dict(), _filters(network)
    expected = {**own, **filters}
    problems = [
        *_listed("missing", [name for name in expected if name not in state]),
        *_listed("unexpected", [name for name in state if name not in expected]),
    ]
    arrays = {name: np.asarray(state[name]) for name in expected if name in state}
    for name, array in arrays.items():
        wanted = tuple(expected[name].shape)
        if array.shape != wanted:
            problems.append(f"{name} has shape {list(array.shape)} instead of {list(wanted)}")
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            problems.append(f"{name} is not made of finite floating-point numbers")
        elif name in filters and not np.allclose(array, filters[name].numpy(), atol=1e-6):
            problems.append(f"{name} is not the filter 1, 3, 3, 1, the only one supported")
    if problems:
        raise InvalidInput(f"state of the {what}: {'; '.join(problems)}")
    tensors = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in own}
    network.load_state_dict(tensors)
    return network.eval()


def _listed(what: str, names: list[str], most: int = 8) -> list[str]:
    if not names:
        return []
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{what} {', '.join(sorted(names)[:most])}{rest}"]
