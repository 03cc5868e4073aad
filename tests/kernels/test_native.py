"""The mirror of csrc/abi.h, loading, errors, and what a compiled library is called in keys."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import timeit
from collections.abc import Callable
from ctypes import byref
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import NativeUnavailable, abi, build, dispatch, libraries, native, toolchain
from kernels.reference import ACTIVATIONS

STRUCTURES = {
    "KernelsRun": abi.Run,
    "KernelsEpilogue": abi.Epilogue,
    "KernelsEpilogueBackward": abi.EpilogueBackward,
    "KernelsEpilogueDoubleBackward": abi.EpilogueDoubleBackward,
    "KernelsUpfirdn2d": abi.Upfirdn2d,
    "KernelsConv3x3": abi.Conv3x3,
    "KernelsBatchNorm": abi.BatchNorm,
    "KernelsBatchNormBackward": abi.BatchNormBackward,
}


@pytest.fixture(scope="module")
def header(repo_root: Path) -> str:
    return (repo_root / "kernels" / "csrc" / "abi.h").read_text(encoding="utf-8")


# --------------------------------------------------------------------- the mirror


def test_structures_lie_in_memory_as_a_compiler_lays_them(repo_root: Path, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or pytest.skip("no g++ on this machine")
    told = "".join(
        f'std::printf("{name} %zu\\n", sizeof({name}));\n'
        + "".join(
            f'std::printf("{name}.{field[0]} %zu %zu\\n", offsetof({name}, {field[0]}), '
            f"sizeof({name}::{field[0]}));\n"
            for field in structure._fields_
        )
        for name, structure in STRUCTURES.items()
    )
    source = tmp_path / "layout.cpp"
    source.write_text(
        f'#include <cstddef>\n#include <cstdio>\n#include "abi.h"\nint main() {{\n{told}}}\n'
    )
    csrc = str(repo_root / "kernels" / "csrc")
    program = str(tmp_path / "layout")
    subprocess.run([compiler, "-I", csrc, str(source), "-o", program], check=True, timeout=600)
    done = subprocess.run([program], check=True, capture_output=True, text=True, timeout=600)
    mirrored = []
    for name, structure in STRUCTURES.items():
        mirrored.append(f"{name} {ctypes.sizeof(structure)}")
        for field, _ in structure._fields_:
            place = getattr(structure, field)
            mirrored.append(f"{name}.{field} {place.offset} {place.size}")
    assert mirrored == done.stdout.splitlines()


def test_every_field_of_the_header_is_mirrored_in_order(header: str) -> None:
    bare = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", bare, re.DOTALL):
        fields = re.findall(r"(\w+)\s*[,;]", body)
        assert fields == [field for field, _ in STRUCTURES[name]._fields_]


def test_constants_are_those_of_the_header(header: str) -> None:
    told = {name: int(number) for name, number in re.findall(r"KERNELS_(\w+) = (-?\d+)", header)}
    version = re.search(r"KERNELS_ABI_VERSION (\d+)", header)
    assert version is not None
    assert int(version[1]) == abi.ABI_VERSION
    assert {name.upper(): number for name, number in abi.ACTS.items()}.items() <= told.items()
    assert abi.ACTS.keys() == ACTIVATIONS.keys()
    for dtype, number in abi.DTYPES.items():
        assert told[str(dtype).removeprefix("torch.").upper()] == number
    assert told["CHANNELS_FIRST"] == abi.CHANNELS_FIRST
    assert told["CHANNELS_LAST"] == abi.CHANNELS_LAST
    assert (told["UNSUPPORTED"], told["NO_MEMORY"]) == (abi.UNSUPPORTED, abi.NO_MEMORY)


def test_every_function_of_the_header_is_declared_with_its_arguments(header: str) -> None:
    bare = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    told = {
        name: (result, len(arguments.split(",")))
        for result, name, arguments in re.findall(
            r"KERNELS_EXPORT (\w+) (kernels_\w+)\(([^)]*)\);", bare
        )
    }
    assert told.pop("kernels_abi_version") == ("int32_t", 1)
    kinds = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64}
    assert {name: (kinds[result], count) for name, (result, count) in told.items()} == {
        name: (result, len(arguments)) for name, (result, arguments) in abi.FUNCTIONS.items()
    }


# --------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (-1, NotImplementedError, r"kernels_epilogue: no such case \(error -1\)"),
        (-2, MemoryError, "kernels_epilogue: unknown error"),
        (700, RuntimeError, r"^CUDA error in .*\(error 700\)"),
    ],
)
def test_what_a_function_answers_is_raised(
    workshop: Any, status: int, error: type[Exception], text: str
) -> None:
    run, library = abi.Run(threads=1), native.library("cpu")
    assert library.kernels_epilogue(byref(abi.Epilogue(act=0)), None, None, byref(run)) == 0
    assert library.kernels_upfirdn2d(byref(abi.Upfirdn2d()), None, None, byref(run)) == 0
    with pytest.raises(error, match=text):
        library.kernels_epilogue(byref(abi.Epilogue(act=status)), None, None, byref(run))


def test_bytes_of_scratch_memory_are_no_error(workshop: Any) -> None:
    size = native.library("cpu").kernels_epilogue_backward_workspace
    none = byref(abi.EpilogueBackward())
    assert size(byref(abi.Epilogue(n=2**40)), none) == 2**40
    with pytest.raises(NotImplementedError):
        size(byref(abi.Epilogue(n=-1)), none)


def test_a_library_of_another_border_is_refused(workshop: Any) -> None:
    header = workshop.sources / "abi.h"
    text = header.read_text().replace("ABI_VERSION 1", "ABI_VERSION 99")
    header.write_text(text)
    with pytest.raises(NativeUnavailable, match=r"speaks version 99 .* this package version 1;"):
        native.library("cpu")


def test_a_library_that_lacks_a_function_is_refused(workshop: Any) -> None:
    (workshop.sources / "cpu" / "other.cpp").unlink()
    with pytest.raises(NativeUnavailable, match=r"undefined symbol: kernels_upfirdn2d.*remove the"):
        native.library("cpu")


def test_what_is_no_library_is_refused_with_the_folder_to_remove(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one for another kind of machine, as whole as it was built."""
    path = build.obtain(toolchain.target_for("cpu")).path
    path.unlink()
    path.write_bytes(b"not a library")
    monkeypatch.setattr(libraries, "_whole", lambda _: True)
    with pytest.raises(NativeUnavailable, match=f"remove the folder {path.parent}"):
        native.library("cpu")


def test_a_failure_is_remembered_and_told_alike(workshop: Any) -> None:
    (workshop.sources / "cpu" / "stub.cpp").write_text("this is no C++\n")
    told = []
    for _ in range(3):
        with pytest.raises(NativeUnavailable) as caught:
            native.library("cpu")
        told.append(str(caught.value))
    assert len(set(told)) == 1
    assert workshop.compiled().count("stub.cpp") == 1


def test_the_process_keeps_the_one_openmp_runtime_of_pytorch(workshop: Any) -> None:
    if toolchain.openmp() is None:
        pytest.skip("this PyTorch brings no GNU OpenMP runtime")
    code = """
from ctypes import byref
from kernels import abi
run = abi.Run(threads=2)
native.library("cpu").kernels_upfirdn2d(byref(abi.Upfirdn2d()), None, None, byref(run))
maps = {line.split()[-1] for line in open("/proc/self/maps")}
print(*(path for path in maps if "omp" in Path(path).name.partition(".")[0]))
"""
    out, err = workshop.start(code).communicate(timeout=600)
    assert out.split() == [str(toolchain.openmp())], err


# --------------------------------------------------------------------- cost and keys


def test_the_choice_costs_less_than_to_look_into_the_environment(workshop: Any) -> None:
    def cost(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, number=2000, repeat=30))

    native.library("cpu")
    assert dispatch.enabled("cpu")
    assert cost(lambda: dispatch.enabled("cpu")) < cost(lambda: os.environ.get("KERNELS"))


def test_identity_names_what_computes(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = native.library("cpu").built
    assert dispatch.identity("cpu") == f"native-{built.isa}-{built.digest[:12]}"
    assert dispatch.identity("cpu:0") == dispatch.identity()
    monkeypatch.setenv("KERNELS", "reference")
    assert dispatch.identity() == "reference"


def test_identity_follows_the_instruction_set(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert dispatch.identity().startswith("native-baseline-")
