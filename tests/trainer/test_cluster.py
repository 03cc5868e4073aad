"""Sweeps on a cluster: jobs of submitit, without SLURM or with a made-up one."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix import store
from trainer import cluster
from trainer.cluster import Jobs, RunsOfJob, submit
from trainer.plan import Plan

GRID = """
[base]
dataset = "digits_lt"
epochs = 1
bn-refresh-batches = 1
seeds = 3

[[runs]]
aug = ["none", "mixup"]
"""
PATIENCE = 600  # seconds after which a process hangs, on the slowest machine

Trainer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("submitit", reason="the extra slurm is not installed")


@pytest.fixture
def slurm(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Any) -> Path:
    """A made-up SLURM: `sbatch` keeps the script and answers as the real one does."""
    place = tmp_path / "bin"
    place.mkdir()
    (tmp_path / "scripts").mkdir()
    script = f'#!/bin/sh\nn=$(ls {tmp_path}/scripts | wc -l)\ncp "$1" {tmp_path}/scripts/$n\n'
    (place / "sbatch").write_text(script + 'echo "Submitted batch job $((700 + n))"\n')
    (place / "srun").write_text("#!/bin/sh\nexit 1\n")
    for path in place.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    Path("grid.toml").write_text(GRID)
    return tmp_path / "scripts"


def commands_of(logs: Path) -> list[list[str]]:
    """The commands of every job that was submitted, job by job."""
    stored = sorted(logs.rglob("*submitted.pkl"), key=lambda path: path.stat().st_mtime)
    found = []
    for path in stored:
        found += [pickle.loads(path.read_bytes()).function.commands]
    return found


def test_the_missing_runs_are_submitted_as_one_array(
    slurm: Path, home: Path, trainer: Trainer
) -> None:
    words = ("--slurm", "--partition", "gpu", "--job-minutes", "90", "--cpus", "8", "--gpus", "1")
    words += ("--per-job", "2", "--jobs-at-once", "5", "--sbatch", "account=lab")
    code, out, err = trainer("sweep", "grid.toml", *words)
    assert code == 0, err
    assert out.split() == ["700_0", "700_1", "700_2"]
    assert "submitted 6 runs in 3 jobs" in err
    script = (slurm / "0").read_text()
    for line in (
        "--array=0-2%3",
        "--partition=gpu",
        "--time=90",
        "--cpus-per-task=8",
        "--gpus-per-node=1",
        "--account=lab",
        "--requeue",
        "--signal=USR2@120",
        "--job-name=trainer-sweep",
    ):
        assert f"#SBATCH {line}\n" in script
    jobs = commands_of(Path("runs/jobs"))
    assert [len(one) for one in jobs] == [2, 2, 2]
    told = [" ".join(one) for job in jobs for one in job]
    assert len(set(told)) == 6
    for one in told:
        assert one.startswith("trainer run --dataset digits_lt --aug ")
        assert f"--out {Path('runs').absolute()} --device auto --threads 8" in one


def test_jobs_are_few_at_once_and_by_default_one_run_each(
    slurm: Path, home: Path, trainer: Trainer
) -> None:
    code, out, _ = trainer("sweep", "grid.toml", "--slurm", "--jobs-at-once", "2", "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["runs"], len(told["jobs"])) == (6, 6)
    assert Path(told["logs"]) == Path("runs/jobs").absolute()
    script = (slurm / "0").read_text()
    assert "--array=0-5%2\n" in script and "--time=60\n" in script
    assert "gpus" not in script and "partition" not in script


def test_a_second_submission_skips_what_is_finished(
    slurm: Path, home: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished(plan: Plan, seed: int) -> Any:
        return object() if (plan.spec.aug, seed) == ("mixup", 1) else None

    monkeypatch.setattr(Plan, "finished", finished)
    code, out, err = trainer("sweep", "grid.toml", "--slurm")
    assert code == 0 and "submitted 5 runs in 5 jobs" in err
    told = [" ".join(one) for (one,) in commands_of(Path("runs/jobs"))]
    assert not [one for one in told if "mixup" in one and "--seed 1" in one]
    Path("grid.toml").write_text(GRID.replace("seeds = 3", "seeds = [1]").replace('"none", ', ""))
    code, out, err = trainer("sweep", "grid.toml", "--slurm")
    assert code == 0 and out == "" and "submitted 0 runs in 0 jobs" in err
    assert len(list(slurm.iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--partition", "gpu"), "--partition is for jobs on a cluster"),
        (("--job-minutes", "90"), "--job-minutes is for jobs on a cluster"),
        (("--sbatch", "a=b"), "--sbatch is for jobs on a cluster"),
        (("--slurm", "--workers", "2"), "--workers is for runs on this machine"),
        (("--slurm", "--workers", "1"), "--workers is for runs on this machine"),
        (("--slurm", "--minutes", "1"), "--minutes is for runs on this machine"),
        (("--slurm", "--sbatch", "account"), "--sbatch must be NAME=VALUE, in one line"),
        (("--slurm", "--sbatch", "a b=c"), "--sbatch must be NAME=VALUE, in one line"),
        (("--slurm", "--sbatch", "a=b\n#SBATCH --c=d"), "--sbatch must be NAME=VALUE, in one line"),
        (("--slurm", "--per-job", "0"), "--per-job"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    slurm: Path, home: Path, trainer: Trainer, words: tuple[str, ...], told: str
) -> None:
    code, _, err = trainer("sweep", "grid.toml", *words)
    assert code == 2 and told in err
    assert not list(slurm.iterdir())


def test_a_job_that_the_cluster_refuses_is_told_in_its_words(
    slurm: Path, home: Path, trainer: Trainer
) -> None:
    sbatch = slurm.parent / "bin" / "sbatch"
    sbatch.write_text('#!/bin/sh\necho "sbatch: error: invalid partition: gpo" >&2\nexit 1\n')
    code, _, err = trainer("sweep", "grid.toml", "--slurm", "--partition", "gpo")
    assert code == 4
    assert "SLURM takes no such jobs" in err and "invalid partition: gpo" in err


def test_without_slurm_the_message_says_so(
    library: Any, home: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    Path("grid.toml").write_text(GRID)
    code, _, err = trainer("sweep", "grid.toml", "--slurm")
    assert code == 4
    assert "srun" in err and "--print-commands" in err


def test_without_submitit_the_extra_is_named(
    home: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    Path("grid.toml").write_text(GRID)
    code, _, err = trainer("sweep", "grid.toml", "--slurm")
    assert code == 4
    assert "pip install 'stylegan-mix[slurm]'" in err
    assert not Path("runs").exists()


# Jobs that run


class Ends:
    """Made-up processes of commands: each ends with the code, after the lines, of its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **ends: tuple[int, str]) -> None:
        self.ends, self.begun = ends, list[str]()
        monkeypatch.setattr(cluster, "new_process", self)

    def __call__(self, words: list[str], **_: Any) -> subprocess.Popen[str]:
        self.begun.append(words[0])
        code, said = self.ends[words[0]]
        script = f"import sys; print({said!r}, file=sys.stderr); sys.exit({code})"
        return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)


def test_a_run_that_fails_does_not_keep_the_others_of_its_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = Ends(monkeypatch, good=(0, ""), bad=(5, "the loss was not finite"), last=(0, ""))
    with pytest.raises(RuntimeError, match=r"1 of 3 runs failed:\nexit code 5: bad"):
        RunsOfJob([["good"], ["bad"], ["last"]])()
    assert ends.begun == ["good", "bad", "last"]
    assert RunsOfJob([["good"], ["last"]])() == 2


def test_a_run_that_another_process_works_on_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"trainer: runs/x {store.WORKED_ON} another process"
    ends = Ends(monkeypatch, busy=(75, said), last=(0, ""))
    RunsOfJob([["busy"], ["last"]])()
    assert ends.begun == ["busy", "last"]
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("code", [75, 143])
def test_a_run_that_was_stopped_queues_its_job_again(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Queued(Exception):
        """The end of a job that is queued again."""

    def queued(*_: Any) -> None:
        raise Queued

    ends = Ends(monkeypatch, stopped=(code, "state saved"), last=(0, ""))
    with pytest.raises(RuntimeError, match="nothing here can queue its job again"):
        RunsOfJob([["stopped"], ["last"]])()
    before = signal.signal(signal.SIGUSR2, queued)
    try:
        with pytest.raises(Queued):
            RunsOfJob([["stopped"], ["last"]])()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert ends.begun == ["stopped"] * 2


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux lists the children")
def test_a_job_whose_end_is_announced_saves_and_is_queued_again(
    library: Any, home: Path, tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit's local executor in the place of SLURM; its controller starts a job again."""
    from submitit.local import local

    start, started = local.start_controller, list[subprocess.Popen[bytes]]()
    monkeypatch.setattr(
        local, "start_controller", lambda **words: started.append(start(**words)) or started[-1]
    )
    paths = [str(repo_root), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    run = ["trainer", "run", "--dataset", "digits_lt", "--device", "cpu", "--threads", "1"]
    run += ["--out", str(tmp_path / "runs"), "--epochs", "100000"]
    (controller,) = map(int, submit([run], Jobs(), tmp_path / "jobs", executor="local"))
    try:
        wait_for(lambda: list(tmp_path.glob("runs/*/seed-0/metrics.jsonl")))
        (folder,) = tmp_path.glob("runs/*/seed-0")
        wait_for(lambda: (folder / "metrics.jsonl").stat().st_size)
        assert not list(folder.glob("checkpoints/step-*"))  # one a minute, and this is the first
        first = children(controller)
        os.kill(first[0], signal.SIGUSR2)
        wait_for(lambda: children(controller) not in ([], first))
        assert list(folder.glob("checkpoints/step-*"))
        note = json.loads((folder / "run.json").read_text())
        wait_for(lambda: json.loads((folder / "run.json").read_text())["status"] == "running")
        assert note["status"] in ("stopped", "running")
        log = (tmp_path / "jobs" / f"{controller}_0_log.err").read_text()
        assert "stopped (SIGTERM): stage 'train', step" in log
    finally:
        tasks = children(controller)
        for process in started:
            process.kill()
            process.wait()
        for task in tasks:
            os.kill(task, signal.SIGKILL)


def children(process: int) -> list[int]:
    try:
        return [
            int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
