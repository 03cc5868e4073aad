"""Operations of convolutions that an image takes, and the device's peak rate of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from kernels.selfcheck import forced
from stylegan_mix.presets import Preset
from tools.bench.generator import begun

__all__ = ["convolution_work", "peak_call", "work_of_jobs"]

# A backward pass costs two forward ones, or one if weights need no gradient. The generator's phase
# has three G and two D passes, the discriminator's one G and six D (counted in training/step.py).
_GENERATOR_PASSES, _DISCRIMINATOR_PASSES = 4, 8
# R1 costs six forward passes of the discriminator, as measured.
_R1_PASSES = 6


def convolution_work(preset: Preset, device: torch.device) -> dict[str, float]:
    """Counts operations of convolutions for one image: a generator and a discriminator pass.

    Counted on a device with compiled operators: their filters are no convolutions, and PyTorch's
    would be counted as such. A 3x3 convolution counts as the sum over its taps, for every way of
    computing it.
    """
    preset = dataclasses.replace(preset, precision="float32")
    state = begun(preset, device)
    ws = torch.randn(4, state.generator.num_ws, preset.w_dim, device=device)
    images = torch.randn(4, 3, 32, 32, device=device)
    labels = torch.zeros(4, dtype=torch.int64, device=device)
    calls = {
        "generator": lambda: state.generator.synthesis(ws),
        "discriminator": lambda: state.discriminator(images, labels),
    }
    found = {}
    for name, call in calls.items():
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.kernels.conv3x3: _taps})
        with forced("native"), torch.no_grad(), counter:
            call()
        counts = counter.get_flop_counts()["Global"]
        # To-RGB is a convolution too, as one product for each sample.
        kinds = ("conv", "bmm")
        found[name] = sum(n for kind, n in counts.items() if any(k in str(kind) for k in kinds)) / 4
    return found


def _taps(x: Sequence[int], *_: object, out_shape: Sequence[int], **__: object) -> int:
    """Counts a 3x3 convolution of images of the shape x."""
    return 2 * math.prod(out_shape) * 9 * x[1]


def work_of_jobs(preset: Preset, device: torch.device) -> dict[str, float]:
    """Counts operations of convolutions for one image of `generation` and of `training`."""
    work = convolution_work(preset, device)
    lazy = _R1_PASSES / preset.r1_interval
    return {
        "generation": work["generator"],
        "training": _GENERATOR_PASSES * work["generator"]
        + (_DISCRIMINATOR_PASSES + lazy) * work["discriminator"],
    }


def peak_call(
    channels: int, dtype: torch.dtype, batch: int, device: torch.device
) -> tuple[Callable[[], object], float]:
    """Makes a 3x3 convolution at 32 pixels, channels last, with twice its multiply-adds."""
    x = torch.randn(batch, channels, 32, 32, device=device)
    x = x.to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    weight = weight.to(dtype, memory_format=torch.channels_last)
    work = 2.0 * batch * 32 * 32 * 9 * channels**2
    return lambda: functional.conv2d(x, weight, padding=1), work
