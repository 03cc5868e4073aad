"""StyleGAN2-ADA checkpoints: published parameter names and construction settings -> our networks.

Our layers carry the published names. The published state also lists the constant resampling
filters, which are checked here and dropped. `state` maps names to arrays. `meta` holds `c_dim`,
`resolution`, `img_channels`, and under `G` and `D` the keyword arguments of the two networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from kernels import setup_filter
from stylegan_mix.errors import InvalidInput
from stylegan_mix.networks import Discriminator, Generator
from stylegan_mix.networks.layers import RESAMPLING_TAPS, Resampler
from stylegan_mix.networks.shape import Architecture
from stylegan_mix.showing import shown

__all__ = [
    "check_bounds",
    "discriminator",
    "fill_generator",
    "generator",
    "generator_settings",
    "listed",
    "published_names",
    "published_shapes",
    "some",
]

FILTER = "resample_filter"


def generator(
    state: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    compute_dtype: torch.dtype = torch.float32,
) -> Generator:
    """Builds a generator with the published weights, in evaluation mode.

    `InvalidInput` names missing, unexpected and misshapen entries of `state`, and settings in
    `meta` that have no counterpart here.
    """
    return fill_generator(state, generator_settings(meta), compute_dtype=compute_dtype)


def fill_generator(
    state: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    filters: bool = True,
    compute_dtype: torch.dtype = torch.float32,
) -> Generator:
    """Builds the generator of these keyword arguments with the published weights.

    `filters` tells if `state` lists the resampling filters. Errors as in `generator`.
    """

    def build() -> Generator:
        return Generator(**settings, compute_dtype=compute_dtype)

    network: Generator = _fill(build, state, "generator", filters=filters)
    return network


def published_shapes(settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Lists names and shapes of a generator's state, without the filters; nothing is built."""
    with torch.device("meta"):
        blank = Generator(**settings)
    return _shapes(blank)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in network.state_dict().items()}


def generator_settings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Turns published settings into keyword arguments of our generator, each within bounds.

    The published resolutions in half precision are left out: they change nothing but speed.
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
    found = {
        **settings.shared(),
        "z_dim": own["z_dim"],
        "w_dim": own["w_dim"],
        "mapping_layers": mapping["num_layers"],
        "channel_base": synthesis["channel_base"],
        "channel_max": synthesis["channel_max"],
        "architecture": synthesis["architecture"],
        "conv_clamp": synthesis["conv_clamp"],
    }
    check_bounds(found)
    return found


# Keyword argument of the generator -> smallest and largest value. No trained network lies beyond
# them; a file that declares more asks for memory and time.
_BOUNDS = {
    "resolution": (8, 4096),
    "image_channels": (1, 64),
    "classes": (0, 1 << 16),
    "z_dim": (1, 1 << 14),
    "w_dim": (1, 1 << 14),
    "mapping_layers": (1, 64),
    "channel_base": (1, 1 << 28),
    "channel_max": (1, 1 << 14),
}


def check_bounds(settings: Mapping[str, Any]) -> None:
    """Raises `InvalidInput` for keyword arguments of a generator beyond all trained networks."""
    problems = [
        f"{name} must be a whole number from {low} to {high}, got {shown(settings[name])}"
        for name, (low, high) in _BOUNDS.items()
        if type(settings[name]) is not int or not low <= settings[name] <= high
    ]
    resolution, clamp = settings["resolution"], settings["conv_clamp"]
    architecture = settings["architecture"]
    if not problems and resolution & (resolution - 1):
        problems.append(f"resolution must be a power of 2, got {resolution}")
    if not problems and settings["channel_base"] < resolution:
        problems.append(f"channel_base must be at least the resolution, {resolution}")
    if type(architecture) is not str or architecture not in get_args(Architecture):
        known = ", ".join(get_args(Architecture))
        problems.append(f"architecture must be one of {known}, got {shown(architecture)}")
    number = type(clamp) in (int, float) and math.isfinite(clamp) and clamp > 0
    if clamp is not None and not number:
        problems.append(f"conv_clamp must be a positive number, got {shown(clamp)}")
    if problems:
        raise InvalidInput(f"network settings: {'; '.join(problems)}")


def discriminator(
    state: Mapping[str, Any],
    meta: Mapping[str, Any],
    *,
    compute_dtype: torch.dtype = torch.float32,
) -> Discriminator:
    """Builds a discriminator with the published weights, in evaluation mode; errors as above."""
    settings = _Settings(meta, "D")
    mapping = settings.nested("mapping_kwargs", {"num_layers": 8})
    epilogue = settings.nested("epilogue_kwargs", {"mbstd_group_size": 4})
    group = epilogue["mbstd_group_size"]  # None: the whole batch
    if group is not None and (type(group) is not int or group < 1):
        raise InvalidInput(
            f"network settings: mbstd_group_size must be a whole number from 1 or null, got "
            f"{shown(group)}"
        )
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

    def build() -> Discriminator:
        return Discriminator(
            **settings.shared(),
            channel_base=own["channel_base"],
            channel_max=own["channel_max"],
            architecture=own["architecture"],
            minibatch_std_group=group,
            mapping_layers=mapping["num_layers"],
            conv_clamp=own["conv_clamp"],
            compute_dtype=compute_dtype,
        )

    network: Discriminator = _fill(build, state, "discriminator")
    return network


def published_names(network: nn.Module) -> list[str]:
    """Lists the parameters and buffers in the published state of `network`, sorted by name."""
    return sorted([*network.state_dict(), *_filters(network)])


def _filters(network: nn.Module) -> list[str]:
    """Lists the names of the resampling filters in a published state."""
    holders = (name for name, one in network.named_modules() if isinstance(one, Resampler))
    return [f"{name}.{FILTER}" for name in holders]


# --------------------------------------------------------------------- settings


class _Settings:
    """The part of `meta` that describes one network; an unknown entry is an error."""

    def __init__(self, meta: Mapping[str, Any], part: str) -> None:
        missing = [key for key in ("c_dim", "resolution", "img_channels", part) if key not in meta]
        if missing:
            raise InvalidInput(f"network settings lack {', '.join(missing)}")
        self.meta, self.part, self.own = meta, part, dict(meta[part])

    def shared(self) -> dict[str, Any]:
        """Reads the settings of both networks."""
        return {
            "resolution": self.meta["resolution"],
            "image_channels": self.meta["img_channels"],
            "classes": self.meta["c_dim"],
        }

    def nested(self, key: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """Reads the settings under `key`, with the published defaults."""
        return self._known(self.own.get(key, {}), defaults, f"{self.part}.{key}")

    def flat(self, defaults: dict[str, Any], nested: tuple[str, ...]) -> dict[str, Any]:
        """Reads the network's own settings, except those under `nested`, with their defaults."""
        given = {key: value for key, value in self.own.items() if key not in nested}
        return self._known(given, defaults, self.part)

    def _known(
        self, given: Mapping[str, Any], defaults: dict[str, Any], where: str
    ) -> dict[str, Any]:
        unknown = [key for key in given if key not in defaults]
        if unknown:
            raise InvalidInput(
                f"network settings {where} have no counterpart here for "
                f"{', '.join(map(shown, unknown[:8]))}; known: {', '.join(defaults)}"
            )
        return {**defaults, **given}


# --------------------------------------------------------------------- state


def _fill(
    build: Callable[[], nn.Module], state: Mapping[str, Any], what: str, *, filters: bool = True
) -> Any:
    """Builds the network with `state` in it, after every name and shape has been checked."""
    with torch.device("meta"):
        blank = build()
    taps = setup_filter(RESAMPLING_TAPS)
    shapes, constants = _shapes(blank), _filters(blank) if filters else []
    expected = {**shapes, **dict.fromkeys(constants, tuple(taps.shape))}
    problems = [
        *listed("missing", [name for name in expected if name not in state]),
        *listed("unexpected", [name for name in state if name not in expected]),
    ]
    arrays = {name: np.asarray(state[name]) for name in expected if name in state}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            problems.append(
                f"{name} has shape {list(array.shape)} instead of {list(expected[name])}"
            )
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            problems.append(f"{name} is not made of finite floating-point numbers")
        elif name in constants and not np.allclose(array, taps.numpy(), atol=1e-6):
            problems.append(f"{name} is not the filter 1, 3, 3, 1, the only one supported")
    if problems:
        raise InvalidInput(f"state of the {what}: {some(problems)}")
    network = build()
    network.load_state_dict(
        {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in shapes}
    )
    return network.eval()


def some(problems: list[str], most: int = 8) -> str:
    """Joins the first problems to one text, with the number of the others."""
    rest = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + rest


def listed(what: str, names: list[str], most: int = 8) -> list[str]:
    """Makes one problem that lists the first names; none if there are no names."""
    if not names:
        return []
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{what} {', '.join(shown(name) for name in sorted(names)[:most])}{rest}"]
