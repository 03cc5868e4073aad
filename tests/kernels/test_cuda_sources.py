"""The CUDA sources where there is no GPU: they compile, and their logic runs on a CPU.

What this cannot show: speed, and what only hardware has (memory order, divergence, registers at run
time). tools/gpu/kernels is for a machine with a GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from kernels import build, libraries, native, ptxas
from kernels.errors import NativeUnavailable
from kernels.toolchain import ARCHITECTURES, find, target_for

SOURCES = libraries.SOURCES / "cuda"
HERE = Path(__file__).parent
# The accelerator's part of the border, as nm shows it.
EXPORTED = set(re.findall(r"(kernels_\w+)\(", (libraries.SOURCES / "abi.h").read_text()))

# Undefined behaviour ends the process: a misaligned vector, an index beyond an array, an overflow.
SANITIZED = (
    "-fsanitize=alignment,signed-integer-overflow,bounds,shift,null,integer-divide-by-zero",
    "-fsanitize-undefined-trap-on-error",
)


def include_folder() -> Path:
    """The toolkit's headers, which a C++ compiler reads as well."""
    try:
        program = find(target_for("cuda", isa="90")).program
    except NativeUnavailable as error:
        pytest.skip(f"no CUDA toolkit: {error}")
    told = subprocess.run(
        [program, "-x", "cu", "--dryrun", "-E", os.devnull], capture_output=True, text=True
    )
    for folder in re.findall(r"(?:TOP|INCLUDES)=\s*\"?(?:-I)?([^\"\s]+)", told.stderr):
        for candidate in (Path(folder), Path(folder) / "include"):
            if (candidate / "cuda_runtime.h").exists():
                return candidate
    pytest.skip(f"{program} names no folder with cuda_runtime.h")


# --------------------------------------------------------------------- compiled for a GPU


@pytest.mark.slow
def test_every_kernel_compiles_for_three_architectures_without_spills(tmp_path: Path) -> None:
    try:
        built = build.build(target_for("cuda", isa=ARCHITECTURES), tmp_path, tell=lambda _: None)
    except NativeUnavailable as error:
        if shutil.which("nvcc") is None:
            pytest.skip(f"no CUDA toolkit: {error}")
        raise
    usages = ptxas.parse(built.log)
    kernels = Counter(usage.architecture for usage in usages)
    assert kernels.keys() == {"80", "90", "100"}
    assert min(kernels.values()) > 60, "the log names no kernels"
    assert [usage for usage in usages if usage.spilled] == []
    # 256 threads a block: two blocks fit on any of these GPUs.
    assert max(usage.registers for usage in usages) <= 128
    assert exported(built.path) == EXPORTED
    native.Library(built)  # has every function of abi.h; it loads without a GPU


def exported(library: Path) -> set[str]:
    done = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    )
    return {line.split()[-1] for line in done.stdout.splitlines() if line.split()[-2] == "T"}


# --------------------------------------------------------------------- their text


@pytest.mark.parametrize("path", sorted(SOURCES.iterdir()), ids=lambda path: path.name)
def test_sources_need_the_toolkit_alone_and_never_wait(path: Path) -> None:
    text = path.read_text()
    included = re.findall(r"#include [<\"]([^>\"]+)", text)
    assert not [name for name in included if re.match(r"torch|c10|ATen|pybind", name)]
    # The caller's stream and memory are all there is; sums are the same every time.
    for word in ("Synchronize", "cudaMalloc", "cudaFree", "cudaMemcpy", "atomicAdd", "<<<"):
        assert word not in text, f"{path.name} has {word}"


# --------------------------------------------------------------------- run on a CPU


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operators as a library for the CPU, each thread of a block a coroutine."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the emulated kernels")
    library = tmp_path_factory.mktemp("emulated") / "libemulated.so"
    sources = sorted(SOURCES.glob("*.cu"))
    flags = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
    done = subprocess.run(
        [
            *(compiler, *flags, "-Wno-unknown-pragmas", *SANITIZED),
            *("-isystem", str(include_folder()), f"-I{libraries.SOURCES}"),
            *("-x", "c++", "-include", str(HERE / "cuda_emulator.h")),
            *(*map(str, sources), "-o", str(library)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return library


@pytest.mark.slow
@pytest.mark.parametrize("group", ["epilogue", "upfirdn2d", "large", "refused"])
def test_kernels_run_on_a_cpu_as_the_reference_does(
    group: str, emulated: Path, repo_root: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / f"emulated_{group}.py"), str(emulated)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"},
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert [line for line in lines if line.startswith("failed")] == []
    # Killed by a forbidden page or by undefined behaviour: the last line names the case.
    assert done.returncode == 0, f"{lines[-1]}: status {done.returncode} {done.stderr}"
