"""Runs side by side on one machine: each is an ordinary `trainer run` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from stylegan_mix import store
from stylegan_mix.errors import (
    Busy,
    Diverged,
    Failure,
    InvalidInput,
    MissingEnvironment,
    Stopped,
    UsageFailure,
)
from stylegan_mix.process import memory_bytes
from stylegan_mix.session import Session
from trainer.execute import How
from trainer.plan import Plan
from trainer.reports.records import RESULT_FILE

__all__ = ["new_process", "side_by_side", "threads_each", "workers_for"]

_FAILURES: dict[int, type[Failure]] = {
    kind.code: kind for kind in (UsageFailure, InvalidInput, MissingEnvironment, Diverged, Stopped)
}
_LOOKS_A_SECOND = 10
# Runs must not outlive the session that started them.
_START = (
    "from stylegan_mix.process import end_with_parent; end_with_parent(); "
    "from trainer.cli import main; main()"
)


# Of memory for a run: ResNet-32 with 128 images of 32 pixels takes 0.8 GB.
_BYTES_EACH = 2 << 30


def workers_for(runs: int, threads: int | None, device: str) -> int:
    """Chooses how many of so many runs go side by side: on a GPU one, on a CPU one a core.

    Threads of a run wait for each other at the end of every operator, runs do not
    (tools/bench/classifier.py). `threads` are those that each run has, if asked for; `device` is
    "cpu" or "cuda". Memory limits the number, too.
    """
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) // (threads or 1)
    return max(min(cores, runs, memory_bytes() // _BYTES_EACH), 1)


def threads_each(workers: int, asked: int | None) -> int:
    """Computes CPU threads of each of `workers` processes: the given, or a share of the cores."""
    return asked or max(len(os.sched_getaffinity(0)) // workers, 1)


def side_by_side(
    plans: Iterable[Plan], *, workers: int, how: How, session: Session
) -> Iterator[tuple[Plan, Failure | None]]:
    """Runs plans of one seed each, at most `workers` at once; yields each when it has ended.

    With a plan comes None, or the failure of its process. A requested stop is passed on to the
    processes, which save their state, and ends in `stop.failure` (exit code 75).
    """
    waiting = deque(plans)
    running: list[_Child] = []
    devices = _devices(how.device)
    stop = session.stop
    try:
        while waiting or running:
            while waiting and len(running) < workers and not stop.requested:
                used = Counter(child.device for child in running)
                device = min(devices, key=lambda one: used[one])
                running.append(_Child(waiting.popleft(), workers, device, how, session))
            if stop.requested:
                _end(running)
                raise stop.failure(saved=True, what=f"{len(waiting)} runs have not begun")
            time.sleep(1 / _LOOKS_A_SECOND)
            for child in [one for one in running if one.process.poll() is not None]:
                running.remove(child)
                yield child.plan, child.failure()
    finally:
        _end(running)


def _devices(asked: str) -> list[str]:
    """Lists the devices that runs are spread over: each GPU, where the choice is left."""
    if asked not in ("auto", "cuda"):
        return [asked]
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{number}" for number in range(count)] if count > 1 else [asked]


def _end(running: list[_Child]) -> None:
    """Asks every process to save and end, and waits for all of them."""
    for child in running:
        child.process.terminate()
    for child in running:
        child.process.wait()
        child.reader.join()


class _Child:
    """A process that runs one plan; its lines on stderr are passed on under its name."""

    def __init__(self, plan: Plan, workers: int, device: str, how: How, session: Session) -> None:
        self.plan, self.device, self._session = plan, device, session
        self._name = f"{plan.spec.arm} {plan.spec.recipe} seed {plan.spec.seed}"
        self._lines: deque[str] = deque(maxlen=20)
        words = [*plan.words(plan.spec.seed), "--out", str(plan.root), "--device", device]
        words += ["--threads", str(threads_each(workers, how.threads))]
        for option, path in (("--progress", how.progress), ("--tensorboard", how.tensorboard)):
            words += [] if path is None else [option, str(path.absolute())]
        self.process = new_process(words, stdout=subprocess.DEVNULL)
        self.reader = threading.Thread(target=self._hand_on, daemon=True)
        self.reader.start()

    def _hand_on(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.append(line.rstrip("\n"))
                self._session.say(f"[{self._name}] {self._lines[-1]}")

    def failure(self) -> Failure | None:
        """Returns the failure of the process, in its own words; None for a finished run.

        A run that another process worked on is finished by now, or the failure is `Busy`.
        """
        self.reader.join()
        code = self.process.returncode
        if code == 0:
            return None
        if code < 0:
            return self._ended_by(-code)
        folder = self.plan.folder(self.plan.spec.seed)
        if code == Busy.code and (folder / RESULT_FILE).is_file():
            return None
        lines = list(self._lines)
        # The other process may have let it go since.
        if code == Busy.code and any(store.WORKED_ON in line for line in lines):
            return Busy(f"{folder} {store.WORKED_ON} another process")
        starts = [at for at, line in enumerate(lines) if line.startswith("trainer: ")]
        text = "\n".join(lines[starts[-1] :]) if starts else "\n".join(lines[-3:])
        kind = _FAILURES.get(code, Failure)
        return kind(f"{self._name} (exit code {code}): {text.removeprefix('trainer: ')}")

    def _ended_by(self, number: int) -> Failure:
        """Makes the failure of a process that a signal ended; the other runs go on."""
        known = {one.value: one.name for one in signal.Signals}
        name = known.get(number, f"signal {number}")
        why = ", as the system does if memory runs out" if number == signal.SIGKILL else ""
        failure = MissingEnvironment(
            f"{self._name} was ended by {name}{why}",
            remedy="the same command goes on from its saved state; try fewer --workers",
        )
        failure.of_one_process = True
        return failure


def new_process(words: list[str], *, stdout: int | None) -> subprocess.Popen[str]:
    """Starts a command of `trainer`, given by its words, that does not outlive this process.

    Its stderr is a pipe. `stdout` is that of `subprocess.Popen`.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _START, *words[1:]],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": _with_this_package()},
        # Signals from outside reach this process alone, which passes them on as a request to save.
        start_new_session=True,
    )


def _with_this_package() -> str:
    """Makes a search path on which a new process finds the packages of this one."""
    root = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
