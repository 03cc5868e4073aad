"""Operations on colours of a batch, with a value for each row.

`N` rows, `H W` pixels, `C` channels; images are uint8 [N, H, W, C], values float32 [N]. Results are
rounded down, as those of Pillow are. Where an operation needs grey, three channels are red, green
and blue, and one channel is grey itself. Of any other number, grey is the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["EFFECTS", "grey"]

# Luma of ITU-R 601-2.
_LUMA = (0.299, 0.587, 0.114)
# A pixel of the smoothed image: 5 parts of itself, and one of each pixel around it.
_OWN, _PARTS = 5, 13


def grey(images: Tensor) -> Tensor:
    """Computes the grey images, [N, H, W, 1] float32."""
    channels = images.shape[3]
    if channels != 3:
        return images.float().mean(3, keepdim=True)
    red, green, blue = images.float().split(1, 3)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _whole_grey(images: Tensor) -> Tensor:
    """Computes the grey images rounded to whole numbers."""
    return (grey(images) + 0.5).floor()


def _inverted(images: Tensor, value: Tensor) -> Tensor:
    """Inverts all values; `value` is not read."""
    return 255 - images


def _solarised(images: Tensor, value: Tensor) -> Tensor:
    """Inverts values from `value` on."""
    return torch.where(images < _by_row(value), images, 255 - images)


def _posterised(images: Tensor, value: Tensor) -> Tensor:
    """Keeps the upper `value` bits, rounded to a whole number."""
    lower = (8 - value.round()).exp2().to(torch.uint8) - 1
    return images & _by_row(255 - lower)


def _with_contrast(images: Tensor, value: Tensor) -> Tensor:
    """Multiplies distances from the mean grey by `value`."""
    mean = _whole_grey(images).mean((1, 2, 3), keepdim=True)
    return _away(images, (mean + 0.5).floor(), value)


def _with_colour(images: Tensor, value: Tensor) -> Tensor:
    """Multiplies distances from the grey image by `value`; one channel stays as it is."""
    return images if images.shape[3] == 1 else _away(images, _whole_grey(images), value)


def _with_brightness(images: Tensor, value: Tensor) -> Tensor:
    """Multiplies all values by `value`."""
    return _away(images, torch.zeros((), device=images.device), value)


def _with_sharpness(images: Tensor, value: Tensor) -> Tensor:
    """Multiplies distances from the smoothed image by `value`; the outermost pixels stay."""
    if min(images.shape[1:3]) < 3:
        return images
    planes = images.permute(0, 3, 1, 2).float()
    around = F.avg_pool2d(planes, 3, stride=1, divisor_override=1)  # sums of 3 by 3 pixels
    inner = planes[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    mean = ((around + (_OWN - 1) * inner) / _PARTS + 0.5).floor()
    smooth[:, 1:-1, 1:-1] = mean.permute(0, 2, 3, 1).to(torch.uint8)
    return _away(images, smooth, value)


def _with_full_contrast(images: Tensor, value: Tensor) -> Tensor:
    """Stretches each channel to 0 and 255; `value` is not read, a channel of one value stays."""
    lowest = images.amin((1, 2), keepdim=True).float()
    span = images.amax((1, 2), keepdim=True).float() - lowest
    stretched = (images.float() - lowest) * 255 / span.clamp(min=1)
    return torch.where(span > 0, stretched.to(torch.uint8), images)


def _equalised(images: Tensor, value: Tensor) -> Tensor:
    """Spreads the values of each channel evenly; `value` is not read.

    With s = floor((pixels below the highest value) / 255), a value becomes the number of pixels
    below it plus floor(s / 2), divided by s and rounded down, at most 255. A channel with s = 0,
    such as one of at most 255 pixels, stays as it is.
    """
    count, height, width, channels = images.shape
    level = images.permute(0, 3, 1, 2).reshape(count, channels, height * width).long()
    pixels = torch.zeros(count, channels, 256, dtype=torch.int64, device=images.device)
    pixels.scatter_add_(2, level, torch.ones_like(level))
    highest = level.amax(2, keepdim=True)
    step = (height * width - pixels.gather(2, highest)) // 255  # [N, C, 1]
    below = pixels.cumsum(2) - pixels
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    spread = table.gather(2, level).reshape(count, channels, height, width)
    kept = (step == 0).reshape(count, 1, 1, channels)
    return torch.where(kept, images, spread.permute(0, 2, 3, 1).to(torch.uint8))


def _away(images: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """Computes base + factor (images - base), cut off at 0 and 255 and rounded down."""
    start = base.float()
    far = start + _by_row(factor) * (images.float() - start)
    return far.clamp(0, 255).to(torch.uint8)


def _by_row(value: Tensor) -> Tensor:
    return value[:, None, None, None]


EFFECTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": _with_full_contrast,
    "invert": _inverted,
    "equalise": _equalised,
    "solarise": _solarised,
    "posterise": _posterised,
    "contrast": _with_contrast,
    "colour": _with_colour,
    "brightness": _with_brightness,
    "sharpness": _with_sharpness,
}
"""The operations on colours: images and a value for each row -> images."""
