"""The files that a user names, such as that of `--out`: text goes through to what is there.

A symbolic link stays, and its target gets the text. A regular file keeps its mode. It is replaced
whole, so a reader sees the old content or all of the new; only a file that has several names, or
that its folder does not let go, is written over. A device, a pipe and a descriptor, such as
/dev/stdout, are written into. Files of the store are written by `store.write_bytes`, which follows
no link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_mix import special_files, store
from stylegan_mix.errors import MissingEnvironment

__all__ = ["check", "write_bytes", "write_json", "write_text"]

_ELSEWHERE = "choose another place with --out"
# A folder in which a file can be changed, but not replaced: a mount point, a folder of others.
_NO_REPLACING = {errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS}
# A file system that cannot reserve space.
_NO_RESERVING = {errno.EOPNOTSUPP, errno.EINVAL}


def write_bytes(path: Path, data: bytes, *, elsewhere: str = _ELSEWHERE) -> None:
    """Writes a file that the user named, through links and without changing its kind or mode.

    `elsewhere` explains how to choose another path. Raises `UsageFailure` (exit code 2) for a path
    that no file can have, `MissingEnvironment` (4) for a full disk, a missing permission, and a
    reader that went away.
    """
    with _errors(path, elsewhere):
        handle = special_files.opened(path)
        if handle is None:
            _write_file(Path(os.path.realpath(path)), data)
            return
        try:
            special_files.write_all(handle, data)
        finally:
            os.close(handle)


def write_text(path: Path, text: str, *, elsewhere: str = _ELSEWHERE) -> None:
    """Writes text as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode(), elsewhere=elsewhere)


def write_json(path: Path, data: Any, *, elsewhere: str = _ELSEWHERE) -> None:
    """Writes plain data as readable JSON; see `write_bytes`."""
    write_bytes(path, store.json_bytes(data), elsewhere=elsewhere)


def check(path: Path | None, *, elsewhere: str = _ELSEWHERE) -> None:
    """Raises the errors of `write_bytes` that can be foreseen; for before long work.

    A path of None, of an option that was not given, fits always.
    """
    if path is None:
        return
    with _errors(path, elsewhere):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            _check_folder(Path(os.path.realpath(path)).parent, elsewhere)
            return
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if stat.S_ISREG(mode):
            store.free_space(path, 0, f"writing {path}", elsewhere=elsewhere)


def _check_folder(folder: Path, elsewhere: str) -> None:
    store.free_space(folder, 0, f"writing into {folder}", elsewhere=elsewhere)
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _errors(path: Path, elsewhere: str) -> Iterator[None]:
    """Turns errors of writing to `path` into those that tell what to do."""
    try:
        with store.disk_errors(path, elsewhere=elsewhere):
            yield
    except BrokenPipeError as error:
        raise MissingEnvironment(
            f"the reader of {path} went away before the end",
            remedy="run the same command again, with a reader that takes everything",
        ) from error
    except OSError as error:
        raise MissingEnvironment(
            f"{path} could not be written ({error.strerror})", remedy=elsewhere
        ) from error


def _write_file(path: Path, data: bytes) -> None:
    """Writes a regular file, or a new one: `path` is no link."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        store.replace_file(path, data)
        return
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if path.stat().st_nlink > 1:
        _overwrite(path, data)  # its other names hold the new text, too
        return
    try:
        store.replace_file(path, data)
    except OSError as error:
        if error.errno not in _NO_REPLACING:
            raise
        _overwrite(path, data)


def _overwrite(path: Path, data: bytes) -> None:
    """Writes into an existing file; its space is reserved first, so a full disk loses nothing."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _reserve(handle, len(data))
        special_files.write_all(handle, data)
        os.ftruncate(handle, len(data))
        os.fsync(handle)
    finally:
        os.close(handle)


def _reserve(handle: int, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, max(size, 1))
    except OSError as error:
        if error.errno not in _NO_RESERVING:
            raise
