"""Feature spaces of the distances: the probe's features, or those of a named TorchScript file.

A TorchScript file is a program that runs in this process with the rights of its user. PyTorch's own
advice is to load none that could have been tampered with (documentation of `torch.jit.load`). So a
file runs only if the command names it together with the SHA-256 published at its origin. The bytes
that are loaded are the bytes that were hashed.

`N` images, `H W` pixels, `C` channels, `D` feature width.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.metrics.probe import SmallNet, answers
from stylegan_mix.reading import read_bytes
from stylegan_mix.session import Session

__all__ = ["Backbone", "of_probe", "of_script", "script_hash"]

MOST_WIDTH = 4096
MOST_BYTES = 4 << 30
_BATCH = 64


@dataclass(frozen=True)
class Backbone:
    """A space of features: its name in reports, the hash of its network, and the function.

    `features` maps uint8 images [N,H,W,C] to float64 [N,D].
    """

    name: str
    sha256: str
    features: Callable[[np.ndarray], np.ndarray]


def of_probe(network: SmallNet, sha256: str) -> Backbone:
    """Wraps the probe's features, the input of its last layer."""
    return Backbone(
        "probe", sha256, lambda images: answers(network, images).features.astype(np.float64)
    )


def script_hash(path: Path, expected: str | None) -> str:
    """Computes the SHA-256 of a TorchScript file and compares it with the caller's.

    `UsageFailure` (exit code 2) if no valid hash was given, or the file cannot be read;
    `InvalidInput` (3) if the file has another hash.
    """
    found = hashlib.sha256(_bytes(path)).hexdigest()
    if not expected:
        raise UsageFailure(
            f"{path} is a program that would run with your rights: name its hash with it",
            remedy="if the hash that its origin gives is the one of this file, add "
            f"--features-sha256 {found}",
        )
    wanted = expected.lower()
    if len(wanted) != 64 or set(wanted) - set("0123456789abcdef"):
        raise UsageFailure(f"--features-sha256 must be 64 hexadecimal digits, got '{expected}'")
    if found != wanted:
        raise InvalidInput(
            f"{path} is not the file that was named: its SHA-256 is {found}, "
            f"--features-sha256 says {wanted}",
            remedy="get the file again from its origin; it was not run",
        )
    return found


def of_script(
    path: Path, sha256: str, device: torch.device, session: Session = Session()
) -> Backbone:
    """Loads the features of a TorchScript file, after checking its bytes against `sha256`.

    Its forward takes uint8 images [N,C,H,W] in 0..255 at the size of the data set (grey repeated
    to three channels), resizes and normalises them itself, and returns floating-point [N,D] or
    [N,D,1,1]. An argument `return_features`, as in the Inception network of StyleGAN2-ADA, is set
    to True. `InvalidInput` (exit code 3) for any other file.
    """
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InvalidInput(f"{path} changed while it was being read")
    try:
        with warnings.catch_warnings():
            # PyTorch names export as its successor, but published networks are TorchScript.
            warnings.simplefilter("ignore")
            module = torch.jit.load(io.BytesIO(data), map_location=device).eval()
        names = [argument.name for argument in module.forward.schema.arguments]
    except (RuntimeError, AttributeError, ValueError) as error:
        raise InvalidInput(f"{path} is not a TorchScript file: {_first_line(error)}") from error
    extra = {"return_features": True} if "return_features" in names else {}

    def features(images: np.ndarray) -> np.ndarray:
        blocks = []
        progress = session.track(len(images), "images", path.name)
        for start in range(0, len(images), _BATCH):
            session.go_on(f"features of {path.name} were being taken")
            block = _three_channels(np.array(images[start : start + _BATCH]))
            blocks.append(_called(module, extra, block.to(device), path))
            progress.update(min(start + _BATCH, len(images)))
        progress.close()
        return np.concatenate(blocks)

    return Backbone(path.stem, sha256, features)


@torch.inference_mode()
def _called(module: Any, extra: dict[str, bool], images: Tensor, path: Path) -> np.ndarray:
    shape = list(images.shape)
    try:
        found = module(images, **extra)
    except RuntimeError as error:
        raise InvalidInput(
            f"{path} does not take uint8 images {shape}: {_first_line(error)}"
        ) from error
    if isinstance(found, Tensor) and found.ndim == 4 and tuple(found.shape[2:]) == (1, 1):
        found = found[:, :, 0, 0]
    fits = isinstance(found, Tensor) and found.is_floating_point() and found.ndim == 2
    if not fits or len(found) != shape[0] or not 1 <= found.shape[1] <= MOST_WIDTH:
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found)
        raise InvalidInput(
            f"{path} must return floating-point features [{shape[0]}, D] with D at most "
            f"{MOST_WIDTH} for images {shape}, it returned {what}"
        )
    if not torch.isfinite(found).all():
        raise InvalidInput(f"{path} returned features that are not finite")
    return found.double().cpu().numpy()


def _three_channels(images: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return (tensor.repeat(1, 3, 1, 1) if tensor.shape[1] == 1 else tensor).contiguous()


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, limit=MOST_BYTES)
    except OSError as error:
        raise UsageFailure(
            f"cannot read --features {path}: {error.strerror}",
            remedy="--features is 'probe' or the path of a TorchScript file",
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
