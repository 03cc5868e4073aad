"""The surroundings of a command: its locale, torchrun, and what the operating system refuses."""

from __future__ import annotations

import errno
import os
import sys
import time

from stylegan_mix.errors import Failure, MissingEnvironment, UsageFailure

__all__ = [
    "as_failure",
    "await_end",
    "in_utf8",
    "is_told_elsewhere",
    "require_working_folder",
]

# No file can have such a path: too long, in a loop of links, below a file.
_NO_PATH = {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EINVAL),
    errno.ENXIO,
}
_REFUSALS = (2, 3, 4)
# The first process of torchrun may need so many seconds more to meet a refusal: to import packages.
_PATIENCE = 60


def in_utf8() -> None:
    """Starts this program again in Python's UTF-8 mode, if file names are not in UTF-8 here.

    In the locale POSIX, a name with other letters than ASCII could neither be read nor written.
    """
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return
    if os.environ.get("PYTHONUTF8") == "1" or not sys.orig_argv[1:]:
        return  # it was tried, or there is no command line to repeat
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def as_failure(error: OSError) -> Failure:
    """Describes an error of the operating system that no code expected."""
    known = isinstance(error.filename, (str, bytes))
    place = f": {os.fsdecode(error.filename)}" if known else ""
    text = f"{error.strerror or error}{place}"
    if error.errno in _NO_PATH:
        return UsageFailure(text, remedy="no file can be read or written under that name")
    return MissingEnvironment(text, remedy="look at permissions, space and limits of this machine")


def require_working_folder() -> None:
    """Raises `MissingEnvironment` (exit code 4) if the working folder was removed.

    Paths from it lead nowhere then, and MKL ends a process that computes.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise MissingEnvironment(
            "the folder in which this command was started is not there any more",
            remedy="change into a folder that exists, then run the same command",
        ) from error


def is_told_elsewhere(code: int, *, of_one_process: bool = False) -> bool:
    """Tells if torchrun's first process on this machine prints the same refusal."""
    if of_one_process or code not in _REFUSALS:
        return False
    return os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" in os.environ


def await_end() -> None:
    """Waits for torchrun to end this process, as the first one has ended with the same refusal.

    If this process ended before, torchrun would end the first one, perhaps before it has printed
    anything. Returns after a minute, if the first process has not met the refusal.
    """
    time.sleep(_PATIENCE)
