"""The store: its folders, canonical keys, hashes, atomic files, locks.

The store is a directory (`STYLEGAN_MIX_HOME`, by default under the user's cache directory) with
`datasets/`, `training/`, `generators/`, `banks/` and `annotations/`. It holds no absolute path, so
it may be moved. A finished entry appears by one rename, is read-only from then on, and is never
rewritten. `STYLEGAN_MIX_SHARED` names a second store that is only read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import socket
import stat
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stylegan_mix.errors import Busy, MissingEnvironment, UsageFailure
from stylegan_mix.reading import read_json, sha256_file
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopRequest

__all__ = [
    "WORKED_ON",
    "bytes_in",
    "canonical",
    "digest",
    "disk_errors",
    "expanded",
    "free_space",
    "home",
    "json_bytes",
    "locked",
    "publish",
    "read_json",
    "remove_free_locks",
    "replace_file",
    "roots",
    "sha256_file",
    "shared",
    "sync_folder",
    "write_bytes",
    "write_json",
]

WORKED_ON = "is being worked on by"
"""The words of `Busy`, by which a parent knows it in the message of a child."""

_LOCK_POLL = 0.1  # seconds
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_PLACE = {
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
}


def home() -> Path:
    """Returns the root of the store that is written to."""
    chosen = os.environ.get("STYLEGAN_MIX_HOME")
    if chosen:
        return expanded(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(cache).absolute() / "stylegan-mix"


def shared() -> Path | None:
    """Returns the root of the read-only second store, if one is named."""
    chosen = os.environ.get("STYLEGAN_MIX_SHARED")
    return expanded(chosen).absolute() if chosen else None


def expanded(path: str) -> Path:
    """Makes a path, with "~" for a home folder; `MissingEnvironment` (4) if there is none."""
    try:
        return Path(path).expanduser() if path.startswith("~") else Path(path)
    except RuntimeError as error:
        raise MissingEnvironment(
            f"there is no home folder for {path}: {error}",
            remedy="set STYLEGAN_MIX_HOME to a folder for data sets, generators and banks",
        ) from error


def roots() -> list[Path]:
    """Lists the stores to search, our own first."""
    second = shared()
    return [home()] if second is None else [home(), second]


def canonical(spec: Any) -> bytes:
    """Encodes plain data in one way only: sorted ASCII JSON without white space.

    Accepts None, bool, int, finite float, str, list, tuple and dict with string keys. Strings are
    normalised to Unicode NFC and -0.0 to 0.0. Raises `TypeError` for any other type (NumPy scalars
    among them: `float(np.float32(0.1))` is not 0.1) and `ValueError` for NaN or infinity.
    """
    plain = _plain(spec)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int):
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"a key cannot hold {value!r}")
        return value + 0.0
    if type(value) is str:
        return unicodedata.normalize("NFC", value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if not all(type(key) is str for key in value):
            raise TypeError(f"the names in a key must be strings, got {list(value)!r}")
        return {unicodedata.normalize("NFC", key): _plain(item) for key, item in value.items()}
    raise TypeError(f"a key holds plain data only, got {type(value).__name__}: {value!r}")


def digest(spec: Any) -> str:
    """Computes the SHA-256 (64 hex digits) of the canonical form of plain data."""
    return hashlib.sha256(canonical(spec)).hexdigest()


@contextmanager
def disk_errors(path: Path, *, elsewhere: str | None = None) -> Iterator[None]:
    """Turns a full or unwritable disk, and a path that no file can have, into errors.

    Exit code 4 for the disk and for a store without a place, 2 for another path. `elsewhere`
    explains how to choose another path; the default names the option of the store, or `--out`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise MissingEnvironment(
                f"the disk is full: could not write {path} ({error.strerror})",
                remedy="free some space (finished work is kept), then run the same command; or "
                + (elsewhere or _elsewhere(path)),
            ) from error
        if error.errno in _NO_ACCESS:
            raise MissingEnvironment(
                f"no permission to write {path} ({error.strerror})",
                remedy=elsewhere or _elsewhere(path),
            ) from error
        if error.errno in _NO_PLACE:
            named = error.errno == errno.ENAMETOOLONG
            in_store = path.is_relative_to(home()) and not named
            why = error.strerror if named else _broken_link(path) or error.strerror
            raise (MissingEnvironment if in_store else UsageFailure)(
                f"nothing can be written to {path} ({why})",
                remedy="choose a shorter name" if named else elsewhere or _elsewhere(path),
            ) from error
        raise


def _broken_link(path: Path) -> str:
    """Names the first link on the way to `path` that leads nowhere; "" if there is none."""
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not place.exists():
            return f"{place} is a link to {os.readlink(place)}, which is not there"
    return ""


def _elsewhere(path: Path) -> str:
    """Explains how to choose another place than `path`, of the store or of a user's files."""
    if path.absolute().is_relative_to(home()):
        return "choose another place for the store with STYLEGAN_MIX_HOME"
    return "choose another place with --out"


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically: a reader sees the old content or all of the new, never a part.

    A link at `path` is replaced. A path that a user named is for `output.write_bytes`.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """Puts a new file in the place of `path`, with its mode and owner if it has any.

    The mode of a new file is that of the umask. Raises `OSError`.
    """
    before = _regular(path)
    # A short name of its own, so that a long name of `path` is no fault.
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(6)}"
    mode = 0o666 if before is None else 0o600
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            if before is not None:
                _take_over(file.fileno(), before)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _regular(path: Path) -> os.stat_result | None:
    """Returns the status of a regular file; None for anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _take_over(handle: int, before: os.stat_result) -> None:
    """Gives a file the owner of another, where that is allowed, and its mode."""
    owner = before.st_uid, before.st_gid
    if owner != (os.geteuid(), os.getegid()):
        with suppress(PermissionError):
            os.fchown(handle, *owner)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))


def write_json(path: Path, data: Any) -> None:
    """Writes plain data as readable JSON, atomically."""
    write_bytes(path, json_bytes(data))


def json_bytes(data: Any) -> bytes:
    """Encodes plain data as readable JSON; `UnicodeEncodeError` for half a surrogate pair."""
    text = json.dumps(data, indent=1, sort_keys=False, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Makes renames inside a directory durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, final: Path) -> bool:
    """Renames a finished directory to its final name, and takes the right to write its files.

    Returns False, and does not touch `temporary`, if `final` was there first. A rename over a
    directory that is not empty fails, so the loser of a race cannot harm the winner.
    """
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for path in temporary.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & 0o555)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        sync_folder(final.parent)
        return True


@contextmanager
def locked(
    path: Path, *, wait: bool = True, shared: bool = False, session: Session = Session()
) -> Iterator[None]:
    """Holds the lock file `path` for one process; the kernel frees it when that process ends.

    If another process holds it, `wait` waits and prints one line that names the holder, until the
    session asks for an end. Without `wait` it raises `Busy` (exit code 75). The holder may remove
    the file: a process that waits for it then locks the one that is there. Several processes may
    hold it as `shared`, while no process holds it alone.
    """
    handle = _hold(path, wait, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, session)
    try:
        # The name of the holder is for people only. On a full disk, a removal needs its lock, too.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _hold(path: Path, wait: bool, kind: int, session: Session) -> int:
    """Opens and locks the file that is at `path` when it is locked."""
    while True:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle, path, wait, kind, session)
            if _is_at(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _lock(handle: int, path: Path, wait: bool, kind: int, session: Session) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        # A file called plainly "lock" stands for its folder.
        work = path.stem if path.suffix else path.parent
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
        if not wait:
            raise Busy(
                f"{work} {WORKED_ON} {holder}",
                remedy="wait for it, then run the same command",
            ) from None
        session.say(f"waiting for {holder}, which works on {work}")
        _wait_for(handle, kind, session.stop, holder)


def remove_free_locks(root: Path) -> int:
    """Removes the lock files of a store that no process holds; returns their number."""
    removed = 0
    for pattern in ("*.lock", "*/*.lock", "*/*/*.lock"):
        for path in sorted(root.glob(pattern)):
            with suppress(Busy, MissingEnvironment, OSError), locked(path, wait=False):
                path.unlink()
                removed += 1
    return removed


def _wait_for(handle: int, kind: int, stop: StopRequest, holder: str) -> None:
    """Takes the lock once it is free; raises the failure of `stop` if that comes first."""
    while True:
        if stop.requested is not None:
            raise stop.failure(saved=True, what=f"while waiting for {holder}")
        try:
            return fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_POLL)


def free_space(path: Path, need: int, what: str, *, elsewhere: str | None = None) -> None:
    """Raises `MissingEnvironment` (exit code 4) unless `need` bytes and a reserve are free.

    `elsewhere` is as in `disk_errors`.
    """
    existing = path
    while not existing.exists():
        existing = existing.parent
    reserve = 64 << 20
    free = shutil.disk_usage(existing).free
    if free < need + reserve:
        own = f"{need / 1e6:,.1f} MB and " if need else ""
        raise MissingEnvironment(
            f"{what} needs {own}a reserve of {reserve / 1e6:,.0f} MB at {existing}; "
            f"{free / 1e6:,.0f} MB are free",
            remedy=f"free some space, or {elsewhere or _elsewhere(path)}",
        )


def bytes_in(folder: Path) -> int:
    """Sums the sizes of the regular files below a folder; 0 if there is none."""
    sizes = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # removed meanwhile
            found = path.lstat()
            sizes += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return sizes
