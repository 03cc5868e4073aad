"""The run of a recipe, stage after stage, in a folder that allows to resume at any moment.

`weights/<stage>/` holds finished stages, `checkpoints/` an unfinished one. So a run that was killed
goes on with the same command and, on a CPU, ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stylegan_mix import store
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import (
    Diverged,
    Failure,
    Interrupted,
    Stopped,
)
from stylegan_mix.process import resolve_device, slow_precision
from stylegan_mix.session import Session
from trainer.engine import evaluate, record
from trainer.engine.folder import Finished, RunFolder, environment_of
from trainer.engine.portions import Portions
from trainer.engine.stage import StageRun, Work, steps_of
from trainer.inputs import final_weights, load_data, open_inputs
from trainer.models.size import size_of
from trainer.reports import records
from trainer.settings import check
from trainer.spec import RunSpec

__all__ = ["budget", "disk_bytes", "run_recipe"]


def budget(spec: RunSpec, data: Dataset) -> dict[str, Any]:
    """Computes the cost of a run: epochs and steps of its stages, images, evaluations."""
    own = check(spec).own_stages(given_teacher=bool(spec.teacher))
    steps = sum(steps_of(spec, stage, data) for stage in own)
    return {
        "stages": [
            {"name": s.name, "epochs": s.epochs(spec.epochs), "steps": steps_of(spec, s, data)}
            for s in own
        ],
        "steps": steps,
        "images": sum(
            Portions(
                spec, stage, images=len(data.train.labels), steps=steps_of(spec, stage, data)
            ).images
            for stage in own
        ),
        "eval_every": evaluate.interval(spec, len(data.train.labels), len(data.test.labels)),
    }


def disk_bytes(spec: RunSpec, data: Dataset) -> int:
    """Estimates the bytes that a run needs on the disk.

    The weights of each stage stay. During the run, two checkpoints hold weights and momenta.
    """
    size = size_of(
        spec.model, classes=data.num_classes, channels=data.channels, side=data.resolution
    )
    own = check(spec).own_stages(given_teacher=bool(spec.teacher))
    return 4 * size.numbers * (len(own) + 4)


def run_recipe(
    spec: RunSpec,
    folder: Path,
    *,
    session: Session = Session(),
    device: str = "cpu",
    command: str = "trainer.engine.run.run_recipe",
    sources: Mapping[str, str] | None = None,
    label: str = "training",
    checkpoint_seconds: float = 60.0,
) -> dict[str, Any]:
    """Runs `spec` in `folder` from where an earlier call stopped, and returns its result.

    A finished run returns its stored result at once. If the session requests a stop, the run ends
    after the current step with the failure of that request. `device` is "auto", "cpu", "cuda" or
    "cuda:<index>". `sources` gives the source of each setting; `label` heads the progress lines.
    `MissingEnvironment` (exit code 4) before the first step, if the disk is too small.
    """
    chosen = check(spec)
    at = RunFolder(folder)
    with store.locked(folder / records.LOCK_FILE, wait=False, session=session):
        if (folder / records.RESULT_FILE).exists():
            found = records.finished(folder, spec, load_data(spec.data))
            if found is not None:
                return found.record
        at.begin(spec, sources or {}, command)
        try:
            place = torch.device(resolve_device(device))
            if slow := slow_precision(spec.precision, place.type):
                session.say(slow)
            work = Work(spec, chosen, at, session, place, open_inputs(spec))
            need = disk_bytes(spec, work.inputs.data) - store.bytes_in(folder)
            store.free_space(folder, max(need, 0), f"the run in {folder}")
            result = _stage_after_stage(work, command, label, checkpoint_seconds)
        except BaseException as error:
            at.end(spec, *_end(error))
            raise
        at.write_result(result)
        at.end(spec, "done", 0)
        at.clear_checkpoints()
        return result


def _stage_after_stage(
    work: Work, command: str, label: str, checkpoint_seconds: float
) -> dict[str, Any]:
    spec = work.spec
    work.folder.require_inputs(work.inputs.identity)
    environment = environment_of(work.device, spec.precision)
    store.write_json(work.folder.path / "env.json", environment)
    own = work.recipe.own_stages(given_teacher=bool(spec.teacher))
    done: dict[str, Finished] = {}
    before: list[dict[str, Any]] = []  # events of the finished stages of this run
    for number, stage in enumerate(work.recipe.stages):
        if stage not in own and spec.teacher:
            done[stage.name] = Finished.load(final_weights(Path(spec.teacher.folder)))
            continue
        weights = work.folder.path / "weights" / stage.name
        if not weights.is_dir():
            heading = f"{label}, {stage.name}" if len(own) > 1 else label
            StageRun(work, stage, number, done, before).train(weights, heading, checkpoint_seconds)
        done[stage.name] = Finished.load(weights)
        before = before + done[stage.name].facts["history"]
    work.folder.write_history(before)
    trained = {stage.name: done[stage.name] for stage in own}
    taught_by = [done[name] for name in work.recipe.taught.teachers]
    return record.of_run(
        spec, work.inputs, trained, taught_by, command=command, environment=environment
    )


def _end(error: BaseException) -> tuple[str, int]:
    """Names, for `run.json`, the end of a run by this error, with its exit code."""
    if isinstance(error, Interrupted):
        return "stopped", 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return "stopped", 130
    if isinstance(error, Diverged | Stopped):
        return "diverged" if isinstance(error, Diverged) else "stopped", error.code
    return "failed", error.code if isinstance(error, Failure) else 1
