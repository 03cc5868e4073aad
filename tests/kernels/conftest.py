"""A test that asks for `operators`, `native` or `implementation` runs with each of those."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kernels import NativeUnavailable, build, dispatch, libraries, native
from kernels.toolchain import INSTRUCTION_SETS, target_for

IMPLEMENTATIONS = (
    "reference",
    "native",
    pytest.param("cuda", marks=pytest.mark.cuda),
)


@pytest.fixture(params=IMPLEMENTATIONS)
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The device on which to call the operators; KERNELS is set for the implementation."""
    return _chosen(request.param, monkeypatch)


@pytest.fixture(params=IMPLEMENTATIONS[:2])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which operators run on the CPU: "reference", "native"."""
    _chosen(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture(name="native")
def _native(operators: torch.device, request: pytest.FixtureRequest) -> torch.device:
    """The device of compiled operators, one after another."""
    if "reference" in request.node.callspec.id:
        pytest.skip("the registered operators are those of the compiled kernels")
    return operators


def _chosen(name: str, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    device = "cuda" if name == "cuda" else "cpu"
    monkeypatch.setenv("KERNELS", "reference" if name == "reference" else "native")
    try:
        dispatch.backend(device)
    except NativeUnavailable as error:
        pytest.skip(f"no compiled operators here: {error}")
    return torch.device(device)


# --------------------------------------------------------------------- a stand-in to build

# Builds in a moment. The epilogue answers its `act` as its status; scratch memory is its n.
STUB = """
#include "../abi.h"
KERNELS_EXPORT int32_t kernels_abi_version(void) { return KERNELS_ABI_VERSION; }
KERNELS_EXPORT const char *kernels_error_text(int32_t e) { return e == -1 ? "no such case" : 0; }
KERNELS_EXPORT int32_t kernels_epilogue(const KernelsEpilogue *e, const void *, void *,
                                        const KernelsRun *) { return e->act; }
KERNELS_EXPORT int64_t kernels_epilogue_backward_workspace(const KernelsEpilogue *e,
                                                           const KernelsEpilogueBackward *) {
    return e->n;
}
KERNELS_EXPORT int32_t kernels_epilogue_backward(const KernelsEpilogue *,
    const KernelsEpilogueBackward *, const KernelsRun *) { return 0; }
KERNELS_EXPORT int64_t kernels_epilogue_double_backward_workspace(
    const KernelsEpilogue *, const KernelsEpilogueDoubleBackward *) { return 0; }
KERNELS_EXPORT int32_t kernels_epilogue_double_backward(const KernelsEpilogue *,
    const KernelsEpilogueDoubleBackward *, const KernelsRun *) { return 0; }
KERNELS_EXPORT int64_t kernels_upfirdn2d_workspace(const KernelsUpfirdn2d *) { return 0; }
KERNELS_EXPORT int64_t kernels_conv3x3_workspace(const KernelsConv3x3 *, const KernelsRun *) {
    return 0;
}
KERNELS_EXPORT int32_t kernels_conv3x3(const KernelsConv3x3 *, const void *, const void *, void *,
                                       const KernelsRun *) { return 0; }
KERNELS_EXPORT int64_t kernels_conv3x3_gradient_workspace(const KernelsConv3x3 *,
                                                          const KernelsRun *) { return 0; }
KERNELS_EXPORT int32_t kernels_conv3x3_gradient(const KernelsConv3x3 *, const void *, const void *,
                                                void *, const KernelsRun *) { return 0; }
KERNELS_EXPORT int64_t kernels_batch_moments_workspace(const KernelsBatchNorm *) { return 0; }
KERNELS_EXPORT int32_t kernels_batch_moments(const KernelsBatchNorm *, const void *, void *, void *,
                                             const KernelsRun *) { return 0; }
KERNELS_EXPORT int64_t kernels_batch_norm_workspace(const KernelsBatchNorm *) { return 0; }
KERNELS_EXPORT int32_t kernels_batch_norm(const KernelsBatchNorm *, const void *, const void *,
                                          void *, const KernelsRun *) { return 0; }
KERNELS_EXPORT int64_t kernels_batch_norm_backward_workspace(const KernelsBatchNorm *) { return 0; }
KERNELS_EXPORT int32_t kernels_batch_norm_backward(const KernelsBatchNorm *,
    const KernelsBatchNormBackward *, const KernelsRun *) { return 0; }
"""
OTHER = """
#include "../abi.h"
KERNELS_EXPORT int32_t kernels_upfirdn2d(const KernelsUpfirdn2d *, const void *, void *,
                                         const KernelsRun *run) {
    int sum = 0;
#pragma omp parallel for reduction(+ : sum) num_threads(run->threads)
    for (int i = 0; i < 100; i++) sum += i;
    return sum == 4950 ? 0 : KERNELS_UNSUPPORTED;
}
"""

# A compiler that notes what it compiles, and takes its time where it is told to.
NOTING = """#!/bin/sh
case "$*" in *" -c "*) echo "$*" >>"{log}"; sleep "${{COMPILER_SECONDS:-0}}" ;; esac
exec {compiler} "$@"
"""


@dataclass(frozen=True)
class Workshop:
    """Sources of a stand-in for the operators, with a compiler and a cache of their own."""

    folder: Path

    @property
    def sources(self) -> Path:
        return self.folder / "csrc"

    @property
    def cache(self) -> Path:
        return self.folder / "home" / "kernels"

    def compiled(self) -> list[str]:
        """The sources that were compiled since the last call, in alphabetical order."""
        log = self.folder / "compiled"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        words = [line.split() for line in lines]
        return sorted(Path(line[line.index("-c") + 1]).name for line in words)

    def program(self, name: str, text: str) -> str:
        """Makes an executable of a shell script, and answers its path."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def start(self, code: str, **environment: str) -> subprocess.Popen[str]:
        """A new process that sees the same sources and the same cache."""
        places = (
            "from pathlib import Path\n"
            "from kernels import build, libraries, native, toolchain\n"
            f"libraries.SOURCES = Path({str(self.sources)!r})\n"
            f"libraries.PREBUILT = Path({str(self.folder / 'none')!r})\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", places + code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(libraries.SOURCES.parent.parent), **environment},
        )


@pytest.fixture
def workshop(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A stand-in for the operators; nothing is built yet. Skips without a compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine")
    shop = Workshop(tmp_path)
    (shop.sources / "cpu").mkdir(parents=True)
    shutil.copy(repo_root / "kernels" / "csrc" / "abi.h", shop.sources)
    (shop.sources / "cpu" / "stub.cpp").write_text(STUB, encoding="utf-8")
    (shop.sources / "cpu" / "other.cpp").write_text(OTHER, encoding="utf-8")
    noting = NOTING.format(log=tmp_path / "compiled", compiler=compiler)
    monkeypatch.setenv("CXX", shop.program("noting", noting))
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KERNELS", raising=False)
    monkeypatch.setattr(libraries, "SOURCES", shop.sources)
    monkeypatch.setattr(libraries, "PREBUILT", tmp_path / "none")
    # As in a new process.
    monkeypatch.setattr(native, "_libraries", {})
    monkeypatch.setattr(dispatch, "_decided", {})
    monkeypatch.setattr(dispatch, "_warned", set())
    return shop


@pytest.fixture
def no_compiler(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Sources without anything that could build them."""
    monkeypatch.setenv("PATH", str(workshop.folder / "empty"))
    monkeypatch.delenv("CXX")
    return workshop


def instruction_sets() -> list[str]:
    known = list(INSTRUCTION_SETS)
    return known[: known.index(target_for("cpu").isa) + 1]


@pytest.fixture(scope="session", params=instruction_sets())
def library(request: pytest.FixtureRequest) -> native.Library:
    """The library of each instruction set of this CPU.

    A session's fixture sees the cache of the user, where libraries stay.
    """
    try:
        return native.Library(build.obtain(build.target_for("cpu", isa=request.param)))
    except NativeUnavailable as error:
        pytest.skip(f"no compiled operators here: {error}")
