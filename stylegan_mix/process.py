"""The process and its machine: threads, memory, devices, names for records; torch when called."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stylegan_mix.errors import MissingEnvironment, UsageFailure

__all__ = [
    "computes_natively",
    "cpu_name",
    "end_with_parent",
    "is_busy",
    "machine",
    "memory_bytes",
    "one_thread_if_busy",
    "resolve_device",
    "set_up_process",
    "slow_precision",
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
        "bfloat16": _IN_WORDS[computes_natively("bfloat16")],
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


def is_busy() -> bool:
    """Tells if other work fills the cores of this machine."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


@contextmanager
def one_thread_if_busy() -> Iterator[int]:
    """Lets torch compute in one thread while this machine is busy; yields the number it had.

    Threads that share a core wait for each other, and a short measurement shows little else. The
    number is 1 if nothing changes.
    """
    import torch

    threads = torch.get_num_threads()
    if not is_busy():
        yield 1
        return
    try:
        torch.set_num_threads(1)
        yield threads
    finally:
        torch.set_num_threads(threads)


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
    names = _facts_of_cpu("model name")
    if names is None:
        return platform.processor() or platform.machine()
    return names[0] if names else platform.machine()


def computes_natively(precision: str) -> bool | None:
    """Tells if this processor has instructions for bfloat16 or float16; None if unknown."""
    if precision not in _INSTRUCTIONS:
        return True
    flags = [*(_facts_of_cpu("flags") or ()), *(_facts_of_cpu("Features") or ())]
    if not flags:
        return None
    return not _INSTRUCTIONS[precision].isdisjoint(flags[0].split())


def slow_precision(precision: str, device: str) -> str:
    """Warns of a precision that this processor only imitates; "" if there is nothing to say."""
    if device != "cpu" or computes_natively(precision) is not False:
        return ""
    return (
        f"warning: this processor has no instructions for {precision}: expect it to be ten times "
        "slower, or worse, than --precision float32"
    )


# Names in /proc/cpuinfo of the instructions that multiply in a format, on x86 and ARM.
_INSTRUCTIONS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
_IN_WORDS = {
    True: "native on this processor",
    False: "not native on this processor: ten times slower than float32, or worse",
    None: "not known of this processor",
}


def _facts_of_cpu(name: str) -> list[str] | None:
    """Reads the values of a name in /proc/cpuinfo, one a core; None if there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for key, _, value in pairs if key.strip() == name]
