"""tools/gpu/kernels where there is no GPU: stand-ins for the programs of a machine that has one."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

STEPS = ("build", "check", "measure", "memcheck", "racecheck", "networks")

# Python as the script starts it; what each kind of call does, STAND_IN says.
PYTHON = """#!{python} -S
import json, os, sys, time
words, plan = sys.argv[1:], json.loads(os.environ["STAND_IN"])
if "find_spec" in words[1]:
    print(json.dumps(plan["facts"]))
    sys.exit()
if words[:2] == ["-m", "kernels.build"]:
    kind = "build"
elif words[0] == "tools/bench/kernels.py":
    kind = "bench"
else:
    kind = "pytest" if "pytest" in words[1] else "selfcheck"
told = plan.get(kind, {{}})
print("this is", kind, os.environ["PYTHONPATH"], flush=True)
time.sleep(told.get("sleeps", 0))
print(told.get("says", ""))
for word in words:
    if word.startswith("--junitxml=") and "cases" in told:
        cases = "".join(f"<testcase classname='t' name='n{{at}}'>{{one}}</testcase>"
                        for at, one in enumerate(told["cases"]))
        open(word.split("=", 1)[1], "w").write(f"<testsuite>{{cases}}</testsuite>")
if "writes" in told:
    open(words[words.index("--out") + 1], "w").write(json.dumps(told["writes"]))
sys.exit(told.get("status", 0))
"""

# Runs what it is given, as the real one does, and takes its status unless it finds something.
SANITIZER = """#!/bin/sh
tool=$2
while [ "${1#--}" != "$1" ]; do shift 2; done
"$@" && [ "$tool" != "$FINDS" ] || exit "${STATUS:-9}"
"""

ROW = {
    "operator": "up2",
    "pass": "forward",
    "shape": [64, 512, 8, 8],
    "dtype": "float32",
    "layout": "nhwc",
    "floor_device_ms": 0.02,
    "times": {"native": {"device_ms": 0.03}, "plain": {"device_ms": 0.12}},
    "native_over_floor": 1.5,
}
MEASURED = {"machine": {"gpu": "a card"}, "seed": 0, "rows": [ROW], "failed": {}, "left_out": []}
GOOD: dict[str, Any] = {
    "facts": {"python": "3.12", "torch": "2.11", "gpu": "a card", "missing": []},
    "build": {"says": "/somewhere/kernels_cuda_90.so"},
    "pytest": {"cases": ["", ""]},
    "bench": {"writes": MEASURED},
}


@dataclass(frozen=True)
class Machine:
    """A folder of programs, and what the script said there."""

    folder: Path
    root: Path

    def program(self, name: str, text: str) -> str:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def run(
        self, *options: str, plan: dict[str, Any] | None = None, **changes: str
    ) -> tuple[int, dict[str, Any], str]:
        """(status, the JSON, what was printed)."""
        out = self.folder / "out"
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "STAND_IN": json.dumps({**GOOD, **(plan or {})}),
            **changes,
        }
        python = ["--python", str(self.folder / "bin" / "python")]
        done = subprocess.run(
            [sys.executable, "tools/gpu/kernels", "--out", str(out), *python, *options],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
        )
        path = out / "kernels.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        return done.returncode, result, done.stdout + done.stderr


@pytest.fixture
def machine(tmp_path: Path, repo_root: Path) -> Machine:
    """A machine with everything that the script asks for."""
    found = Machine(tmp_path, repo_root)
    found.program("python", PYTHON.format(python=sys.executable))
    found.program("nvidia-smi", "#!/bin/sh\necho a card, driver 580\n")
    found.program("compute-sanitizer", SANITIZER)
    return found


@pytest.fixture(scope="module")
def script(repo_root: Path) -> ModuleType:
    """The script as a module."""
    loader = SourceFileLoader("gpu_kernels", str(repo_root / "tools" / "gpu" / "kernels"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = sys.modules[loader.name] = module_from_spec(spec)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = bytecode
    return module


def ends(result: dict[str, Any]) -> dict[str, str]:
    return {step: one["outcome"] for step, one in result["steps"].items()}


# --------------------------------------------------------------------- what is told


def test_one_file_holds_what_every_step_did_and_all_that_was_measured(
    machine: Machine, script: ModuleType
) -> None:
    status, result, printed = machine.run(PYTHONPATH="/brought/along")
    assert status == 0, printed
    assert ends(result) == dict.fromkeys(STEPS, "ok")
    assert result["hardware"] == "a card, driver 580"
    assert result["versions"]["torch"] == "2.11"
    assert result["command"].startswith("python tools/gpu/kernels --out ")
    assert result["seeds"] == {"tests": 0, "measure": 0}
    measured = result["measurements"]
    assert measured["machine"] == {"gpu": "a card"}
    assert measured["rows"] == [{"part": part, **ROW} for part in script.MEASURED]
    assert result["steps"]["check"]["passed"] == 2
    assert result["steps"]["memcheck"]["ran"] == ["t::n0", "t::n1"]
    (command,) = result["steps"]["memcheck"]["commands"]
    assert script.CHOSEN["memcheck"] in command
    assert "× the floor 1.5  plain / ours 4.0" in printed
    log = (machine.folder / "out" / "kernels.log").read_text()
    for kind in ("build", "pytest", "bench"):
        assert f"this is {kind} {machine.root}:/brought/along\n" in log
    assert {path.suffix for path in (machine.folder / "out").iterdir()} == {".json", ".log"}
    assert len(list((machine.folder / "out").glob("*.json"))) == 1


def test_without_a_gpu_only_the_build_starts(machine: Machine) -> None:
    (machine.folder / "bin" / "nvidia-smi").unlink()
    blind = {"facts": {**GOOD["facts"], "gpu": None}}
    status, result, printed = machine.run(plan=blind)
    assert status == 1
    assert result == {}
    assert "neither nvidia-smi nor PyTorch sees a GPU" in printed
    assert machine.run("--only", "build", plan=blind)[0] == 0


# --------------------------------------------------------------------- what is no success

SKIPPED = "<skipped message='no compiled operators here: nvcc'>x</skipped>"
FAILED = "<failure message='y is off by 3'>x</failure>"
BAD = {
    "every test is skipped": ({"cases": [SKIPPED] * 2}, "2 of 2 tests skipped, as t::n0: no comp"),
    "one test is skipped": ({"cases": ["", SKIPPED]}, "1 of 2 tests skipped"),
    "one test fails": ({"cases": ["", FAILED], "status": 1}, "as t::n1: y is off by 3"),
    "a test has an error": ({"cases": ["", "<error message='gone'/>"], "status": 1}, "gone"),
    "no test is there": ({"cases": [], "status": 5}, "0 tests passed, and the process"),
    "no report, and a good end": ({}, "0 tests passed"),
    "a crash after the report": ({"cases": [""], "status": 139}, "ended with status 139"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_check_is_good_only_if_tests_ran_and_passed(name: str, machine: Machine) -> None:
    told, why = BAD[name]
    status, result, printed = machine.run("--only", "check", plan={"pytest": told})
    assert status == 1
    assert ends(result) == {"check": "failed"}
    assert why in result["steps"]["check"]["why"]
    assert why in printed


def test_real_cuda_tests_that_skip_fail_the_check(machine: Machine) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, on which they run")
    machine.program("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    few = "-k identity --override-ini=addopts= --import-mode=importlib"
    status, result, _ = machine.run("--only", "check", PYTEST_ADDOPTS=few)
    assert status == 1
    check = result["steps"]["check"]
    assert check["outcome"] == "failed"
    assert re.match(r"(\d+) of \1 tests skipped", check["why"])
    assert "no CUDA device on this machine" in check["why"]


def test_what_does_not_build_is_not_run_and_spills_are_no_reason_to_stop(machine: Machine) -> None:
    status, result, _ = machine.run(plan={"build": {"status": 4}})
    assert status == 1
    assert ends(result) == {"build": "failed", **dict.fromkeys(STEPS[1:], "not done")}
    assert result["steps"]["check"]["why"] == "nothing was built"
    spilled = {**GOOD["build"], "status": 1}
    status, result, _ = machine.run("--only", "build", "check", plan={"build": spilled})
    assert status == 1
    assert ends(result) == {"build": "failed", "check": "ok"}
    assert result["steps"]["build"]["why"] == "registers spill"


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_what_the_sanitizer_finds_fails_its_step(tool: str, machine: Machine) -> None:
    status, result, _ = machine.run("--only", "memcheck", "racecheck", FINDS=tool)
    assert status == 1
    assert ends(result) == {"memcheck": "ok", "racecheck": "ok", tool: "failed"}
    assert f"{tool} found errors" in result["steps"][tool]["why"]


def test_a_sanitizer_that_runs_nothing_has_found_nothing_good(machine: Machine) -> None:
    machine.program("compute-sanitizer", "#!/bin/sh\necho ERROR SUMMARY: 0 errors\n")
    status, result, _ = machine.run("--only", "memcheck")
    assert (status, ends(result)) == (1, {"memcheck": "failed"})
    machine.program("compute-sanitizer", "#!/bin/sh\necho Device not supported; exit 1\n")
    status, result, _ = machine.run("--only", "memcheck")
    assert (status, ends(result)) == (4, {"memcheck": "not done"})


def test_without_a_sanitizer_nothing_is_sanitised_and_that_is_said(machine: Machine) -> None:
    if Path("/usr/local/cuda/bin/compute-sanitizer").exists():
        pytest.skip("it is installed, where the script finds it")
    (machine.folder / "bin" / "compute-sanitizer").unlink()
    status, result, printed = machine.run()
    assert status == 4
    undone = dict.fromkeys(("memcheck", "racecheck"), "not done")
    assert ends(result) == {**dict.fromkeys(STEPS, "ok"), **undone}
    assert "compute-sanitizer is not installed" in printed


def test_without_pytest_the_self_check_runs_and_counts_as_not_done(machine: Machine) -> None:
    bare = {"facts": {**GOOD["facts"], "missing": ["pytest", "hypothesis"]}}
    status, result, printed = machine.run("--only", "check", "memcheck", plan=bare)
    assert status == 4
    assert ends(result) == {"check": "not done", "memcheck": "not done"}
    assert "no pytest and hypothesis for" in printed
    assert "the self-check in their place passed" in printed
    wrong = {**bare, "selfcheck": {"status": 1}}
    status, result, _ = machine.run("--only", "check", plan=wrong)
    assert (status, ends(result)) == (1, {"check": "failed"})


UNSEEN = {**ROW, "native_over_floor": None}
UNMEASURED = {
    "no kernel was seen": ({"writes": {**MEASURED, "rows": [UNSEEN]}}, "have no time on the GPU"),
    "nothing was measured": ({"writes": {**MEASURED, "rows": []}}, "of 0 rows"),
    "a case raised": (
        {"writes": {**MEASURED, "failed": {"up2": "no"}}, "status": 1},
        "('up2', 'no",
    ),
    "it did not start": ({"says": "no such option", "status": 2}, "('large', 'no such option')"),
}


@pytest.mark.parametrize("name", UNMEASURED)
def test_a_measurement_without_times_on_the_gpu_has_failed(name: str, machine: Machine) -> None:
    told, why = UNMEASURED[name]
    status, result, _ = machine.run("--only", "measure", plan={"bench": told})
    assert (status, ends(result)) == (1, {"measure": "failed"})
    assert why in result["steps"]["measure"]["why"]


# --------------------------------------------------------------------- limits


@pytest.mark.slow
def test_every_step_keeps_its_limit_and_the_next_ones_run(machine: Machine) -> None:
    slow = {"pytest": {**GOOD["pytest"], "sleeps": 3600}, "bench": {"sleeps": 3600}}
    began = time.monotonic()
    steps = ("build", "check", "measure")
    status, result, _ = machine.run("--minutes", "0.4", "--only", *steps, plan=slow)
    assert time.monotonic() - began < 600, "a step was left to end by itself"
    assert status == 1
    assert ends(result) == {"build": "ok", "check": "failed", "measure": "failed"}


def test_what_there_is_no_time_for_is_named(machine: Machine, script: ModuleType) -> None:
    # A step's share of half a minute is less than a process of the benchmark is worth.
    status, result, _ = machine.run("--minutes", "0.3", "--only", "measure")
    assert status == 1
    left_out = result["measurements"]["left_out"]
    assert left_out == [f"{part}: {options}" for part, options in script.MEASURED.items()]
    some = {**MEASURED, "left_out": ["blur 8x8"]}
    status, result, _ = machine.run("--only", "measure", plan={"bench": {"writes": some}})
    assert status == 0
    assert "large: blur 8x8" in result["measurements"]["left_out"]
    assert "5 cases left out for want of time" in result["steps"]["measure"]["why"]


def test_what_ran_before_the_limit_is_told_and_is_not_all(machine: Machine) -> None:
    half = {"pytest": {**GOOD["pytest"], "status": 2}}
    status, result, _ = machine.run("--only", "check", plan=half)
    assert (status, ends(result)) == (4, {"check": "stopped"})
    assert result["steps"]["check"]["why"] == "by its limit; until then 2 tests passed"


# However slow the machine, it is in its second test that the time is over.
TIME_IS_OVER = """
import signal, time
def test_a(): pass
def test_b():
    assert signal.alarm(1) > 1000
    time.sleep(600)
"""


def test_pytest_reports_what_ran_when_its_time_is_over(script: ModuleType, tmp_path: Path) -> None:
    path, report = tmp_path / "test_it.py", tmp_path / "it.xml"
    path.write_text(TIME_IS_OVER)
    command = [sys.executable, "-c", script.PYTEST, "1800", str(path), f"--junitxml={report}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == script.INTERRUPTED, done.stdout
    tests = script.outcomes(report)
    assert [name.partition("::")[2] for name in tests["passed"]] == ["test_a"]
    assert script.judged(done.returncode, tests)[0] == "stopped"


def test_the_limits_of_all_steps_fit_eight_minutes(script: ModuleType) -> None:
    assert list(script.ENDS) == list(script.STEPS) == list(STEPS)
    assert sorted(script.ENDS.values()) == list(script.ENDS.values())
    assert script.ENDS["networks"] == script.ALL == 8


# --------------------------------------------------------------------- what it asks of others


def test_the_benchmark_knows_every_option_that_it_is_given(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    bench = importlib.import_module("tools.bench.kernels")
    sizes = {}
    for part, options in script.MEASURED.items():
        monkeypatch.setattr(sys, "argv", ["kernels.py", *options.split()])
        sizes[part] = [math.prod(shape) for shape in bench._options().shape]
    # Of twice the second-level cache of the largest card: 60 MB of bfloat16 or more.
    assert all(size * 2 > 120e6 for size in sizes["large"])


WANTED = {
    "memcheck": {
        "test_value_and_both_derivatives": (
            *("blur", "wide blur", "up", "down", "long up", "long down", "odd rates"),
            *("many blocks", "epilogue of many", "own noise"),
        ),
        "test_strange_strides_are_read_rightly": ("many blocks", "epilogue of many", "wide blur"),
    },
    "racecheck": {
        "test_value_and_both_derivatives": ("many blocks", "epilogue of many", "own noise"),
    },
}


@pytest.mark.parametrize("tool", WANTED)
def test_the_sanitizers_see_every_kind_of_kernel(
    tool: str, script: ModuleType, repo_root: Path
) -> None:
    table = ["tests/kernels/test_operators.py", "-m", "cuda", "-k", script.CHOSEN[tool]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *table],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    found = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    for test, names in WANTED[tool].items():
        own = [one for one in found if one.startswith(f"{test}[")]
        for name in names:
            assert any(f"-{name}]" in one or f"-{name}-" in one for one in own), (test, name)
    table_rows = [one for one in found if one.startswith("test_value_and_both")]
    for kind in ("float16", "bfloat16", "float32", "nhwc", "nchw"):
        assert any(f"-{kind}" in one for one in table_rows)
    assert not any("float64" in one for one in table_rows)
    assert all("cuda" in one for one in found)
    assert len(found) <= 80
