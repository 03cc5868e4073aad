"""Generator presets: one line a setting, so that their differences can be read off.

A preset says everything about a training but the data, the seed and the budget in use; its own
`kimg` is only the default of that budget.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from stylegan_mix.console import UsageFailure, nearest

__all__ = ["PRESETS", "Preset", "default_preset", "preset_named"]


@dataclass(frozen=True)
class Preset:
    """Networks and training of one class-conditional StyleGAN2.

    `channel_base` / resolution, at most `channel_max`, is the number of channels at a resolution.
    `label_weight` scales the label embedding against z, `label_noise` is the standard deviation
    of the Gaussian noise added to it in training. Reals are drawn with class probability in
    proportion to n_c ** `real_power`, generator labels to n_c ** `label_power`: 1 follows the
    data, 0 is uniform. `r1_interval` is in steps, `ema_kimg` the half-life of the moving average
    of weights in thousands of images, at most `ema_ramp` of what was seen. `augment` is a
    DiffAugment policy. `kimg` is the default budget.
    """

    name: str
    resolution: int
    channel_base: int
    channel_max: int
    z_dim: int
    w_dim: int
    mapping_layers: int
    discriminator: str
    minibatch_std_group: int
    label_weight: float
    label_noise: float
    batch: int
    lr: float
    r1_gamma: float
    r1_interval: int
    ema_kimg: float
    ema_ramp: float
    augment: str
    real_power: float
    label_power: float
    precision: str
    kimg: float

    def plain(self) -> dict[str, Any]:
        """The preset as plain data, without the default budget: what names a training."""
        values = asdict(self)
        del values["kimg"]
        return values


# Published `cifar` configuration of StyleGAN2-ADA (methods dossier 1.6): 512 channels, R1 0.01,
# EMA 500 kimg, mapping of 2 layers, `orig` discriminator, batch 64, minibatch-std group 32.
# `tiny8` and `cpu32` weigh the label down and add noise to it because plain conditioning
# collapses inside the classes; tools/results has the measurements.
_FIELDS = tuple(field.name for field in fields(Preset))
_TABLE = """
name    resolution channel_base channel_max z_dim w_dim mapping_layers discriminator minibatch_std_group label_weight label_noise batch lr     r1_gamma r1_interval ema_kimg ema_ramp augment                  real_power label_power precision kimg
tiny8   8          256          32          32    32    2              orig          4                   0.2          0.3         64    0.0025 1.0      16          10       0.05     none                     0.5        0.5         float32   300
cpu32   32         2048         64          128   128   2              orig          4                   0.4          0.3         32    0.0025 0.1      16          20       0.05     color,translation,cutout 0.5        0.5         bfloat16  200
cifar   32         16384        512         512   512   2              orig          32                  1.0          0.0         64    0.0025 0.01     16          500      0.05     none                     1.0        1.0         float32   100000
"""


def _parse(table: str) -> dict[str, Preset]:
    header, *lines = [line.split() for line in table.strip().splitlines()]
    if tuple(header) != _FIELDS:
        raise ValueError(f"the preset table must have the columns {_FIELDS}, got {header}")
    types = {"str": str, "int": int, "float": float}
    kinds = [types[str(field.type)] for field in fields(Preset)]
    rows = [[kind(cell) for kind, cell in zip(kinds, line, strict=True)] for line in lines]
    return {preset.name: preset for preset in (Preset(*row) for row in rows)}


PRESETS = _parse(_TABLE)


def preset_named(name: str) -> Preset:
    """The preset of that name; `UsageFailure` (exit code 2) names the nearest otherwise."""
    if name not in PRESETS:
        raise UsageFailure(f"no preset '{name}'{nearest(name, PRESETS)}")
    return PRESETS[name]


def default_preset(resolution: int, *, cuda: bool) -> Preset:
    """The preset that a data set of this resolution gets when none is asked for."""
    if cuda and resolution == 32:
        return PRESETS["cifar"]
    fitting = [preset for preset in PRESETS.values() if preset.resolution == resolution]
    if not fitting:
        known = sorted({preset.resolution for preset in PRESETS.values()})
        raise UsageFailure(
            f"no preset for {resolution} pixels; there are presets for {known}. Prepare the data "
            "set at one of these sizes: stylegan-mix dataset prepare NAME --from PATH --size 32"
        )
    return fitting[0]
