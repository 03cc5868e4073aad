"""The common PyTorch port of StyleGAN2 (rosinality): its checkpoints -> our networks.

The file is a `.pt` of `torch.save` with the state of the averaged generator under `g_ema`. The port
is unconditional and has the skip architecture. Sizes, layers and channels are not written in the
file; they follow from the shapes. Every tensor is one of ours with one more axis of size 1. Weights
need no flip, and the factor 1 / sqrt(fan-in), which the port applies at run time, cancels in the
demodulation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from kernels import setup_filter
from stylegan_mix import rng
from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop.nvlabs import (
    check_bounds,
    fill_generator,
    listed,
    published_shapes,
    some,
)
from stylegan_mix.interop.torch_files import TENSORS, Tensor
from stylegan_mix.networks import Generator
from stylegan_mix.networks.layers import RESAMPLING_TAPS
from stylegan_mix.networks.shape import block_resolutions
from stylegan_mix.pickles import Left, Names, instead_of
from stylegan_mix.showing import shown

__all__ = ["ADMITTED", "NETWORK", "TAKEN", "network", "settings_and_state"]

NETWORK = "g_ema"
"""The generator whose weights are the moving average."""
AVERAGE = "latent_avg"
"""The mean of w, which some files hold beside the state."""
TAKEN = (NETWORK, AVERAGE)

W_AVG = "mapping.w_avg"
_UP_GAIN = 4
_FILTER_SHAPE = (4, 4)
_SAMPLES_OF_MEAN = 10_000


def _options(_: tuple[Any, ...]) -> Any:
    return Left("options of the training")


ADMITTED: Names = {("argparse", "Namespace"): _options, **TENSORS}
"""The names that such a file refers to."""


def settings_and_state(root: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Finds the generator in the file: our keyword arguments, and state by the port's names."""
    state = root.get(NETWORK) if type(root) is dict else None
    if type(state) is not dict or not state:
        raise InvalidInput(f"it has no state under '{NETWORK}', but {instead_of(root, NETWORK)}")
    for name, tensor in state.items():
        if type(name) is not str or type(tensor) is not Tensor:
            raise InvalidInput(f"its '{shown(name)}' under '{NETWORK}' is no tensor")
    settings = _settings(state)
    average = root.get(AVERAGE)
    if type(average) is Tensor:
        state = {**state, AVERAGE: average}
    return settings, state


def _settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the keyword arguments of our generator off the shapes."""
    try:
        first = state["style.1.weight"].shape
        layers = sum(re.fullmatch(r"style\.\d+\.weight", name) is not None for name in state)
        blocks = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", name) is not None for name in state)
        channels = {4: state["input.input"].shape[1]}
        for index in range(min(blocks, 16)):
            weight = state[f"convs.{2 * index}.conv.weight"]
            channels[8 << index] = weight.shape[1]
        image_channels = state["to_rgb1.bias"].shape[1]
        width, z_dim = first
    except (KeyError, IndexError, ValueError) as error:
        raise InvalidInput(
            f"under '{NETWORK}' is no StyleGAN2 generator of the port: {shown(str(error))}"
        ) from error
    base, most = _channel_rule(channels)
    settings = {
        "resolution": max(channels),
        "image_channels": image_channels,
        "classes": 0,
        "z_dim": z_dim,
        "w_dim": width,
        "mapping_layers": layers,
        "channel_base": base,
        "channel_max": most,
        "architecture": "skip",
        "conv_clamp": None,
    }
    check_bounds(settings)
    return settings


def _channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Finds (base, most) so that min(base // r, most) are the channels at every resolution r."""
    most = max(channels.values())
    base = max(count * size for size, count in channels.items())
    wrong = {size: count for size, count in channels.items() if min(base // size, most) != count}
    if wrong:
        raise InvalidInput(
            f"its channels {dict(channels)} follow no rule min(base / resolution, most), the only "
            "one that our networks have"
        )
    return base, most


# --------------------------------------------------------------------- the network


def network(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> Generator:
    """Builds the generator with the port's arrays in it, in evaluation mode.

    The mean of w is that of the file, or else that of fixed samples. `InvalidInput` names the
    missing, unexpected and misshapen entries in the port's words.
    """
    table = _table(settings)
    given = {name: array for name, array in arrays.items() if name != AVERAGE}
    problems = [
        *listed("missing", [name for name in table if name not in given]),
        *listed("unexpected", [name for name in given if name not in table]),
    ]
    shapes, taps = published_shapes(settings), setup_filter(RESAMPLING_TAPS).numpy()
    width = shapes[W_AVG]
    average = arrays.get(AVERAGE, np.zeros(width, np.float32))
    if average.size != width[0]:
        problems.append(f"{AVERAGE} has shape {list(average.shape)} instead of {list(width)}")
    state = {W_AVG: average}
    for theirs, (ours, shape) in table.items():
        array = given.get(theirs)
        if array is None:
            continue
        if array.shape != shape:
            problems.append(f"{theirs} has shape {list(array.shape)} instead of {list(shape)}")
        elif ours is not None:
            state[ours] = array
        elif not np.allclose(array, _UP_GAIN * taps, atol=1e-5):
            problems.append(f"{theirs} is not the filter 1, 3, 3, 1 for up-sampling by 2")
    if problems:
        raise InvalidInput(f"state under '{NETWORK}': {some(problems)}")
    plain = {name: array.reshape(shapes[name]) for name, array in state.items()}
    built = fill_generator(plain, settings, filters=False)
    if AVERAGE not in arrays:
        built.mapping.w_avg.copy_(_mean_w(built))
    return built


@torch.no_grad()
def _mean_w(built: Generator) -> torch.Tensor:
    """Computes the mean of w [D] over fixed z; truncation needs it to 1 % of its deviation.

    It is rounded far below that, so that two machines agree on every bit and on the weights' hash.
    """
    draws = rng.torch_generator(0, "import.mean")
    z = torch.randn(_SAMPLES_OF_MEAN, built.z_dim, generator=draws)
    return (built.mapping(z, None).mean(dim=0) * 4096).round() / 4096


def _table(settings: Mapping[str, Any]) -> dict[str, tuple[str | None, tuple[int, ...]]]:
    """Maps the port's name of every tensor to our name (None for a filter) and the port's shape."""
    shapes = published_shapes(settings)
    table: dict[str, tuple[str | None, tuple[int, ...]]] = {}

    def add(theirs: str, ours: str, before: int = 0, after: int = 0) -> None:
        table[theirs] = (ours, (1,) * before + shapes[ours] + (1,) * after)

    def add_modulated(theirs: str, ours: str) -> None:
        add(f"{theirs}.conv.weight", f"{ours}.weight", before=1)
        for kind in ("weight", "bias"):
            add(f"{theirs}.conv.modulation.{kind}", f"{ours}.affine.{kind}")

    for layer in range(settings["mapping_layers"]):
        for kind in ("weight", "bias"):
            add(f"style.{layer + 1}.{kind}", f"mapping.fc{layer}.{kind}")
    add("input.input", "synthesis.b4.const", before=1)
    for theirs, ours, noise in _convolutions(settings["resolution"]):
        add_modulated(theirs, ours)
        add(f"{theirs}.noise.weight", f"{ours}.noise_strength", before=1)
        add(f"{theirs}.activate.bias", f"{ours}.bias")
        add(f"noises.noise_{noise}", f"{ours}.noise_const", before=2)
        if ours.endswith("conv0"):
            table[f"{theirs}.conv.blur.kernel"] = (None, _FILTER_SHAPE)
    for index, size in enumerate(block_resolutions(settings["resolution"])):
        theirs = f"to_rgbs.{index - 1}" if index else "to_rgb1"
        add_modulated(theirs, f"synthesis.b{size}.torgb")
        add(f"{theirs}.bias", f"synthesis.b{size}.torgb.bias", before=1, after=2)
        if index:
            table[f"{theirs}.upsample.kernel"] = (None, _FILTER_SHAPE)
    return table


def _convolutions(resolution: int) -> Iterator[tuple[str, str, int]]:
    """Lists the 3x3 layers from 4 pixels up: the port's name, ours, and its noise image."""
    yield "conv1", "synthesis.b4.conv1", 0
    for index, size in enumerate(block_resolutions(resolution)[1:]):
        for half in (0, 1):
            number = 2 * index + half
            yield f"convs.{number}", f"synthesis.b{size}.conv{half}", number + 1
