"""Paths that are no regular file: devices, pipes, the descriptors of this process."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["is_special", "opened", "write_all"]

_MOST_LINKS = 40  # the kernel's own limit


def opened(path: Path) -> int | None:
    """Opens a path for writing; None for a regular file, a folder, or a free name.

    A path such as /dev/stdout names a descriptor of this process, which is duplicated: a redirected
    file then keeps its place. Anything else is opened as it is; a pipe waits for its reader. Raises
    `OSError`.
    """
    number = _descriptor(path)
    if number is not None:
        return os.dup(number)
    if not _is_other_kind(path):
        return None
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)


def is_special(path: Path) -> bool:
    """Tells if a path names a device, a pipe, a socket or a descriptor of this process."""
    with contextlib.suppress(OSError):
        return _descriptor(path) is not None or _is_other_kind(path)
    return False


def _is_other_kind(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _descriptor(path: Path) -> int | None:
    """Finds the descriptor of this process that a path names, if it names one."""
    ours = f"/proc/{os.getpid()}"
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        task = folder.startswith(f"{ours}/task/") and folder.endswith("/fd")
        if (folder == f"{ours}/fd" or task) and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder) / os.readlink(path)
    return None


def write_all(handle: int, data: bytes) -> None:
    """Writes all bytes to a descriptor, in as many pieces as it takes."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
