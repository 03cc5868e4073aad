"""The series of a training's log in the words of the StyleGAN2 papers; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stylegan_mix.datasets.groups import GROUPS

__all__ = ["WORDS", "Words", "words_for"]


@dataclass(frozen=True)
class Words:
    """The words of a panel: title, unit of its vertical axis, and names of series in a legend."""

    title: str
    unit: str
    series: Mapping[str, str] = field(default_factory=dict)

    def name(self, series: str) -> str:
        """Names a series; one that is not known keeps its name in the log."""
        return self.series.get(series, series.replace("_", " "))


_G_AND_D = ("generator", "discriminator")

WORDS = {
    "loss": Words(
        "Logistic losses", "mean loss", dict(zip(("loss_g", "loss_d"), _G_AND_D, strict=True))
    ),
    "sign": Words(
        "Discriminator's verdicts: 1 is real, -1 is generated",
        "mean sign of its logit",
        {"sign_real": "on real images", "sign_fake": "on generated images"},
    ),
    "r1": Words("R1: gradient of the discriminator on real images", "squared norm"),
    "path_length": Words("Path length of the generator (regularised)", "mean length"),
    "twins": Words("NoisyTwins: Barlow loss of pairs of w", "loss"),
    "gsr": Words("Group spectral regularisation of w", "squared spectral norm"),
    "overflow": Words(
        "Gradients that do not fit in float16",
        "share of weights",
        dict(zip(("overflow_g", "overflow_d"), _G_AND_D, strict=True)),
    ),
    "class_norm": Words("Effect of the label: spread of the class means of w", "spectral norm"),
    "seconds": Words("Time between two lines of the log", "seconds"),
    "sign_class": Words(
        "Discriminator's verdicts on real images of each class: 1 is real", "mean sign"
    ),
    "diversity": Words(
        "Diversity of samples: 1 as real images, 0 one picture", "distance over that of reals"
    ),
    "w_spread": Words("Spread of w inside each class", "share of the spread of all w"),
    "copies": Words(
        "Distance of samples to training images: near 0 are copies", "distance over that of reals"
    ),
    "ada_p": Words(
        "Adaptive augmentation (ADA): strength p",
        "probability",
    ),
}


def words_for(title: str, size: int) -> Words:
    """Finds the words for a panel of `size` series by its title in the log.

    Unknown panels keep their titles. A strength for each shot group has no names in the log.
    """
    known = WORDS.get(title) or WORDS.get(title.rpartition("_")[0])
    if known is None:
        return Words(title.replace("_", " "), "value")
    if title == "ada_p" and size == len(GROUPS):
        return replace(known, series={str(at): f"{name} shot" for at, name in enumerate(GROUPS)})
    return known
