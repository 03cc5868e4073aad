"""The execution of a plan: every seed of it, with its plots."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan_mix import launched, process, store
from stylegan_mix.errors import Diverged, Interrupted, MissingEnvironment, Stopped
from stylegan_mix.session import Session
from trainer.curves import NO_CURVES, Curves, EventFile
from trainer.plan import Plan
from trainer.reports import figures, records
from trainer.reports.records import Result

if TYPE_CHECKING:
    from stylegan_mix.world import World

__all__ = ["How", "execute"]


@dataclass(frozen=True)
class How:
    """The means of a run: device, CPU threads, sources of options; no part of its identity.

    `progress` is the file that a run in a process of its own appends its progress to; `tensorboard`
    the folder of the events of all runs, if they are asked for.
    """

    device: str
    threads: int | None
    sources: dict[str, str]
    progress: Path | None = None
    tensorboard: Path | None = None


def execute(plan: Plan, session: Session, how: How) -> list[Result]:
    """Trains every seed of a plan that is not finished, in order; returns all results.

    Under torchrun every process calls this with the same plan: they train together, the first one
    writes, and the others return an empty list.
    """
    if not launched.several():
        return _each_seed(plan, session, how)
    # Imported late, so that a finished run is shown at once: it loads torch.
    from stylegan_mix.world import joined

    with joined(process.resolve_device(how.device), session.stop) as world:
        if world.leads:
            return _each_seed(plan, session, how, world)
        for seed in plan.seeds:
            plan.finished(seed)  # a damaged result is refused in all of them, and reported once
        with suppress(Diverged, Interrupted, Stopped):  # all end so: the leader reports it
            for seed in plan.seeds:
                finished, stops = world.each(False, False)
                if stops:
                    break
                if not finished:
                    _train(plan, seed, session, how, world)
        return []


def _each_seed(plan: Plan, session: Session, how: How, world: World | None = None) -> list[Result]:
    """Trains every seed of a plan, as the leader of a `world` of several processes if there is one.

    It tells the others which seeds were finished before.
    """
    there = {seed: plan.finished(seed) for seed in plan.seeds}
    # A folder of finished runs may be one that nothing can be written to.
    with nullcontext() if None in there.values() else suppress(MissingEnvironment):
        plan.keep_choice()
    found: list[Result] = []
    for seed in plan.seeds:
        folder = plan.folder(seed)
        result = there[seed] or plan.finished(seed)  # by another process, meanwhile
        stops = result is None and bool(found) and session.stop.requested is not None
        if world is not None:
            world.each(result is not None, stops)
        if result is not None:
            session.say(f"seed {seed}: finished before, {_brief(result)}, {folder}")
        elif stops:
            raise session.stop.failure(saved=True, what=f"seeds before {seed} are finished")
        else:
            _train(plan, seed, session, how, world)
            result = _told(plan, seed, session)
        found.append(result)
    return found


def _train(plan: Plan, seed: int, session: Session, how: How, world: World | None) -> None:
    # Imported late, so that a finished run is shown at once: it loads torch.
    from stylegan_mix.world import World
    from trainer.engine.run import run_recipe

    leads = world is None or world.leads
    folder = plan.folder(seed)
    process.set_up_process(how.threads)
    if leads:
        _say_whose(folder, session)
    label = f"{plan.spec.arm} {plan.spec.recipe} seed {seed}"
    run_recipe(
        plan.of_seed(seed),
        folder,
        session=session,
        device=how.device,
        command=plan.command(seed),
        sources=plan.sources(how.sources),
        label=label,
        curves=_curves(folder, how, session) if leads else NO_CURVES,
        world=world or World(),
    )


def _told(plan: Plan, seed: int, session: Session) -> Result:
    """Reads the result of a seed that was trained, draws its plots, and says it."""
    from trainer.reports import plots  # loads matplotlib

    folder = plan.folder(seed)
    result = records.read(folder / records.RESULT_FILE)
    plots.of_run(result, folder / "plots")
    seconds = result.record["budget"]["seconds"]
    session.say(f"seed {seed}: {_brief(result)}, {seconds:,.0f} s, {folder}")
    return result


def _curves(folder: Path, how: How, session: Session) -> Curves:
    """Makes the place for a run's curves: below the asked folder, named as the run's own."""
    if how.tensorboard is None:
        return NO_CURVES
    return EventFile(how.tensorboard.joinpath(*folder.parts[-2:]), session)


def _brief(result: Result) -> str:
    names = figures.shown([result])[:2]
    return ", ".join(f"{name} {result.accuracy(name):.1f}" for name in names)


def _say_whose(folder: Path, session: Session) -> None:
    """Reports if an earlier process left this run unfinished without a message."""
    path = folder / "run.json"
    if not path.is_file():
        return
    note = store.read_json(path, limit=records.LARGEST_FILE)
    if type(note) is not dict or type(note.get("process")) is not int:
        return
    if note.get("status") != "running" or note.get("host") != socket.gethostname():
        return
    try:
        os.kill(note["process"], 0)
    except (ProcessLookupError, OverflowError):
        session.say(f"{folder}: process {note['process']} is gone; going on from its saved state")
    except PermissionError:
        return
