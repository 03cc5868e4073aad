"""tools/gpu/headline where there is no GPU: in slices, with stand-ins for the long commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

STEPS = ("data", "generator", "export", "banks", "arms", "report")
KEY = "b" * 64

# Python as the script starts it: notes its words, and does what PLAN says of such a command.
PYTHON = """#!{python} -S
import json, os, signal, sys, time
words = sys.argv[1:]
if words[0] == "-c":
    print(json.dumps({{"gpu": None}}))
    sys.exit()
module, verb = words[1], words[2]
arm = words[words.index("--name") + 1] if "--name" in words else ""
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words[1:]) + "\\n")
plan = json.load(open(os.environ["PLAN"])).get(f"{{verb}} {{arm}}".strip(), {{}})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
time.sleep(plan.get("sleeps", 0))
until = time.monotonic() + 60
while not os.path.exists(plan.get("waits_for", ".")) and time.monotonic() < until:
    time.sleep(0.05)
if plan.get("status"):
    sys.exit(plan["status"])
out = words[words.index("--out") + 1] if "--out" in words else ""
if verb == "dataset":
    print(json.dumps([{{"name": "digits_lt", "state": "built in"}}]))
if verb == "train":
    print(json.dumps({{"generator": "a" * 64, "folder": os.environ["FOLDER"]}}))
if verb == "generators":
    print(json.dumps({{"kimg": 1}}))
if verb == "export-generator":
    open(words[4], "wb").write(b"weights")
if verb == "generate":
    print(json.dumps({{"key": "{key}"}}))
if verb == "bank":
    print(json.dumps({{"accepted": 1}}))
if verb == "run":
    folder = os.path.join(out, arm, "seed-" + words[words.index("--seed") + 1])
    os.makedirs(folder, exist_ok=True)
    open(os.path.join(folder, "result.json"), "w").write(json.dumps({{"arm": arm}}))
if verb == "report":
    open(out, "w").write("the table")
"""


class Machine:
    """A folder of results, and stand-ins for the commands."""

    def __init__(self, script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script, self.out, self.monkeypatch = script, folder / "out", monkeypatch
        python = folder / "python"
        python.write_text(PYTHON.format(python=sys.executable, key=KEY))
        python.chmod(0o755)
        self.python = str(python)
        self.plan_file, self.calls_file = folder / "plan.json", folder / "calls"
        (folder / "grid.png").write_bytes(b"picture")
        named = {"PLAN": self.plan_file, "CALLS": self.calls_file, "FOLDER": folder}
        for name, value in named.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("STYLEGAN_MIX_HOME", str(folder / "home"))
        self.plan()

    def plan(self, **told: dict[str, Any]) -> None:
        """Says what commands do, by verb and arm: `status`, `sleeps`, or `waits_for` a file."""
        self.plan_file.write_text(json.dumps({k.replace("__", " "): v for k, v in told.items()}))

    def words(self, *more: str) -> list[str]:
        small = ["--dataset", "digits_lt", "--kimg", "1", "--seeds", "1", "--device", "cpu"]
        return ["headline", *small, "--arms", "none", "hybrid", "--out", str(self.out), *more]

    def slice(self, *more: str) -> int:
        """One call of the script in this process; returns its status."""
        self.calls_file.write_text("")
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", self.words(*more))
            patch.setattr(sys, "executable", self.python)
            status: int = self.script.main()
        return status

    @property
    def calls(self) -> list[list[str]]:
        """The commands of the last slice, in their order, without the interpreter."""
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def verbs(self) -> list[str]:
        return [words[1] for words in self.calls]

    def read(self, step: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / f"{step}.json").read_text())
        return found


@pytest.fixture
def machine(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    path = repo_root / "tools" / "gpu" / "headline"
    monkeypatch.setattr(sys, "path", list(sys.path))  # which the script changes
    loader = SourceFileLoader("headline", str(path))
    script = module_from_spec(spec_from_loader("headline", loader))
    monkeypatch.setitem(sys.modules, "headline", script)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        loader.exec_module(script)
    return Machine(script, tmp_path, monkeypatch)


def test_each_step_leaves_its_json_and_is_not_done_again(machine: Machine) -> None:
    assert machine.slice() == 0
    assert machine.verbs == [
        *("dataset", "train", "generators", "export-generator", "generate", "run", "run", "report"),
    ]
    for step in STEPS:
        assert machine.read(step)["finished"], step
    assert machine.read("generator")["generator"] == "a" * 64
    assert machine.read("banks")["banks"]["w"]["key"] == KEY
    assert machine.read("arms")["runs"] == {
        name: {"arm": name.partition("/")[0]} for name in ("none/seed-0", "hybrid/seed-0")
    }
    assert (machine.out / "generator.safetensors").read_bytes() == b"weights"
    assert (machine.out / "grid.png").read_bytes() == b"picture"
    assert machine.slice() == 0
    assert machine.calls == []


def test_a_slice_that_is_over_goes_on_with_the_step_that_it_was_in(machine: Machine) -> None:
    machine.plan(train={"status": 75})
    assert machine.slice() == 75
    assert machine.verbs == ["dataset", "train"]
    assert (machine.out / "data.json").exists()
    assert not (machine.out / "generator.json").exists()
    machine.plan()
    assert machine.slice() == 0
    assert machine.verbs[0] == "train"


def test_long_commands_are_told_how_long_they_may_take(machine: Machine) -> None:
    assert machine.slice("--minutes", "2") == 0
    timed = {words[1]: "--minutes" in words for words in machine.calls}
    assert timed == {
        **dict.fromkeys(("train", "generate", "run"), True),
        **dict.fromkeys(("dataset", "generators", "export-generator", "report"), False),
    }
    minutes = [
        float(words[words.index("--minutes") + 1]) for words in machine.calls if timed[words[1]]
    ]
    assert all(0 < one <= 2 - machine.script.RESERVE / 60 for one in minutes)


def test_nothing_is_begun_without_time_for_it(machine: Machine) -> None:
    assert machine.slice("--minutes", "0.3") == 75
    assert machine.calls == []


def test_a_command_without_a_limit_of_its_own_is_ended_with_the_slice(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.script, "RESERVE", 1.0)
    monkeypatch.setattr(machine.script, "LEAST", 0.0)
    machine.plan(dataset={"sleeps": 60})
    began = time.monotonic()
    assert machine.slice("--minutes", "0.03") == 75
    assert time.monotonic() - began < 50


def test_a_failed_step_stops_those_that_need_it_and_no_others(machine: Machine) -> None:
    machine.plan(**{"export-generator": {"status": 4}})
    assert machine.slice() == 1
    assert machine.verbs[-1] == "report"
    assert not (machine.out / "export.json").exists()
    machine.plan()
    assert machine.slice() == 0
    assert machine.verbs == ["export-generator"]
    machine.plan(generate={"status": 3})
    assert machine.slice("--out", str(machine.out / "other")) == 1
    assert "run" not in machine.verbs


def test_a_finished_run_is_kept_if_another_is_stopped_or_fails(machine: Machine) -> None:
    machine.plan(run__hybrid={"status": 75})
    assert machine.slice("--beside", "2") == 75
    kept = machine.read("arms")
    assert (kept["finished"], list(kept["runs"])) == (False, ["none/seed-0"])
    machine.plan(run__hybrid={"status": 5})
    assert machine.slice() == 1
    assert machine.verbs == ["run"]
    machine.plan()
    assert machine.slice() == 0
    assert machine.verbs == ["run", "report"]
    assert len(machine.read("arms")["runs"]) == 2


def test_arms_run_side_by_side_but_not_more_than_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    most: list[int] = []
    gate = machine.plan_file.with_name("gate")
    begin = machine.script.Session.begin

    def counted(self: Any, module: str, words: Any, **more: Any) -> Any:
        started = begin(self, module, words, **more)
        if words[0] == "run":
            most.append(sum(one.poll() is None for one in self.running))
            if len(most) == 3:
                gate.touch()
        return started

    monkeypatch.setattr(machine.script.Session, "begin", counted)
    machine.plan(**{f"run {arm}": {"waits_for": str(gate)} for arm in ("none", "hybrid")})
    assert machine.slice("--beside", "3", "--seeds", "3") == 0
    assert max(most) == 3
    assert len(most) == 6


def test_results_of_other_options_are_refused(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine.slice() == 0
    assert machine.slice("--kimg", "2", "--n", "7") == 2
    assert "is of other options: kimg, n; give another --out" in capsys.readouterr().err
    (machine.out / "generator.json").write_text("{}")
    assert machine.slice() == 2
    assert "holds no result of a step" in capsys.readouterr().err


def test_every_bank_that_an_arm_reads_is_written_and_judged_where_it_is_asked_for(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine.slice("--arms", "none", "mixup") == 0
    assert "generate" not in machine.verbs
    out = str(machine.out / "other")
    near = ("--arm", "near=--aug hybrid --accept clean --bank near")
    bank = ("--bank", "near=--pairs near --fill balance")
    assert machine.slice("--out", out, "--arms", "pixel", "none", *near, *bank) == 0
    spaces = [words for words in machine.calls if words[1] == "generate"]
    assert spaces[0][spaces[0].index("--space") :][:2] == ["--space", "pixel"]
    assert spaces[1][spaces[1].index("--pairs") :][:2] == ["--pairs", "near"]
    judged = ["stylegan_mix", "bank", "judge", KEY, "--device", "cpu", "--json"]
    assert machine.calls.count(judged) == 2
    (run,) = (words for words in machine.calls if "near" in words and words[1] == "run")
    assert run[run.index("--bank") + 1] == KEY
    with pytest.raises(SystemExit):
        machine.slice("--arm", "near=--aug hybrid --bank far")
    assert (
        "arm near reads the bank far; there are w, fill, unmixed, pixel" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        machine.slice("--arm", "../near=--aug none")
    assert "--arm must be NAME=OPTIONS" in capsys.readouterr().err


def test_the_steps_write_commands_that_exist(machine: Machine) -> None:
    from stylegan_mix.cli import group as made
    from trainer.cli import group as trained

    programs = {"stylegan_mix": made, "trainer": trained}
    more = ("--arms", *machine.script.ARMS, "--epochs", "2", "--threads", "1", "--keep-critic")
    machine.slice(*more, "--train=--augment none", "--run=--no-flip")
    assert len(machine.calls) > 12
    for module, verb, *words in machine.calls:
        program = programs[module]
        command = program.get_command(click.Context(program), verb)
        if command is None and verb == "export-generator":
            continue  # not in this version
        assert command is not None, verb
        if isinstance(command, click.Group):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(verb, list(words))


def test_a_signal_stops_the_commands_and_keeps_what_is_finished(
    machine: Machine, repo_root: Path, tmp_path: Path
) -> None:
    machine.plan(train={"sleeps": 120})
    machine.calls_file.write_text("")
    code = (
        "import runpy, sys; sys.argv = sys.argv[2:]; sys.executable = sys.argv.pop();"
        "runpy.run_path('tools/gpu/headline', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "tools/gpu/headline", *machine.words(), machine.python]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    running = subprocess.Popen(command, cwd=repo_root, env=environment, stdout=subprocess.PIPE)
    _until(lambda: "train" in machine.verbs)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=100)
    assert running.returncode == 75
    assert machine.verbs == ["dataset", "train"]
    assert machine.read("data")["finished"]


def _until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, however slow the machine is."""
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it never came true")


@pytest.mark.slow
def test_the_headline_in_miniature(home: Path, tmp_path: Path, repo_root: Path) -> None:
    from stylegan_mix.cli import group

    out = tmp_path / "out"
    has_export = group.get_command(click.Context(group), "export-generator") is not None
    steps = [step for step in STEPS if step != "export" or has_export]
    command = [sys.executable, "tools/gpu/headline", "--dataset", "digits_lt", "--preset", "tiny8"]
    command += ["--kimg", "0.5", "--n", "128", "--epochs", "2", "--seeds", "1", "--device", "cpu"]
    command += ["--threads", "1", "--arms", "none", "hybrid", "--train", "--on-collapse go-on"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def slice(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--out", str(out), "--only", *steps, *more],
            cwd=repo_root,
            env=environment,
            capture_output=True,
            text=True,
        )

    first = slice("--minutes", "0.5")
    assert first.returncode in (0, 75), first.stderr
    last = slice("--minutes", "30")
    assert last.returncode == 0, last.stdout + last.stderr
    runs = json.loads((out / "arms.json").read_text())["runs"]
    assert {record["schema"] for record in runs.values()} == {"trainer-result/1"}
    assert "| hybrid | ce | resnet8 | 1 |" in (out / "report.md").read_text()
    if has_export:
        assert json.loads((out / "export.json").read_text())["bytes"] > 1000
