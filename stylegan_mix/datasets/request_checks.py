"""Checks of a requested preparation, before any file is read."""

from __future__ import annotations

import re

from stylegan_mix.datasets import official
from stylegan_mix.datasets.class_folders import check_levels
from stylegan_mix.datasets.embedded import EMBEDDED, no_preparation
from stylegan_mix.datasets.image_files import CHANNELS, FITS
from stylegan_mix.datasets.request import Request
from stylegan_mix.errors import UsageFailure

__all__ = ["check_request"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def check_request(request: Request) -> None:
    """Raises `UsageFailure` (exit code 2), with all problems of the options that there are."""
    check_levels(request.levels)
    problems = []
    if not _NAME.fullmatch(request.name):
        problems.append(f"'{request.name}' cannot name a data set: small letters, digits and _ . -")
    if request.name in EMBEDDED:
        problems.append(no_preparation(request.name))
    if request.fit is not None and request.fit not in FITS:
        problems.append(f"no fit '{request.fit}'; known: {', '.join(FITS)}")
    if request.fit is not None and request.size is None and not request.stream:
        problems.append("--fit needs --size")
    if request.size is not None and not 4 <= request.size <= 1024:
        problems.append(f"--size must lie in 4 to 1024, got {request.size}")
    if request.channels not in (None, *CHANNELS):
        problems.append(f"--channels must be 1, 3 or 4, got {request.channels}")
    if request.index and (request.train_list or request.test_list):
        problems.append("--index and --train-list are two ways to say the same thing")
    if request.test_list and not request.train_list:
        problems.append("--test-list needs --train-list")
    problems += _layout_problems(request)
    problems += _stream_problems(request)
    if request.on_bad_image not in ("error", "skip"):
        problems.append(f"--on-bad-image is error or skip, not {request.on_bad_image}")
    if problems:
        raise UsageFailure("; ".join(problems))


def _stream_problems(request: Request) -> list[str]:
    """Lists the reasons that a source cannot be streamed."""
    if not request.stream:
        return []
    problems = []
    if request.source.exists() and not request.source.is_dir():
        problems.append(
            f"--stream reads files again and again, and {request.source} is not a folder: unpack it"
        )
    if request.name in official.SETS:
        problems.append(f"{request.name} is small: prepare it without --stream")
    return problems


def _layout_problems(request: Request) -> list[str]:
    """Lists the options for the layout that contradict one another."""
    problems = []
    lists = request.index or request.train_list
    if lists and (request.labels or request.by_folders or request.folders):
        problems.append(
            "--index and --train-list say the classes and parts themselves: leave --labels, "
            "--levels, --train-dir, --test-dir and --val-dir out"
        )
    if request.labels and request.levels:
        problems.append("--labels takes the classes from a file, --levels from folders: give one")
    if (request.file_column or request.label_column) and not request.labels:
        problems.append("--file-column and --label-column need --labels FILE")
    if request.folders and "train" not in request.folders:
        problems.append("--test-dir and --val-dir need --train-dir")
    return problems
