"""The runs of a sweep as jobs of a cluster, submitted to SLURM through the package submitit.

A job runs a few commands, one after another. Each is an ordinary `trainer run`, so a job that was
stopped at any moment goes on when it is queued again, and skips what is finished.
"""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stylegan_mix import store
from stylegan_mix.errors import MissingEnvironment, Stopped
from stylegan_mix.progress import say
from trainer.workers import new_process

__all__ = ["Jobs", "RunsOfJob", "require_submitit", "submit"]

# Seconds from the signal before the end of a job's time, or before it is preempted, to that end.
_NOTICE = 120
# Times that a job may reach the end of its time and be queued again.
_MOST_TIMEOUTS = 10_000
# Ends of a run that another start goes on from: stopped on request, and SIGTERM before any state.
_RESUMABLE = (Stopped.code, 128 + signal.SIGTERM)
_LOOKS_A_SECOND = 10


@dataclass(frozen=True)
class Jobs:
    """The size of the jobs of a sweep: minutes, CPUs and GPUs of each, and the runs in it.

    At most `parallel` jobs run at once; `more` are further options of `sbatch`, by name, without
    their dashes.
    """

    minutes: int = 60
    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    runs: int = 1
    parallel: int = 256
    more: dict[str, str] = field(default_factory=dict)


def require_submitit() -> None:
    """Raises `MissingEnvironment` (exit code 4), with the command to install it, if it is missing.

    It is not imported.
    """
    if find_spec("submitit") is None:
        raise MissingEnvironment(
            "--slurm needs the package submitit, which is not installed",
            remedy="pip install 'stylegan-mix[slurm]', or --print-commands for any other scheduler",
        )


def submit(
    commands: Sequence[list[str]], jobs: Jobs, logs: Path, *, executor: str = "slurm"
) -> list[str]:
    """Submits jobs for commands of `trainer`, as one array; returns their ids.

    Logs are written to the folder `logs`, which all machines must share. `executor` "local" starts
    the jobs on this machine instead. Raises `MissingEnvironment` (exit code 4) without SLURM, and
    with its words if it takes no such job.
    """
    require_submitit()
    import submitit

    parts = [commands[at : at + jobs.runs] for at in range(0, len(commands), jobs.runs)]
    try:
        made = submitit.AutoExecutor(logs, cluster=executor, slurm_max_num_timeout=_MOST_TIMEOUTS)
        made.update_parameters(
            name="trainer-sweep",
            timeout_min=jobs.minutes,
            cpus_per_task=jobs.cpus,
            slurm_partition=jobs.partition,
            slurm_array_parallelism=jobs.parallel,
            slurm_signal_delay_s=_NOTICE,
            slurm_additional_parameters={"requeue": True, **jobs.more},
            **({"gpus_per_node": jobs.gpus} if jobs.gpus else {}),
        )
        with made.batch():
            found = [made.submit(RunsOfJob(part)) for part in parts]
        return [str(job.job_id) for job in found]
    except Exception as error:
        said = str(error).strip() or type(error).__name__
        raise MissingEnvironment(
            f"SLURM takes no such jobs: {said}",
            remedy="look at its message; a long array takes fewer jobs with a larger "
            "--per-job; --print-commands prints the commands for another scheduler",
        ) from error


class RunsOfJob:
    """The work of one job: the commands of its runs.

    When the cluster announces the end of the job, the run under way saves its state, and the job
    is queued again. A run that another process works on is left to it.
    """

    def __init__(self, commands: Sequence[list[str]]) -> None:
        self.commands = [list(words) for words in commands]
        self._child: _Child | None = None

    def __call__(self) -> int:
        """Runs the commands; returns the number of runs, or raises naming those that failed."""
        failed = []
        for words in self.commands:
            self._child = _Child(words)
            code = self._child.end()
            if code in _RESUMABLE and not self._child.left_to_another:
                self._queue_again()
            elif code and not self._child.left_to_another:
                failed.append(f"exit code {code}: {shlex.join(words)}")
        if failed:
            raise RuntimeError(
                f"{len(failed)} of {len(self.commands)} runs failed:\n" + "\n".join(failed)
            )
        return len(self.commands)

    def checkpoint(self) -> Any:
        """Ends the run under way with its state saved; submitit then queues the job again."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            self._child.stop()
        return DelayedSubmission(RunsOfJob(self.commands))

    def __getstate__(self) -> dict[str, Any]:
        return {"commands": self.commands, "_child": None}

    def _queue_again(self) -> None:
        """Asks submitit, as the cluster does, to queue this job again."""
        name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
        number = signal.Signals[f"SIG{name}"]
        if signal.getsignal(number) in (signal.SIG_DFL, None):
            raise RuntimeError("a run was stopped, and nothing here can queue its job again")
        os.kill(os.getpid(), number)


class _Child:
    """A process that runs one command; its lines are passed on.

    A thread waits for it, and all else looks at `code`: a signal handler that waited for the
    process, while the main thread does, would wait for ever.
    """

    def __init__(self, words: list[str]) -> None:
        say(shlex.join(words))
        self.code: int | None = None
        self.left_to_another = False
        self._process = new_process(words, stdout=None)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.left_to_another |= store.WORKED_ON in line
                say(line.rstrip("\n"))
        self.code = self._process.wait()

    def end(self) -> int:
        """Waits for its end; returns the exit code."""
        while self.code is None:
            time.sleep(1 / _LOOKS_A_SECOND)
        return self.code

    def stop(self) -> None:
        """Asks it to save its state and end, and waits for that."""
        if self.code is None:
            self._process.send_signal(signal.SIGTERM)
        self.end()
