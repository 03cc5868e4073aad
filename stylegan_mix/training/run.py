"""A whole training: its plan, its place in the store, the finished generator.

A training is a path, and a budget is a stop on it. Its key names data, preset and seed, but not
kimg, so a longer budget goes on from a shorter one, with the same weights as one long run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan_mix import store
from stylegan_mix.errors import Diverged, Interrupted, InvalidInput, MissingEnvironment, Stopped
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.session import Session
from stylegan_mix.training.loop import Trained
from stylegan_mix.training.plan import TrainPlan, check_ahead, finished
from stylegan_mix.training.saves import Saves

if TYPE_CHECKING:
    from stylegan_mix.world import World

__all__ = ["ensure_generator", "publish_reached", "reached", "run_training"]

PLAN_FILE = "plan.json"


def run_training(
    plan: TrainPlan,
    session: Session = Session(),
    *,
    save_minutes: float = 1.0,
    graphs: bool = True,
    keep_critic: bool = False,
) -> list[Published]:
    """Trains from the newest checkpoint and publishes; returns a finished generator at once.

    `keep_critic` publishes the discriminator beside the main generator. A checkpoint is written
    every `save_minutes`, and when the session asks for a stop. With
    `graphs` a single process replays its steps, which changes nothing but the time. Returns
    one generator for each half-life, the main one first. Under torchrun every process calls this
    with the same plan: the first writes, and the others return an empty list.
    `MissingEnvironment` (exit code 4) before the first step, if the disk is too small.
    """
    from stylegan_mix.launched import speaks
    from stylegan_mix.training.disk_room import require_disk_room
    from stylegan_mix.training.publication import publish_all
    from stylegan_mix.world import joined

    if speaks() and not finished(plan):  # torchrun ends the others if the first is refused
        require_disk_room(plan)
    with joined(plan.device, session.stop) as world:
        if not world.leads:
            with suppress(Stopped, Interrupted, Diverged):  # all end so: the leader reports it
                train_on_plan(plan, session, save_minutes, graphs, world)
            return []
        with store.locked(_lock(plan), session=session):
            there = finished(plan)
            if there and world.size == 1 and (there[0].has_critic or not keep_critic):
                return there
            trained = train_on_plan(plan, session, save_minutes, graphs, world)
            return publish_all(plan, trained, session, keep_critic=keep_critic)


def train_on_plan(
    plan: TrainPlan, session: Session, save_minutes: float, graphs: bool, world: World
) -> Trained:
    """Trains this process's share of the plan up to its budget."""
    import torch

    from stylegan_mix.training.loop import Rhythm, train
    from stylegan_mix.training.probe_features import take_probe
    from stylegan_mix.training.step_inputs import begin
    from stylegan_mix.training.warm_start import take_start

    dataset, preset, device = plan.dataset, plan.preset, torch.device(plan.device)
    state, game = begin(preset, dataset, seed=plan.seed, device=device, world=world)
    if plan.init is not None:
        game = replace(game, seen_before=round(1000 * plan.init.kimg))
    if not Saves(plan.folder).newest_step:  # a saved state has all of it
        if preset.probe_weight:
            take_probe(state.discriminator, dataset, device, session)
        if plan.init is not None:
            take_start(state, plan.init)
    if world.leads:
        store.write_json(plan.folder / PLAN_FILE, plan.shown())
    world.barrier()
    began = time.monotonic()
    numerics = train(
        state,
        game,
        dataset,
        kimg=plan.kimg,
        folder=plan.folder,
        session=session,
        rhythm=Rhythm(save_seconds=60 * save_minutes),
        graphs=graphs,
    )
    check_ahead(plan, state.step)
    if world.leads:
        session.say(f"trained in {time.monotonic() - began:,.0f} s")
    return Trained(state, game, numerics)


def ensure_generator(plan: TrainPlan, session: Session = Session()) -> Published:
    """Returns the newest finished generator of the plan's split, or trains the plan's.

    Under torchrun every process calls this, and all get the one that the first publishes.
    """
    existing = generator_store.find(split_id=plan.dataset.split_id)
    trained = existing or run_training(plan, session)
    if not trained:
        session.go_on("the training")
        with store.locked(_lock(plan), session=session):
            trained = finished(plan)
    if not trained:
        raise MissingEnvironment(
            "the first process published no generator",
            remedy="look at its last messages; the same command goes on from the saved state",
        )
    return trained[0]


def _lock(plan: TrainPlan) -> Path:
    """The lock file that is held while a plan is trained and published."""
    return store.home() / "training" / f"{plan.key}.lock"


def reached(plan: TrainPlan) -> float:
    """Reads the thousands of images of a training's newest saved state.

    `InvalidInput` (exit code 3) if it has not taken a step.
    """
    step = Saves(plan.folder).newest_step
    if step:
        return step * plan.preset.batch / 1000
    begun = (plan.folder / PLAN_FILE).exists()
    raise InvalidInput(
        f"there is nothing to publish of {plan.dataset.name} yet: no step of training "
        f"{plan.key[:12]} was saved in {plan.folder}",
        remedy="a training saves its state for the first time a minute after its start "
        "(--save-minutes), and at once when it is stopped: type this again then; where none is "
        "running, the same command without --publish goes on"
        if begun
        else "no training was begun with this preset, these options and this --seed: give those "
        "of the training; the same command without --publish begins one",
    )


def publish_reached(
    plan: TrainPlan,
    command: Callable[[float], str],
    session: Session = Session(),
    *,
    keep_critic: bool = False,
) -> list[Published]:
    """Publishes the newest saved state of an unfinished training as generators, the main one first.

    The training is only read: it may be running, and goes on as if nothing had happened. On the
    card stands the budget that was reached, so this is no finished generator of a longer one.
    `command` composes the command that trains up to a budget. `keep_critic` is that of
    `run_training`. Raises the errors of `reached`, and
    `Diverged` (exit code 5) if every class has collapsed.
    """
    import torch

    from stylegan_mix.training.alarms import Alarms
    from stylegan_mix.training.loop import numerics_of
    from stylegan_mix.training.publication import publish_all
    from stylegan_mix.training.saves import require_fit
    from stylegan_mix.training.step_inputs import begin

    reached(plan)
    newest = Saves(plan.folder).newest(session.say)
    assert newest is not None
    place, (step, saved, facts) = newest
    kimg = step * plan.preset.batch / 1000
    plan = replace(plan, kimg=kimg, command=command(kimg))
    there = finished(plan)
    if there and (there[0].has_critic or not keep_critic):
        return there
    state, game = begin(plan.preset, plan.dataset, seed=plan.seed, device=torch.device(plan.device))
    Alarms(state.running, plan.dataset.classes)  # their statistics are part of a saved state
    require_fit(newest[1], place, state, numerics_of(game))
    state.load_state_dict(saved)
    trained = Trained(state, game, facts["numerics"])
    return publish_all(plan, trained, session, keep_critic=keep_critic)
