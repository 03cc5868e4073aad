"""Generator presets: a column each, so that their differences can be read off.

A preset fixes everything about a training except the data, the seed and the actual budget; its own
`kimg` is only the default budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from stylegan_mix.datasets.trained_sizes import SIZES, TRAINED, nearest_size
from stylegan_mix.errors import UsageFailure, nearest

__all__ = ["PRESETS", "Preset", "default_preset", "preset_named", "preset_of"]


@dataclass(frozen=True)
class Preset:
    """Networks and training of one class-conditional StyleGAN2.

    Networks: the number of channels at a resolution is `channel_base` / resolution, at most
    `channel_max`. `label_weight` scales the label embedding against z. `label_noise` is the
    standard deviation of the Gaussian noise added to it in training, `critic_label_noise` that in
    the discriminator's label mapper. `precision` is that of the convolutions. `mixed` is float32 on
    a CPU and, as in published configurations, two bytes on a GPU: bfloat16 if that is native, else
    float16.

    Training: real images are drawn with class probability in proportion to n_c ** `real_power`,
    generator labels to n_c ** `label_power`: 1 follows the data, 0 is uniform. Regularisers are
    applied every `r1_interval` and `path_interval` steps, multiplied by the interval. As published,
    an interval corrects the optimiser of its network even if the weight is 0. `merged_r1` takes the
    loss on reals and R1 from one pass of the discriminator. `ema_kimg` is the half-life of the EMA
    of weights in thousands of images, at most `ema_ramp` times the images seen (no ramp at 0).
    `more_ema` lists half-lives of further EMAs, such as "5,80". `augment` names the augmentation,
    `strength` its probability if it has one. That is "adaptive" (towards `ada_target`, from 0 to 1
    in `ada_kimg` at the earliest, per group of `ada_groups`: all, shot or class), or a number,
    which a ramp reaches after `ada_kimg`.

    Safeguards of rare classes, each off by default: `noise_beta` scales label noise by the inverse
    effective number of each class's images. `twins` is the weight of the Barlow loss of NoisyTwins,
    `twins_gamma` that of its off-diagonal part, from `twins_kimg` on. `gsr` is the weight of group
    spectral regularisation, `gsr_beta` the effective number in it. `lecam` is the weight of LeCam,
    from `lecam_kimg` on. With UTLO the label has an effect above `utlo_resolution`, and
    `utlo_weight` is the share of the unconditional loss. From `transition_start` to
    `transition_end` kimg the label fades in. `on_collapse` decides on a collapsed class: `rollback`
    or `go-on`.

    Changes of speed and of the game, off by default: `critic_channels` multiplies the channels of
    the discriminator alone. Up to `grow_start` kimg the images have half the size; from there to
    `grow_end` the last block fades in. With `probe_weight` a second head of the discriminator, of
    that weight, judges features of the probe. The learning rate rises over `lr_warmup` kimg.
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
    path_weight: float = 0.0
    path_interval: int = 0
    style_mixing: float = 0.0
    merged_r1: bool = False
    more_ema: str = ""
    strength: str = "adaptive"
    ada_target: float = 0.6
    ada_kimg: float = 500.0
    ada_groups: str = "all"
    critic_label_noise: float = 0.0
    noise_beta: float = 0.0
    twins: float = 0.0
    twins_gamma: float = 0.05
    twins_kimg: float = 0.0
    gsr: float = 0.0
    gsr_beta: float = 0.99
    lecam: float = 0.0
    lecam_kimg: float = 0.0
    utlo_resolution: int = 0
    utlo_weight: float = 1.0
    transition_start: float = 0.0
    transition_end: float = 0.0
    on_collapse: str = "rollback"
    critic_channels: float = 1.0
    grow_start: float = 0.0
    grow_end: float = 0.0
    probe_weight: float = 0.0
    lr_warmup: float = 0.0

    def critic_widths(self) -> tuple[int, int]:
        """Computes base and maximum of the discriminator's channels, as `channel_base`, `_max`."""
        factor = self.critic_channels
        return round(self.channel_base * factor), round(self.channel_max * factor)

    def plain(self) -> dict[str, Any]:
        """Lists the preset as plain data, without the default budget: it names a training.

        Later fields at their default are left out. So the name of a training does not change when a
        switch is added that it does not use.
        """
        values = asdict(self)
        del values["kimg"]
        return {name: value for name, value in values.items() if value != _DEFAULTS.get(name)}

    def adapts_strength(self) -> bool:
        """True if the strength of the augmentation follows the discriminator."""
        return self.augment.split(":")[0] == "ada" and self.strength == "adaptive"

    def half_lives(self) -> list[float]:
        """Parses the half-lives of `more_ema` in kimg; else `UsageFailure` (exit code 2)."""
        words = [word for word in self.more_ema.split(",") if word.strip()]
        try:
            found = [float(word) for word in words]
        except ValueError:
            found = [0.0]
        if any(not 0 < value < float("inf") for value in found):
            raise UsageFailure(
                "--more-ema must be positive numbers (thousands of images) such as 5,80, got "
                f"'{self.more_ema}'"
            )
        return found


_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}
_KINDS = {field.name: _TYPES[str(field.type)] for field in fields(Preset)}
_DEFAULTS = {field.name: field.default for field in fields(Preset) if field.default is not MISSING}


# For a CPU: a few hours on two cores. From `cpu16` on, a resolution has the same channels in each
# of them, so a larger size only adds blocks. `tiny8` and `cpu32` have a low label weight and label
# noise, because plain conditioning collapses inside the classes. On the digits, the classes were
# confused for long at a label weight of 0.2, and the diversity of some fell below 0.6 at 0.5.
# `cpu32` has no augmentation, since at its budget DiffAugment cost more than it gave. It computes
# in float32, since bfloat16 was not shown to be as good (tables in tools/results/README.md). The
# others take the settings of `cpu32`. Above 32 pixels their R1 grows with pixels / batch, as in
# `auto`. Their quality has not been measured.
_FOR_CPUS = """
name                 tiny8    cpu16    cpu32    cpu64    cpu128
resolution           8        16       32       64       128
channel_base         256      2048     2048     2048     2048
channel_max          32       64       64       64       64
z_dim                32       128      128      128      128
w_dim                32       128      128      128      128
mapping_layers       2        2        2        2        2
discriminator        orig     orig     orig     orig     orig
minibatch_std_group  4        4        4        4        4
label_weight         0.4      0.4      0.4      0.4      0.4
label_noise          0.5      0.3      0.3      0.3      0.3
batch                32       32       32       32       16
lr                   0.0025   0.0025   0.0025   0.0025   0.0025
r1_gamma             1.0      0.1      0.1      0.4      3.2
r1_interval          16       16       16       16       16
path_interval        0        0        0        0        0
ema_kimg             10       20       20       20       20
ema_ramp             0.05     0.05     0.05     0.05     0.05
augment              none     none     none     none     none
real_power           0.25     0.5      0.5      0.5      0.5
label_power          0.25     0.5      0.5      0.5      0.5
precision            float32  float32  float32  float32  float32
kimg                 250      400      200      200      150
"""

# `cifar` is the published configuration of StyleGAN2-ADA (Karras et al. 2020) for 32 pixels: 512
# channels, R1 0.01, EMA 500 kimg, mapping of 2 layers, `orig` discriminator, batch 64,
# minibatch-std group 32. `cifar-lt` is `cifar` with the conditioning of `cpu32`, adaptive
# augmentation by shot group, and EMA and speed of adaptation for 2,000 kimg. At the size and budget
# of `cpu32` that combination is the best one measured (`label-plain`: the strength stays at 0, and
# a lower target makes no visible difference). At its own size and budget it has not been measured.
# `gpu8` and `gpu16` are `cifar-lt` at their sizes. `gpu64` and `gpu128` take from the published
# `auto` (see `auto_preset`) networks, batch, R1, path length, style mixing and EMA, and from
# `cifar-lt` conditioning, draws and augmentation. Their quality was not measured.
_FOR_ONE_GPU = """
name                 gpu8     gpu16    cifar    cifar-lt gpu64    gpu128
resolution           8        16       32       32       64       128
channel_base         32768    32768    32768    32768    16384    16384
channel_max          512      512      512      512      512      512
z_dim                512      512      512      512      512      512
w_dim                512      512      512      512      512      512
mapping_layers       2        2        2        2        2        2
discriminator        orig     orig     orig     orig     resnet   resnet
minibatch_std_group  4        4        32       4        4        4
label_weight         0.4      0.4      1.0      0.4      0.4      0.4
label_noise          0.3      0.3      0.0      0.3      0.3      0.3
batch                64       64       64       64       32       32
lr                   0.0025   0.0025   0.0025   0.0025   0.0025   0.0025
r1_gamma             0.01     0.01     0.01     0.01     0.0256   0.1024
r1_interval          16       16       16       16       16       16
path_weight          0        0        0        0        2        2
path_interval        4        4        4        4        4        4
style_mixing         0        0        0        0        0.9      0.9
ema_kimg             50       50       500      50       10       10
ema_ramp             0.05     0.05     0.05     0.05     0.05     0.05
augment              ada      ada      ada      ada      ada      ada
ada_groups           shot     shot     all      shot     shot     shot
ada_kimg             100      100      500      100      100      100
real_power           0.5      0.5      1.0      0.5      0.5      0.5
label_power          0.5      0.5      1.0      0.5      0.5      0.5
precision            mixed    mixed    mixed    mixed    mixed    mixed
kimg                 1000     1000     100000   2000     3000     4000
"""


def _parse(table: str) -> dict[str, Preset]:
    rows = [line.split() for line in table.strip().splitlines()]
    names = [row[0] for row in rows]
    wanted = [name for name in _KINDS if name in names or name not in _DEFAULTS]
    if sorted(names) != sorted(wanted):
        raise ValueError(f"the preset table must have the rows {wanted}, got {names}")
    columns = zip(*(row[1:] for row in rows), strict=True)
    presets = []
    for column in columns:
        cells = zip(names, column, strict=True)
        presets.append(Preset(**{name: _KINDS[name](cell) for name, cell in cells}))
    return {preset.name: preset for preset in presets}


PRESETS = _parse(_FOR_CPUS) | _parse(_FOR_ONE_GPU)


def auto_preset(resolution: int) -> Preset:
    """Makes the published `auto` configuration of StyleGAN2-ADA for one GPU, 8 to 256 pixels.

    Half the channels, residual discriminator, R1 by 0.0002 R^2 / batch, path length 2, style mixing
    0.9, adaptive augmentation (Karras et al. 2020). One thing differs above 64 pixels: all
    resolutions from 8 on compute in low precision, in the publication only the four highest.
    """
    batch = min(4096 // resolution, 32)
    return Preset(
        name="auto",
        resolution=resolution,
        channel_base=16384,
        channel_max=512,
        z_dim=512,
        w_dim=512,
        mapping_layers=2,
        discriminator="resnet",
        minibatch_std_group=4,
        label_weight=1.0,
        label_noise=0.0,
        batch=batch,
        lr=0.0025,
        r1_gamma=0.0002 * resolution**2 / batch,
        r1_interval=16,
        ema_kimg=batch * 10 / 32,
        ema_ramp=0.05,
        augment="ada",
        real_power=1.0,
        label_power=1.0,
        precision="mixed",
        kimg=25000.0,
        path_weight=2.0,
        path_interval=4,
        style_mixing=0.9,
    )


def preset_named(name: str, resolution: int) -> Preset:
    """Looks up the preset of that name and resolution; else `UsageFailure` (exit code 2)."""
    if name == "auto":
        if resolution not in SIZES:
            raise UsageFailure(
                f"preset 'auto' is for 8, 16, 32, ... {SIZES[-1]} pixels, not {resolution}",
                remedy=_sized(resolution),
            )
        return auto_preset(resolution)
    if name not in PRESETS:
        raise UsageFailure(f"no preset '{name}'{nearest(name, [*PRESETS, 'auto'])}")
    preset = PRESETS[name]
    if preset.resolution != resolution:
        raise UsageFailure(
            f"preset '{name}' is for {preset.resolution} pixels, the data set has {resolution}",
            remedy=f"--preset auto, or {default_preset(resolution).name}",
        )
    return preset


def preset_of(values: Mapping[str, Any]) -> Preset:
    """Makes the preset of these values from a file; ValueError if they are invalid."""
    missing = [name for name in _KINDS if name not in values and name not in _DEFAULTS]
    if missing:
        raise ValueError(f"the preset lacks {', '.join(missing)}")
    for name, value in values.items():
        if name not in _KINDS:
            raise ValueError(f"the preset has the unknown field '{name}'")
        kind = _KINDS[name]
        if type(value) not in ((int, float) if kind is float else (kind,)):
            raise ValueError(f"'{name}' of the preset must be {kind.__name__}, got {value!r:.40}")
    return Preset(**values)


def default_preset(resolution: int, device: str = "cpu", *, dataset: str = "") -> Preset:
    """Chooses the preset for a data set of this resolution on this device, if none is named.

    The one of that size for a CPU, or on CUDA for one GPU; `auto` for sizes that have none.
    `dataset` is the name of a built-in data set, which may have its own.
    """
    if dataset in _BY_DATASET:
        return preset_named(_BY_DATASET[dataset], resolution)
    if resolution not in SIZES:
        raise UsageFailure(
            f"no preset trains a generator of {resolution} pixels: {TRAINED}",
            remedy=_sized(resolution),
        )
    names = _DEFAULT_ON_GPU if device.startswith("cuda") else _DEFAULT_ON_CPU
    return preset_named(names.get(resolution, "auto"), resolution)


_DEFAULT_ON_CPU = {8: "tiny8", 16: "cpu16", 32: "cpu32", 64: "cpu64", 128: "cpu128"}
_DEFAULT_ON_GPU = {8: "gpu8", 16: "gpu16", 32: "cifar-lt", 64: "gpu64", 128: "gpu128"}
# So small a set gains nothing from the networks of a GPU.
_BY_DATASET = {"digits_lt": "tiny8"}


def _sized(resolution: int) -> str:
    return (
        "prepare the data set at such a size: stylegan-mix dataset prepare NAME --from PATH "
        f"--size {nearest_size(resolution)}"
    )
