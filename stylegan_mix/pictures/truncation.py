"""Truncation sweeps: the same latents at several psi, to the centre of the class or of all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.latents.centres import (
    HALF_WAY,
    MAPPED,
    class_mean,
    shrunk,
    truncate,
)
from stylegan_mix.pictures.choice import Choice, chosen
from stylegan_mix.pictures.picture import Picture, of_image
from stylegan_mix.pictures.viewer import Subject

__all__ = ["PSIS", "sweeps"]

PSIS = (0.0, 0.25, 0.5, 0.75, 1.0)
LATENTS = 2
_ROWS_WITHOUT_CLASSES = 4


def sweeps(subject: Subject) -> list[Picture]:
    """Draws a sweep towards per-class centres and one towards the global centre.

    An unconditional generator has only the second.
    """
    if not subject.names:
        return [_unconditional(subject)]
    choice = chosen(subject.names, subject.counts)
    towards = subject.network.centre()
    own = [
        shrunk(
            class_mean(subject.network, label, seed=subject.seed), towards, subject.counts[label]
        )
        for label in choice.labels
    ]
    which = f"Rows: {choice.text}. Columns: {LATENTS} latents, the same in every row, at psi 0 to 1"
    end = f"the same stored noise everywhere; {subject.origin}."
    return [
        of_image(
            "truncation-class.png",
            "Truncation towards the centre of the class",
            f"{which}. At psi 0 stands the centre of the class: the mean of w over {MAPPED:,} "
            f"mapped latents of the class, drawn towards the global centre, own share "
            f"s = n / (n + {HALF_WAY:g}) for n training images; {end}",
            draw(_sheet(subject, choice, own, "towards per-class centres", shares=True)),
        ),
        of_image(
            "truncation-global.png",
            "Truncation towards the global centre",
            f"{which}, towards the one average of w that the generator carries. At psi 0 all "
            f"classes are one image, and small psi loses the class; {end}",
            draw(
                _sheet(
                    subject,
                    choice,
                    [towards] * len(own),
                    "towards the global centre",
                    shares=False,
                )
            ),
        ),
    ]


def _sheet(
    subject: Subject, choice: Choice, centres: list[Tensor], towards: str, *, shares: bool
) -> Sheet:
    counts = [subject.counts[label] for label in choice.labels]
    return Sheet(
        title=f"{subject.published.card['dataset']}: truncation {towards}",
        note=f"{subject.origin}; {LATENTS} latents at each psi; right: training images"
        + (", own share s of the centre" if shares else ""),
        left=[subject.names[label] for label in choice.labels],
        right=[
            f"{count:,}" + (f" (s {count / (count + HALF_WAY):.2f})" if shares else "")
            for count in counts
        ],
        columns=[f"{psi:g}" for psi in PSIS] * LATENTS,
        cells=[
            [image for latent in range(LATENTS) for image in _row(subject, label, latent, centre)]
            for label, centre in zip(choice.labels, centres, strict=True)
        ],
        corner="psi",
        group=len(PSIS),
    )


def _row(subject: Subject, label: int | None, latent: int, centre: Tensor) -> np.ndarray:
    """Decodes one latent at every psi -> uint8 [psi,H,W,C]."""
    of = None if label is None else torch.tensor([label], device=subject.device)
    with torch.inference_mode():
        ws = subject.network.ws(subject.z("truncation", latent), of)
        swept = torch.cat([truncate(ws, psi, centre) for psi in PSIS])
    return subject.decoded(swept)


def _unconditional(subject: Subject) -> Picture:
    centre = subject.network.centre()
    sheet = Sheet(
        title="truncation towards the global centre",
        note=f"{subject.origin}; a latent a row",
        left=[f"latent {row + 1}" for row in range(_ROWS_WITHOUT_CLASSES)],
        right=None,
        columns=[f"{psi:g}" for psi in PSIS],
        cells=[list(_row(subject, None, row, centre)) for row in range(_ROWS_WITHOUT_CLASSES)],
        corner="psi",
    )
    caption = (
        "The same latent along a row, drawn towards the average of w; the same stored noise "
        f"everywhere; {subject.origin}. The generator is unconditional."
    )
    return of_image("truncation-global.png", sheet.title.capitalize(), caption, draw(sheet))
