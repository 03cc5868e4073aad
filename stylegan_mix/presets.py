"""Generator presets: a column each, so that their differences can be read off.

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
# collapses inside the classes: on the digits, at a label weight of 0.2 the classes were confused
# for long, at 0.5 the diversity of some fell below 0.6.
_TABLE = """
name                 tiny8    cpu32                     cifar
resolution           8        32                        32
channel_base         256      2048                      32768
channel_max          32       64                        512
z_dim                32       128                       512
w_dim                32       128                       512
mapping_layers       2        2                         2
discriminator        orig     orig                      orig
minibatch_std_group  4        4                         32
label_weight         0.4      0.4                       1.0
label_noise          0.5      0.3                       0.0
batch                32       32                        64
lr                   0.0025   0.0025                    0.0025
r1_gamma             1.0      0.1                       0.01
r1_interval          16       16                        16
ema_kimg             10       20                        500
ema_ramp             0.05     0.05                      0.05
augment              none     color,translation,cutout  none
real_power           0.25     0.5                       1.0
label_power          0.25     0.5                       1.0
precision            float32  bfloat16                  float32
kimg                 250      200                       100000
"""
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float}


def _parse(table: str) -> dict[str, Preset]:
    rows = [line.split() for line in table.strip().splitlines()]
    kinds = {field.name: _TYPES[str(field.type)] for field in fields(Preset)}
    if [row[0] for row in rows] != list(kinds):
        raise ValueError(f"the preset table must have the rows {list(kinds)}, got {rows}")
    columns = zip(*(row[1:] for row in rows), strict=True)
    presets = [
        Preset(**{name: kinds[name](cell) for name, cell in zip(kinds, column, strict=True)})
        for column in columns
    ]
    return {preset.name: preset for preset in presets}


PRESETS = _parse(_TABLE)


def preset_named(name: str) -> Preset:
    """The preset of that name; `UsageFailure` (exit code 2) names the nearest otherwise."""
    if name not in PRESETS:
        raise UsageFailure(f"no preset '{name}'{nearest(name, PRESETS)}")
    return PRESETS[name]


def default_preset(resolution: int) -> Preset:
    """The preset that a data set of this resolution gets when none is asked for.

    The first of that resolution in the table; `UsageFailure` (exit code 2) if there is none.
    """
    fitting = [preset for preset in PRESETS.values() if preset.resolution == resolution]
    if not fitting:
        known = sorted({preset.resolution for preset in PRESETS.values()})
        raise UsageFailure(
            f"no preset for {resolution} pixels; there are presets for {known}. Prepare the data "
            "set at one of these sizes: stylegan-mix dataset prepare NAME --from PATH --size 32"
        )
    return fitting[0]
