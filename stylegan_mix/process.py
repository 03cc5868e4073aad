"""The process and its machine: threads, memory, devices, names for records; torch when called."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from pathlib import Path

from stylegan_mix.errors import MissingEnvironment, UsageFailure

__all__ = [
    "cpu_name",
    "end_with_parent",
    "machine",
    "memory_bytes",
    "resolve_device",
    "set_up_process",
]


def machine() -> dict[str, str]:
    """Describes this machine: Python, torch, CPU, CUDA, compiled operators."""
    import torch

    from kernels import selfcheck

    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": f"{os.cpu_count()} cores, {capability}, {torch.get_num_threads()} threads",
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        **selfcheck.findings(),
    }


def set_up_process(threads: int | None = None) -> None:
    """Sets the number of CPU threads, glibc's handling of large blocks, and full float32 on GPUs.

    GPUs would convolve float32 with the ten bits of TensorFloat-32 unless told not to. glibc
    returns blocks over 32 MiB to the kernel at every free and faults them in again page by page.
    Keeping them makes the networks' large element-wise passes 3 to 4 times faster.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    for option, value in (
        (m_mmap_threshold, 1 << 30),
        (m_trim_threshold, 1 << 31),
        (m_top_pad, 64 << 20),
    ):
        mallopt(ctypes.c_int(option), ctypes.c_int(min(value, 2**31 - 1)))


def end_with_parent() -> None:
    """Makes this process get SIGTERM when its parent ends, for any reason (Linux)."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def resolve_device(name: str) -> str:
    """Resolves `--device` to "cpu", "cuda" or "cuda:<index>"; auto prefers CUDA.

    Raises `UsageFailure` (exit code 2) for another name, `MissingEnvironment` (4) for a CUDA
    device that is not there.
    """
    import torch

    kind, _, index = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise UsageFailure(f"--device must be auto, cpu, cuda or cuda:<index>, got '{name}'")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count else "cpu"
    if kind == "cuda" and int(index or 0) >= count:
        raise MissingEnvironment(
            f"--device {name}, but torch finds {count or 'no'} CUDA device{'s' * (count > 1)}",
            remedy="use --device cpu or auto",
        )
    return name


def memory_bytes() -> int:
    """Returns the size of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_name() -> str:
    """Reads the name of this machine's processor, for records."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
