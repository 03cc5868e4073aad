"""The run of a recipe, stage after stage, in a folder that allows to resume at any moment.

`weights/<stage>/` holds finished stages, `checkpoints/` an unfinished one. So a run that was killed
goes on with the same command and, on a CPU, ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from stylegan_mix import store
from stylegan_mix.datasets import Dataset
from stylegan_mix.errors import (
    Diverged,
    Failure,
    Interrupted,
    InvalidInput,
    MissingEnvironment,
    Stopped,
    is_out_of_memory,
)
from stylegan_mix.process import resolve_device, slow_precision
from stylegan_mix.session import Session
from stylegan_mix.world import World
from trainer.curves import NO_CURVES, Curves
from trainer.engine import evaluate, processes, record
from trainer.engine.folder import Finished, RunFolder, environment_of
from trainer.engine.portions import Portions
from trainer.engine.stage import StageRun, Work, steps_of
from trainer.inputs import final_weights, load_data, open_inputs
from trainer.models.size import without_memory
from trainer.reports import records
from trainer.settings import check
from trainer.spec import FEWEST_IN_BATCH, RunSpec

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

    The weights of each stage stay. During the run, two checkpoints hold weights and momenta, and
    those of a copy that follows the network.
    """
    chosen = check(spec)
    model = without_memory(
        spec.model, classes=data.num_classes, channels=data.channels, head=chosen.head
    )
    numbers = sum(value.numel() for value in model.state_dict().values())
    own = chosen.own_stages(given_teacher=bool(spec.teacher))
    followers = any(stage.objective.needs.follower for stage in own)
    return 4 * numbers * (len(own) + 4 + 2 * followers)


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
    curves: Curves = NO_CURVES,
    world: World = World(),
) -> dict[str, Any]:
    """Runs `spec` in `folder` from where an earlier call stopped, and returns its result.

    A finished run returns its stored result at once. If the session requests a stop, the run ends
    after the current step with the failure of that request. `device` is "auto", "cpu", "cuda" or
    "cuda:<index>". `sources` gives the source of each setting; `label` heads the progress lines;
    `curves` get the numbers of each epoch. In a `world` of several processes all call this alike;
    the first writes, and the others return an empty record.
    `MissingEnvironment` (exit code 4) before the first step, if the disk is too small.
    """
    chosen = check(spec)
    processes.require_splitting(chosen, world)
    at, word = RunFolder(folder), processes.Beginning(world)

    def opened() -> Work:
        place = _place(device, world)
        if slow := slow_precision(spec.precision, place.type):
            session.say(slow)
        return Work(spec, chosen, at, session, place, open_inputs(spec), curves, world)

    if not world.leads:
        if word.hear():
            _stage_after_stage(opened(), command, label, checkpoint_seconds)
        return {}
    try:
        with store.locked(folder / records.LOCK_FILE, wait=False, session=session):
            if (folder / records.RESULT_FILE).exists():
                found = records.finished(folder, spec, load_data(spec.data))
                if found is not None:
                    word.tell(finished=True)
                    return found.record
            at.begin(spec, sources or {}, command)
            try:
                work = opened()
                need = disk_bytes(spec, work.inputs.data) - store.bytes_in(folder)
                store.free_space(folder, max(need, 0), f"the run in {folder}")
                work.folder.require_inputs(work.inputs.identity)
                word.tell()
                result = _stage_after_stage(work, command, label, checkpoint_seconds)
            except RuntimeError as error:
                failure = _of_machine(error, spec, world)
                at.end(spec, *_end(failure))
                raise failure from error
            except BaseException as error:
                at.end(spec, *_end(error))
                raise
            at.write_result(result)
            at.end(spec, "done", 0)
            at.clear_checkpoints()
            return result
    except BaseException:
        word.tell(fails=True)
        raise


def _place(device: str, world: World) -> torch.device:
    """Chooses the device of this process; of several, each has the GPU that it joined with."""
    name = resolve_device(device)
    if world.size > 1 and name.startswith("cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


def _of_machine(error: RuntimeError, spec: RunSpec, world: World) -> Exception:
    """Translates an out-of-memory or GPU error for the user; returns other errors unchanged."""
    why, goes_on = f"{error}".partition("\n")[0], "the same command goes on from the saved state"
    if is_out_of_memory(error):
        smaller = max(spec.batch // 2, FEWEST_IN_BATCH)
        return MissingEnvironment(
            f"out of memory, with batches of {spec.most_rows} in {world.size} process(es): {why}",
            remedy=f"{goes_on} once there is more; else, as another run, --batch {smaller}",
        )
    if "CUDA error" in why:  # PyTorch's and the compiled operators'
        return MissingEnvironment(f"the GPU failed: {why}", remedy=f"{goes_on}, on a sound GPU")
    return error


def _environment(work: Work) -> dict[str, Any]:
    """Describes and stores the environment; tells how it differs from where the run began."""
    path = work.folder.path / "env.json"
    now = environment_of(work.device, work.spec.precision)
    if work.world.size > 1:
        now["processes"] = work.world.size
    if not work.world.leads:
        return now
    with suppress(InvalidInput, MissingEnvironment):  # there is none yet, or it is damaged
        before = store.read_json(path, limit=records.LARGEST_FILE)
        if _has_begun(work.folder) and (changed := _changed(before, now)):
            work.session.say(
                f"begun with other {changed}: what comes out will not be the bytes of an "
                "undisturbed run"
            )
    store.write_json(path, now)
    return now


def _has_begun(folder: RunFolder) -> bool:
    """Tells if a state was saved, which the run goes on from."""
    saved = (*folder.checkpoints.glob("step-*"), *(folder.path / "weights").glob("*"))
    return bool(saved)


def _changed(before: Any, now: Mapping[str, Any]) -> str:
    """Names what rounds numbers in another way than before, with both values."""
    if not isinstance(before, dict):
        return ""
    alone = {"processes": 1}
    then, there = ({**alone, **one} for one in (before, now))
    names = ("torch", "device", "cpu", "threads", "processes")
    return ", ".join(
        f"{name} ({then[name]}, now {there[name]})"
        for name in names
        if name in then and then[name] != there[name]
    )


def _stage_after_stage(
    work: Work, command: str, label: str, checkpoint_seconds: float
) -> dict[str, Any]:
    """Trains the stages that are not finished; returns the record, in the leader."""
    spec, world = work.spec, work.world
    environment = _environment(work)
    own = work.recipe.own_stages(given_teacher=bool(spec.teacher))
    done: dict[str, Finished] = {}
    before: list[dict[str, Any]] = []  # events of the finished stages of this run
    for number, stage in enumerate(work.recipe.stages):
        if stage not in own and spec.teacher:
            done[stage.name] = Finished.load(final_weights(Path(spec.teacher.folder)))
            continue
        weights = work.folder.path / "weights" / stage.name
        if world.any(world.leads and not weights.is_dir()):
            heading = f"{label}, {stage.name}" if len(own) > 1 else label
            StageRun(work, stage, number, done, before).train(weights, heading, checkpoint_seconds)
            world.barrier()  # the leader has written the weights
        done[stage.name] = Finished.load(weights)
        before = before + done[stage.name].facts["history"]
    if not world.leads:
        return {}
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
