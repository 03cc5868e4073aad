"""The builder: what a digest covers, locks, caches, the command, and what is said when it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import (
    NativeUnavailable,
    build,
    dispatch,
    libraries,
    native,
    ptxas,
    selfcheck,
    toolchain,
)
from kernels.toolchain import Target

CPU = Target("cpu", "baseline")
GPU = Target("cuda", "80,90,100")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


# --------------------------------------------------------------------- what decides


def test_the_digest_covers_sources_headers_target_and_compiler(workshop: Any) -> None:
    def digest(target: Target = CPU, compiler: str = "g++ 12") -> str:
        return libraries.digest(libraries.specification(target, compiler))

    first = digest()
    assert first == digest()
    others = {first, digest(Target("cpu", "avx2")), digest(compiler="g++ 13")}
    others.add(digest(Target("cpu", "baseline", "address")))
    append(workshop.sources / "cpu" / "stub.cpp", "// a change\n")
    others.add(digest())
    append(workshop.sources / "abi.h", "// a change\n")
    others.add(digest())
    (workshop.sources / "cpu" / "third.cpp").touch()
    others.add(digest())
    assert len(others) == 7
    before = digest()
    (workshop.sources / "cpu" / ".third.cpp.swp").touch()
    (workshop.sources / "cpu" / "notes.txt").touch()
    assert digest() == before


def test_arguments_of_the_compiler_make_another_library(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.environ["CXX"]
    names, paths = set(), set()
    for arguments in ("", " -DFOO", " -O0 -DFOO", " -fno-tree-vectorize", ""):
        monkeypatch.setenv("CXX", plain + arguments)
        monkeypatch.setattr(native, "_libraries", {})  # as in a new process
        built = native.library("cpu").built
        assert built.facts["compiler"].endswith(arguments)
        assert len(workshop.compiled()) == (0 if built.path in paths else 2)
        names.add(dispatch.identity())
        paths.add(built.path)
    assert len(names) == len(paths) == 4


@pytest.mark.parametrize(
    ("ours", "wanted", "covered"),
    [
        (Target("cpu", "avx2"), Target("cpu", "avx2"), True),
        (Target("cpu", "avx512"), Target("cpu", "avx2"), False),
        (Target("cpu", "avx2", "address"), Target("cpu", "avx2"), False),
        (GPU, Target("cuda", "90"), True),
        (GPU, Target("cuda", "86"), True),
        (GPU, Target("cuda", "75"), False),
        (GPU, Target("cuda", "120"), True),
        (Target("cuda", "86"), Target("cuda", "80"), False),
        (Target("cuda", "80"), Target("cuda", "90"), True),
        (GPU, CPU, False),
    ],
)
def test_a_library_serves_the_machines_it_holds_code_for(
    ours: Target, wanted: Target, covered: bool
) -> None:
    assert ours.covers(wanted) == covered


@pytest.mark.parametrize("variable", ["STYLEGAN_MIX_HOME", "XDG_CACHE_HOME", None])
def test_the_cache_lies_in_the_store(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix import store

    for name in ("STYLEGAN_MIX_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "place"))
    assert libraries.cache() == store.home() / "kernels"


def test_machines_without_a_gpu_build_for_three_and_others_for_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KERNELS_CUDA_ARCHS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert toolchain.target_for("cuda") == GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda at: [(9, 0), (8, 6), (9, 0)][at]
    )
    assert toolchain.target_for("cuda").isa == "86,90"
    monkeypatch.setenv("KERNELS_CUDA_ARCHS", "100,80")
    assert toolchain.target_for("cuda").isa == "80,100"
    monkeypatch.setenv("KERNELS_CUDA_ARCHS", "sm_80")
    with pytest.raises(NativeUnavailable, match="write it as 80,90,100"):
        toolchain.target_for("cuda")


# --------------------------------------------------------------------- building


def test_a_library_is_built_once_and_found_again(workshop: Any) -> None:
    built = build.obtain(CPU)
    assert workshop.compiled() == ["other.cpp", "stub.cpp"]
    assert built.path == workshop.cache / built.digest / "kernels_cpu_baseline.so"
    facts = json.loads((built.path.parent / "build.json").read_text())
    assert facts["compiler"].startswith("g++ ") and facts["sources"].keys() >= {"abi.h"}
    again = build.obtain(CPU)
    assert (again.path, again.facts) == (built.path, built.facts)
    assert build.main(["--isa", "baseline", "--into", str(workshop.folder / "elsewhere")]) == 0
    assert workshop.compiled() == ["other.cpp", "stub.cpp"], "another place is another cache"


def test_only_what_changed_is_compiled_again_whatever_the_times_of_files(workshop: Any) -> None:
    unit = workshop.sources / "cpu" / "stub.cpp"
    first = build.obtain(CPU)
    workshop.compiled()
    append(unit, "// a change\n")
    os.utime(unit, (0, 0))  # as files of an older package are
    second = build.obtain(CPU)
    assert workshop.compiled() == ["stub.cpp"]
    append(workshop.sources / "abi.h", "// a change\n")
    third = build.obtain(CPU)
    assert workshop.compiled() == ["other.cpp", "stub.cpp"]
    assert len({first.path, second.path, third.path}) == 3
    assert all(built.path.exists() for built in (first, second, third))


def test_sources_that_change_while_they_are_compiled_are_compiled_again(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_once = build._compile
    calls = []

    def meddling(*arguments: Any, **options: Any) -> str:
        calls.append(1)
        library = compile_once(*arguments, **options)
        if len(calls) == 1:
            append(workshop.sources / "cpu" / "stub.cpp", "// a change\n")
        return library

    monkeypatch.setattr(build, "_compile", meddling)
    built = build.obtain(CPU)
    assert len(calls) == 2
    wanted = libraries.specification(CPU, built.facts["compiler"])
    assert built.digest == libraries.digest(wanted)


def test_a_killed_build_is_no_obstacle(workshop: Any) -> None:
    code = "build.obtain(toolchain.Target('cpu', 'baseline'))"
    killed = workshop.start(code, COMPILER_SECONDS="1")
    wait_for(workshop.folder / "compiled")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=600)
    assert libraries.search(workshop.cache, libraries.specification(CPU, "")) is None
    # Its compilers hold the lock until they end, and nothing does after them.
    assert build.obtain(CPU).path.exists()


def test_of_two_processes_at_once_one_builds_and_the_other_says_for_whom_it_waits(
    workshop: Any,
) -> None:
    code = "print(build.obtain(toolchain.Target('cpu', 'baseline')).path)"
    both = [workshop.start(code, COMPILER_SECONDS="1") for _ in range(2)]
    told = [process.communicate(timeout=600) for process in both]
    assert told[0][0] == told[1][0] != ""
    assert workshop.compiled() == ["other.cpp", "stub.cpp"]
    names = [f"process {process.pid} on {os.uname().nodename}" for process in both]
    waited = [
        f"waiting for {name}, which builds" in err
        for name, (_, err) in zip(names, told[::-1], strict=True)
    ]
    assert sum(waited) == 1


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


# --------------------------------------------------------------------- other places


def test_a_library_of_the_environment_comes_first_whatever_built_it(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = workshop.folder / "prebuilt"
    built = build.build(CPU, place)
    workshop.compiled()
    monkeypatch.setattr(libraries, "PREBUILT", place)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.obtain(CPU).path == built.path
    with pytest.raises(NativeUnavailable, match="CXX=no-such-compiler names no program"):
        build.obtain(Target("cpu", "avx2"))


def test_without_a_compiler_the_library_of_another_machine_serves(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build.obtain(CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.obtain(CPU).path == built.path
    append(workshop.sources / "abi.h", "// a change\n")
    with pytest.raises(NativeUnavailable):
        build.obtain(CPU)


def test_another_compiler_builds_anew_and_damaged_folders_are_passed_over(workshop: Any) -> None:
    built = build.obtain(CPU)
    manifest = built.path.parent / "build.json"
    facts = json.loads(manifest.read_text())
    manifest.unlink()
    manifest.write_text(json.dumps({**facts, "compiler": "g++ 1"}))
    (workshop.cache / "damaged").mkdir()
    (workshop.cache / "damaged" / "build.json").write_text('["kernels"]')
    workshop.compiled()
    again = build.obtain(CPU)
    assert again.digest == built.digest, "the folder whose manifest lied is replaced"
    assert json.loads(manifest.read_text()) == facts


# --------------------------------------------------------------------- what is said


def failure(target: Target = CPU) -> str:
    with pytest.raises(NativeUnavailable) as caught:
        build.obtain(target)
    return str(caught.value)


def test_a_compile_error_shows_the_first_and_where_all_are(workshop: Any) -> None:
    append(workshop.sources / "cpu" / "stub.cpp", "int f() { return undeclared; }\n")
    text = failure()
    assert "'undeclared' was not declared" in text
    log = re.search(r"All of it is in (\S+)\.", text)
    assert log is not None
    assert "'undeclared' was not declared" in Path(log[1]).read_text()
    assert "name it with CXX" in text


def test_a_function_that_is_nowhere_is_told_when_the_library_is_linked(workshop: Any) -> None:
    unit = workshop.sources / "cpu" / "other.cpp"
    append(unit, "int nowhere(); KERNELS_EXPORT int32_t used(void) { return nowhere(); }\n")
    assert "undefined reference to `nowhere()'" in failure()


def test_a_full_disk_is_told_as_such(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        'case "$*" in *--version*) echo "g++ 1";; *) echo "No space left on device"; exit 1; esac'
    )
    with monkeypatch.context() as during:
        during.setenv("CXX", workshop.program("full", f"#!/bin/sh\n{said}\n"))
        assert "is full; free some space" in failure()

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", no_space)
    assert "is full; free some space" in failure()
    assert [path.name for path in workshop.cache.iterdir()] == [".objects"], "no litter"


def test_a_folder_that_cannot_be_written_is_named(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.folder / "file").touch()
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(workshop.folder / "file"))
    assert re.search(r"file/kernels\S* cannot be written .* STYLEGAN_MIX_HOME", failure())


def test_a_compiler_that_does_not_run_is_named(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", workshop.program("broken", "#!/bin/sh\nexit 1\n"))
    assert re.search(r"broken does not run .* CXX", failure())


def test_a_missing_ninja_is_named(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name.endswith("ninja") else name)
    assert "pip install ninja" in failure()


def test_a_missing_nvcc_and_one_of_another_cuda_are_named(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.sources / "cuda").mkdir()
    (workshop.sources / "cuda" / "stub.cu").touch()
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with monkeypatch.context() as during:
        during.setattr(shutil, "which", lambda _: None)
        assert "install the CUDA toolkit 12.8 or set CUDA_HOME" in failure(GPU)
    (workshop.folder / "bin").mkdir()
    workshop.program("bin/nvcc", '#!/bin/sh\necho "compilation tools, release 13.0, V13.0.88"\n')
    monkeypatch.setenv("CUDA_HOME", str(workshop.folder))
    text = failure(GPU)
    assert "is of CUDA 13.0, PyTorch of CUDA 12.8; set CUDA_HOME to a toolkit 12.x" in text


@pytest.mark.parametrize(
    ("capability", "bf16", "isa"),
    [
        ("AVX512", True, "avx512_bf16"),
        ("AVX512", False, "avx512"),
        ("AVX2", True, "avx2"),
        ("NO AVX", True, "baseline"),
    ],
)
def test_the_instruction_set_is_what_pytorch_runs_with(
    monkeypatch: pytest.MonkeyPatch, capability: str, bf16: bool, isa: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    facts = {"avx512_bf16": bf16}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts, raising=False)
    assert toolchain.target_for("cpu").isa == isa
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert toolchain.target_for("cpu").isa == isa.removesuffix("_bf16")


# --------------------------------------------------------------------- the command


def test_the_command_prints_the_library_or_ends_with_4(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(["--isa", "all"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == [
        f"kernels_cpu_{isa}.so" for isa in ("baseline", "avx2", "avx512", "avx512_bf16")
    ]
    append(workshop.sources / "abi.h", "// a change\n")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.main(["--isa", "avx2"]) == 4
    assert capsys.readouterr().err.startswith("error: cpu_avx2: CXX=no-such-compiler")


def test_sanitizers_are_the_cpus_and_for_a_gpu_the_command_names_another_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        build.main(["--device", "cuda", "--sanitize", "address"])
    assert end.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--sanitize address is for --device cpu" in told
    assert "compute-sanitizer" in told


def test_old_libraries_leave_a_folder_that_was_named(workshop: Any) -> None:
    place = workshop.folder / "prebuilt"
    for change in range(build.KEPT + 2):
        append(workshop.sources / "cpu" / "other.cpp", f"// change {change}\n")
        assert build.main(["--isa", "baseline", "--into", str(place)]) == 0
    kept = list(place.glob("*/*.so"))
    assert len(kept) == build.KEPT
    wanted = libraries.specification(CPU, "")
    assert libraries.search(place, wanted) is not None


PTXAS = """\
ptxas info    : Compiling entry function '_Z5heavyPf' for 'sm_80'
ptxas info    : Function properties for _Z5heavyPf
    40 bytes stack frame, 24 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_Z5lightPf' for 'sm_90'
ptxas info    : Function properties for _Z5lightPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


def test_what_ptxas_says_becomes_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    usages = ptxas.parse(PTXAS)
    assert usages == [
        ptxas.Usage("_Z5heavyPf", "80", registers=255, spilled=40, shared=1024),
        ptxas.Usage("_Z5lightPf", "90", registers=8, spilled=0, shared=0),
    ]
    rows = [line.split() for line in ptxas.table(usages[::-1]).splitlines()]
    assert rows[1:] == [
        ["_Z5heavyPf", "80", "255", "40", "1024"],
        ["_Z5lightPf", "90", "8", "0", "0"],
    ]


@pytest.mark.parametrize(("spilled", "status"), [(24, 1), (0, 0)])
def test_spills_end_the_command_with_1(
    spilled: int, status: int, workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workshop.sources / "cuda").mkdir()
    (workshop.sources / "cuda" / "stub.cu").touch()
    (workshop.folder / "bin").mkdir()
    report = PTXAS.replace("24 bytes", f"{spilled} bytes").replace("16 bytes", "0 bytes")
    script = f"cat <<'END'\n{report}release 13.0, V13\nEND\n"
    makes = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && touch "$2"; shift; done\n'
    workshop.program("bin/nvcc", f"#!/bin/sh\n{script}{makes}")
    monkeypatch.setenv("CUDA_HOME", str(workshop.folder))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert build.main(["--device", "cuda", "--isa", "80,90", "--check-spills"]) == status


# --------------------------------------------------------------------- the real sources


def test_cuda_sources_need_no_headers_of_pytorch(repo_root: Path) -> None:
    for path in (repo_root / "kernels" / "csrc").rglob("*.*"):
        included = re.findall(r'#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"))
        assert not [name for name in included if name.startswith(("ATen", "c10", "torch"))], path


@pytest.mark.slow
@pytest.mark.parametrize("isa", toolchain.INSTRUCTION_SETS)
def test_every_instruction_set_builds_and_agrees_with_the_reference(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list(toolchain.INSTRUCTION_SETS)
    if order.index(isa) > order.index(toolchain.target_for("cpu").isa):
        pytest.skip(f"this machine has no {isa}")
    built = build.build(Target("cpu", isa), tmp_path)
    assert "warning: " not in built.log
    monkeypatch.setattr(native, "_libraries", {"cpu": native.Library(built)})
    monkeypatch.setattr(dispatch, "_decided", {})
    assert [outcome for outcome in selfcheck.outcomes("cpu") if not outcome.good] == []
