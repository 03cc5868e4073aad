"""Compilers and their flags, and a remedy for a missing one.

The library of a CPU is built once for each instruction set, from the same sources. The library of
a GPU holds code for several architectures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kernels.errors import NativeUnavailable, NothingToBuild

__all__ = ["Target", "Toolchain", "find", "ninja", "openmp", "target_for"]

# No -ffast-math: infinities and NaN follow the definition. Warnings are not errors, because next
# year's compiler finds new ones; a test reads the log for them.
COMMON = ("-O3", "-std=c++17")
HOST = ("-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
NUMBERS = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": _AVX2,
    "avx512": (*_AVX2, *_AVX512),
    "avx512_bf16": (*_AVX2, *_AVX512, "-mavx512bf16"),
}
SANITIZERS = {
    "": (),
    "address": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address"),
    "undefined": ("-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover"),
}

# Compute capabilities of a library built on a machine without a GPU: A100, H100, B200.
ARCHITECTURES = "80,90,100"

COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True)
class Target:
    """The device of a library, and its instruction set or its architectures "80,90"."""

    device: str
    isa: str
    sanitize: str = ""

    @property
    def label(self) -> str:
        """A short name: cpu_avx2, cuda_80_90."""
        return "_".join(filter(None, [self.device, *self.isa.split(","), self.sanitize]))

    def covers(self, wanted: Target) -> bool:
        """Tells if a library for this also serves `wanted`: more architectures do no harm."""
        if (self.device, self.sanitize) != (wanted.device, wanted.sanitize):
            return False
        if self.device == "cpu":
            return self.isa == wanted.isa
        ours, theirs = _numbers(self.isa), _numbers(wanted.isa)
        return all(any(_runs(code, gpu) for code in ours) or ours[-1] <= gpu for gpu in theirs)


def _numbers(architectures: str) -> list[int]:
    return sorted(int(number) for number in architectures.split(","))


def _runs(code: int, gpu: int) -> bool:
    """Tells if `gpu` runs machine code for `code`: of its own generation, and not newer."""
    return code // 10 == gpu // 10 and code <= gpu


def target_for(device_type: str, *, isa: str = "", sanitize: str | None = None) -> Target:
    """Chooses the target of a build for this machine, unless `isa` names it.

    PyTorch names the CPU's instruction set (its variable ATEN_CPU_CAPABILITY changes that).
    Architectures are those of the visible GPUs, or KERNELS_CUDA_ARCHS, or three common ones.
    Sanitizers, named by `sanitize` or KERNELS_SANITIZE, are for CPUs.
    """
    if sanitize is None:
        sanitize = os.environ.get("KERNELS_SANITIZE", "")
    if sanitize not in SANITIZERS:
        names = ", ".join(filter(None, SANITIZERS))
        raise NativeUnavailable(f"KERNELS_SANITIZE must be one of {names}, got {sanitize!r}")
    if device_type == "cpu":
        return Target("cpu", isa or _instruction_set(), sanitize)
    if device_type == "cuda" and torch.version.hip is None:
        return Target("cuda", _architectures(isa))
    raise NothingToBuild(
        f"the compiled operators are for CPUs and NVIDIA GPUs, not for {device_type!r}"
        + (" of ROCm" if device_type == "cuda" else "")
    )


def _instruction_set() -> str:
    capability = torch.backends.cpu.get_cpu_capability().lower()
    # If PyTorch is too old to tell, the instructions for bfloat16 are left out.
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    if capability == "avx512" and capabilities.get("avx512_bf16"):
        return "avx512_bf16"
    return capability if capability in INSTRUCTION_SETS else "baseline"


def _architectures(asked: str) -> str:
    asked = asked or os.environ.get("KERNELS_CUDA_ARCHS", "")
    if not asked and torch.cuda.is_available():
        visible = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
        asked = ",".join(f"{major}{minor}" for major, minor in set(visible))
    try:
        numbers = _numbers(asked or ARCHITECTURES)
    except ValueError:
        raise NativeUnavailable(
            f"KERNELS_CUDA_ARCHS={asked!r} is no list of architectures; write it as 80,90,100"
        ) from None
    return ",".join(map(str, dict.fromkeys(numbers)))


# --------------------------------------------------------------------- programs


@dataclass(frozen=True)
class Toolchain:
    """A compiler with its version, and the beginnings and ends of its command lines.

    The version includes the arguments that came with the compiler's name. With the flags, it
    decides the compiler's output.
    """

    program: str
    version: str
    compile: tuple[str, ...]
    link: tuple[str, ...]
    libraries: tuple[str, ...] = ()


def find(target: Target) -> Toolchain:
    """Finds the compiler for this target. Raises `NativeUnavailable` if none fits."""
    return _find_cxx(target) if target.device == "cpu" else _find_nvcc(target)


def flags(target: Target) -> tuple[str, ...]:
    """Lists the flags for compiling, the same for all compilers of a device."""
    if target.device == "cpu":
        isa = INSTRUCTION_SETS[target.isa]
        return (*COMMON, *HOST, "-fopenmp", *NUMBERS, *isa, *SANITIZERS[target.sanitize])
    numbers = _numbers(target.isa)
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    # Code for future GPUs: the driver translates that of the newest architecture.
    newest = f"-gencode=arch=compute_{numbers[-1]},code=compute_{numbers[-1]}"
    return (*COMMON, *(f"-Xcompiler={flag}" for flag in HOST), "-Xptxas=-v", *codes, newest)


def _find_cxx(target: Target) -> Toolchain:
    named = os.environ.get("CXX", "").split()
    program = _first(named[:1] or COMPILERS)
    if program is None and named:
        raise NativeUnavailable(f"CXX={' '.join(named)} names no program; correct or unset CXX")
    if program is None:
        raise NativeUnavailable(
            f"no C++ compiler was found ({', '.join(COMPILERS)} on PATH, or CXX); install one, on "
            "Debian with `apt install g++`"
        )
    command = (program, *named[1:])
    version = _version(command).splitlines()[0]
    sanitizer = tuple(flag for flag in SANITIZERS[target.sanitize] if flag.startswith("-fsan"))
    # clang's code calls another OpenMP runtime than PyTorch's.
    runtime = None if "clang" in version else openmp()
    # A missing function fails here and not at loading; a sanitizer's own come with the program.
    complete = ("-Wl,-z,defs",) if sys.platform == "linux" and not sanitizer else ()
    link = (*command, "-shared", "-pthread", *complete, *sanitizer)
    libraries = ("-fopenmp",) if runtime is None else (str(runtime),)
    told = " ".join([version, *named[1:]])
    return Toolchain(program, told, (*command, *flags(target)), link, libraries)


def openmp() -> Path | None:
    """Finds the GNU OpenMP runtime inside PyTorch, so that a process has one and not two."""
    inside = Path(torch.__file__).parent
    places = (inside / "lib", inside.parent / "torch.libs")
    return next((path for place in places for path in sorted(place.glob("libgomp*.so*"))), None)


def _find_nvcc(target: Target) -> Toolchain:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    inside = str(Path(home, "bin", "nvcc")) if home else "nvcc"
    program = _first([inside, "nvcc", "/usr/local/cuda/bin/nvcc"])
    built_for = torch.version.cuda
    if program is None:
        raise NativeUnavailable(
            "no nvcc was found (CUDA_HOME, PATH, /usr/local/cuda); install the CUDA toolkit "
            f"{built_for or ''} or set CUDA_HOME to where it is".replace("  ", " ")
        )
    version = next(
        (line for line in _version((program,)).splitlines() if "release" in line), "unknown"
    )
    release = version.partition("release ")[2].partition(",")[0]
    # Within one major version, newer and older runtimes and drivers are compatible.
    if built_for and release.partition(".")[0] != built_for.partition(".")[0]:
        raise NativeUnavailable(
            f"{program} is of CUDA {release}, PyTorch of CUDA {built_for}; set CUDA_HOME to a "
            f"toolkit {built_for.partition('.')[0]}.x, or install the PyTorch for CUDA {release}"
        )
    return Toolchain(program, version, (program, *flags(target)), (program, "-shared"))


def ninja() -> str:
    """Finds the program ninja: the one of the Python package, or that on PATH."""
    try:
        from ninja import BIN_DIR
    except ImportError:
        BIN_DIR = ""
    found = _first([str(Path(BIN_DIR, "ninja")) if BIN_DIR else "ninja", "ninja"])
    if found is None:
        raise NativeUnavailable("ninja was not found; install it with `pip install ninja`")
    return found


def _first(programs: tuple[str, ...] | list[str]) -> str | None:
    return next(filter(None, map(shutil.which, programs)), None)


def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",  # what it prints is none of our business
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeUnavailable(
            f"{command[0]} does not run ({error}); install it anew, or name another with "
            + ("CUDA_HOME" if command[0].endswith("nvcc") else "CXX")
        ) from error
    lines = done.stdout.strip().splitlines()
    plain = ("".join(c if c.isprintable() else "?" for c in line) for line in lines)
    return "\n".join(plain) or "unknown"
