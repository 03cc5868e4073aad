"""Work in a forked child with limits on memory and time, whose end is told in one line."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

RETURNED = "returned"
_WAIT = 600  # seconds


def confined(work: Callable[[], object], *, memory: int = 256 << 20, seconds: int = 5) -> str:
    """Runs `work` in a child that may take so many more bytes, and so many seconds of a CPU.

    Gives "returned", "NameOfTheException: its text", or "ended by SIGSEGV" and the like. Seconds of
    a CPU do not depend on other work of the machine. SIGALRM ends what waits without working.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _work(work, write, memory, seconds)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return told


def _work(work: Callable[[], object], write: int, memory: int, seconds: int) -> NoReturn:
    told = RETURNED
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        until = int(spent) + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until, until + 1))
        signal.alarm(_WAIT)
        work()
    except BaseException as error:  # noqa: BLE001  (told to the parent)
        told = f"{type(error).__name__}: {error}"
    finally:
        os.write(write, told[:4000].encode(errors="replace"))
        os._exit(0)
