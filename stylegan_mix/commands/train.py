"""`stylegan-mix train`: trains a generator on a long-tailed split, or goes on with one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, process
from stylegan_mix.durations import Duration
from stylegan_mix.errors import UsageFailure
from stylegan_mix.launched import speaks
from stylegan_mix.progress import SILENT, TERMINAL, reporter_for, say
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals

if TYPE_CHECKING:
    from stylegan_mix.generators.store import Published
    from stylegan_mix.training.pace import Pace
    from stylegan_mix.training.plan import TrainPlan
    from stylegan_mix.training.timed_budget import Chosen

__all__ = ["train"]

_MOST_KIMG = 1e9
_MOST_STEPS = 1 << 31
_POSITIVE = console.FiniteRange(0, min_open=True)
_SHARE = console.FiniteRange(0, 1)
_WEIGHT = console.FiniteRange(0)
_FACTOR = console.FiniteRange(0, 8, min_open=True)

# The options that change a field of the preset, under the same name.
_CHANGES: list[tuple[str, Any, str]] = [
    ("channel_base", click.IntRange(32, 1 << 28), "Channels at a resolution R: this / R."),
    ("channel_max", click.IntRange(4, 1 << 14), "Channels at most."),
    ("mapping_layers", click.IntRange(1, 16), "Layers of the mapping network."),
    ("discriminator", click.Choice(["orig", "resnet", "skip"]), "Its architecture."),
    ("batch", click.IntRange(2, 1 << 20), "Images a step."),
    ("lr", _POSITIVE, "Learning rate of both networks."),
    ("r1_gamma", _WEIGHT, "Weight of the R1 penalty."),
    ("r1_interval", click.IntRange(1, _MOST_STEPS), "Steps between R1 penalties."),
    ("merged_r1", bool, "R1 and the loss on reals from one pass."),
    ("path_weight", _WEIGHT, "Weight of path length regularisation."),
    ("path_interval", click.IntRange(0, _MOST_STEPS), "Steps between them."),
    ("style_mixing", _SHARE, "Probability of mixing styles."),
    ("ema_kimg", _POSITIVE, "Half-life of the weight average, in thousands of images."),
    ("ema_ramp", _WEIGHT, "Half-life at most this share of the images seen; 0: no ramp."),
    ("more_ema", str, "Further half-lives to keep, such as 5,80."),
    ("augment", str, "none, color,translation,cutout, ada or ada:LIST."),
    ("strength", str, "Strength of ada: adaptive, or a probability."),
    ("ada_target", console.FiniteRange(-1, 1), "Mean sign on reals that adaptive strength holds."),
    ("ada_kimg", _WEIGHT, "Thousands of images from strength 0 to 1, or to the given one."),
    ("ada_groups", str, "Strengths of their own for: all, shot or class."),
    ("label_weight", _WEIGHT, "Weight of the label embedding against z."),
    ("label_noise", _WEIGHT, "Noise on the label embedding in training."),
    ("critic_label_noise", _WEIGHT, "The same in the discriminator."),
    ("noise_beta", console.FiniteRange(0, 1, max_open=True), "Label noise by effective number."),
    ("twins", _WEIGHT, "Weight of the Barlow loss of NoisyTwins."),
    ("twins_gamma", _WEIGHT, "Weight of its off-diagonal part."),
    ("twins_kimg", _WEIGHT, "Start of that loss, in thousands of images."),
    ("gsr", _WEIGHT, "Weight of group spectral regularisation."),
    ("gsr_beta", console.FiniteRange(0, 1, max_open=True), "Effective number in it."),
    ("lecam", _WEIGHT, "Weight of LeCam regularisation."),
    ("lecam_kimg", _WEIGHT, "Start of LeCam, in thousands of images."),
    (
        "utlo_resolution",
        click.IntRange(0, 1 << 14),
        "UTLO: no label up to this resolution; 0: off.",
    ),
    ("utlo_weight", _WEIGHT, "Weight of its unconditional loss."),
    ("transition_start", _WEIGHT, "Start of fading in the label, in thousands of images."),
    ("transition_end", _WEIGHT, "End of fading it in; 0: full from the start."),
    ("critic_channels", _FACTOR, "Channels of the discriminator alone, times this."),
    ("grow_start", _WEIGHT, "Images of half the size up to so many thousands of images."),
    ("grow_end", _WEIGHT, "Last block faded in from there up to so many; 0: off."),
    ("probe_weight", _WEIGHT, "Weight of a head that judges features of the probe."),
    ("lr_warmup", _WEIGHT, "Thousands of images over which the learning rate rises."),
    ("real_power", _SHARE, "Reals drawn by count ** POWER a class."),
    ("label_power", _SHARE, "Generated labels drawn by count ** POWER."),
    (
        "precision",
        click.Choice(["float32", "bfloat16", "float16", "mixed"]),
        "Precision of convolutions.",
    ),
    ("on_collapse", click.Choice(["rollback", "go-on"]), "Reaction to the collapse of a class."),
]

# Options that do not change the weights stay out of the command on the card.
_NOT_SPELLED = (
    "seconds",
    "publish",
    "keep_critic",
    "minutes",
    "save_minutes",
    "graphs",
    "threads",
    "progress",
    "debug",
    "as_json",
    "dry_run",
)


def _change_options(command: Any) -> Any:
    for name, kind, text in reversed(_CHANGES):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, type=kind, help=f"{text} Default: the preset's.")(
            command
        )
    return command


@click.command()
@partial(console.data_options, default=console.DEFAULT_DATASET)
@click.option(
    "--preset",
    metavar="NAME",
    help="cpu32, gpu64, auto, ...; a wrong name lists all. Default: by resolution and device.",
)
@click.option(
    "--kimg",
    type=console.FiniteRange(0, _MOST_KIMG, min_open=True),
    help="Budget in thousands of images shown to the network.",
)
@click.option(
    "--time",
    "seconds",
    type=Duration(),
    metavar="TIME",
    help="Budget by a measurement: trains about so long, such as 90m or 2h.",
)
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after so long."
)
@click.option(
    "--save-minutes",
    type=console.FiniteRange(0),
    default=1.0,
    show_default=True,
    help="Time between checkpoints.",
)
@click.option(
    "--graphs/--no-graphs",
    default=True,
    show_default=True,
    help="In one process, replay whole steps: on a GPU as CUDA graphs.",
)
@click.option(
    "--init",
    metavar="HASH|FILE",
    help="Begin with the weights of this generator, or of a file of export-generator.",
)
@click.option(
    "--fresh-critic", is_flag=True, help="With --init: a fresh discriminator all the same."
)
@click.option(
    "--keep-critic",
    is_flag=True,
    help="Publish the discriminator, too, for --init.",
)
@click.option(
    "--publish",
    is_flag=True,
    help="Publish what the unfinished training has reached; it can go on.",
)
@_change_options
@console.progress_option
@console.run_options
@click.pass_context
def train(
    ctx: click.Context,
    dataset: str | None,
    imbalance: float | None,
    profile: str | None,
    split_seed: int | None,
    preset: str | None,
    kimg: float | None,
    seconds: float | None,
    minutes: float | None,
    save_minutes: float,
    graphs: bool,
    init: str | None,
    fresh_critic: bool,
    keep_critic: bool,
    publish: bool,
    device: str,
    threads: int | None,
    seed: int,
    progress: Path | None,
    dry_run: bool,
    as_json: bool,
    debug: bool,
    **changes: Any,
) -> None:
    """Train a StyleGAN2 on exactly the long-tailed training images of a data set.

    The same command goes on with an interrupted training, and returns a finished generator at
    once. A longer --kimg goes on from a shorter one. --time TIME measures once how much it can
    train in that time, and keeps to it.

    \b
    stylegan-mix train --dataset digits_lt --preset tiny8
    stylegan-mix train --dataset cifar10_lt --time 2h
    stylegan-mix train --dataset cifar10_lt --preset cpu32 --kimg 1000 --minutes 55
    stylegan-mix train --dataset cifar100_lt --init HASH
    torchrun --nproc-per-node 2 -m stylegan_mix train --dataset cifar10_lt
    """
    from stylegan_mix.datasets.asked import AskedDraw
    from stylegan_mix.generators import store as generator_store
    from stylegan_mix.training.plan import finished, plan_text, plan_training, start_of
    from stylegan_mix.training.run import run_training

    process.set_up_process(threads)
    draw = AskedDraw(dataset, imbalance, profile, split_seed)
    start = _start(init, fresh_critic, device, dry_run=dry_run)
    spelled = partial(_spelled, ctx, start=start)
    planned = partial(
        plan_training,
        draw.load(),
        preset=preset,
        seed=seed,
        device=device,
        changes={name: value for name, value in changes.items() if value is not None},
        init=start,
        fresh_critic=fresh_critic,
    )
    plan = planned(kimg=kimg, command=spelled(kimg))
    if speaks():
        for line in [*draw.why, *plan.dataset.notes, *generator_store.left_out()]:
            say(line)
    if publish:
        _publish(plan, spelled, keep_critic=keep_critic, dry_run=dry_run, as_json=as_json)
        return
    chosen = None
    if seconds is not None:
        chosen = _chosen(plan, seconds, kimg, keep=not dry_run)
        plan = planned(kimg=chosen.kimg, command=spelled(chosen.kimg))
    there = finished(plan)
    reached = plan.kimg if there else start_of(plan)
    if speaks():
        lines = [*plan.warnings, *([chosen.why] if chosen else [])]
        for line in [*lines, plan_text(plan, done=bool(there), start=reached)]:
            say(line)
    if dry_run:
        if speaks():
            _print_cost(plan, reached, bool(there), as_json, chosen.pace if chosen else None)
        return
    # Further processes of torchrun print nothing.
    reporter = reporter_for(progress) if speaks() else SILENT
    with StopSignals(minutes) as stop:
        session = Session(stop, reporter)
        complete = there and (there[0].has_critic or not keep_critic)
        found = (
            there
            if complete
            else run_training(
                plan, session, save_minutes=save_minutes, graphs=graphs, keep_critic=keep_critic
            )
        )
    if speaks():
        _answer(found, as_json)


def _chosen(plan: TrainPlan, seconds: float, kimg: float | None, *, keep: bool) -> Chosen:
    """Chooses the budget of `--time`; `UsageFailure` (exit code 2) if there is one already."""
    from stylegan_mix.training.cost import step_seconds
    from stylegan_mix.training.timed_budget import budget_for, measurement_seconds

    if kimg is not None:
        raise UsageFailure(
            f"--time and --kimg {kimg:g} are two budgets of one training",
            remedy="give one of them; --minutes N stops a training that goes on later",
        )
    measure = partial(step_seconds, allowance=measurement_seconds(seconds))
    session = Session(reporter=TERMINAL if speaks() else SILENT)
    return budget_for(plan, seconds, measure, keep=keep, session=session)


def _start(init: str | None, fresh_critic: bool, device: str, *, dry_run: bool) -> Published | None:
    """Finds the generator of --init, by its hash or in a file.

    `UsageFailure` (exit code 2) if an option needs one.
    """
    from stylegan_mix.generators import store as generator_store

    if init is None and fresh_critic:
        raise UsageFailure(
            "--fresh-critic is for a training that begins with a generator",
            remedy="add --init HASH, or leave it out",
        )
    if init is None:
        return None
    if Path(init).is_file():
        return _taken_over(Path(init), device, dry_run=dry_run)
    return generator_store.load(init)


def _taken_over(file: Path, device: str, *, dry_run: bool) -> Published:
    """Finds the generator of a file of `export-generator` in the store, or puts it there."""
    from stylegan_mix.interop import exported, foreign, safetensors

    content, _ = foreign.read_bytes(file)
    by_hand = f"stylegan-mix import-generator {shlex.quote(str(file))} takes it over; then --init "
    by_hand += "with the hash that it tells"
    if not (safetensors.begins_like(content) or file.suffix == ".safetensors"):
        raise UsageFailure(f"--init {file} is no file of export-generator", remedy=by_hand)
    opened = exported.open_file(content, file)
    there = exported.found(opened)
    if there is None and dry_run:
        raise UsageFailure(
            f"a dry run writes nothing, and the generator in {file} is not in the store yet",
            remedy=by_hand,
        )
    if there is None:
        there = exported.publish(opened, process.resolve_device(device))
        say(f"generator {there.hash[:12]} imported from {file}")
    return there


def _publish(
    plan: TrainPlan,
    command: Callable[[float], str],
    *,
    keep_critic: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publishes what an unfinished training has reached, or tells it in a dry run."""
    from stylegan_mix.training.run import publish_reached, reached

    if not speaks():  # one process of torchrun is enough
        return
    say(f"training {plan.key[:12]} in {plan.folder} has {reached(plan):g} thousand images")
    if not dry_run:
        _answer(publish_reached(plan, command, keep_critic=keep_critic), as_json)


def _answer(found: list[Published], as_json: bool) -> None:
    from stylegan_mix.generators.budget import short
    from stylegan_mix.generators.card import class_table

    published = found[0]
    if as_json:
        more = {"more": [one.hash for one in found[1:]]} if found[1:] else {}
        console.print_json({"generator": published.hash, "folder": str(published.folder), **more})
        return
    console.print_table(class_table(published.card), right=(1, 2))
    for one in found[1:]:
        average = f"average of {one.card['half_life']:g} thousand images"
        console.result(f"{average}: generator {one.hash[:12]}")
    console.result(f"generator {published.hash[:12]}  {published.folder}")
    console.result(f"every class, real and generated: {published.folder / 'grid.png'}")
    if text := short(published.card):
        say(f"warning: {text}")


def _print_cost(
    plan: TrainPlan, start: float, done: bool, as_json: bool, pace: Pace | None
) -> None:
    """Times a few steps and prints the cost of the training; nothing if it is finished."""
    from stylegan_mix.training import cost

    found = None if done else cost.estimate(plan, start=start, pace=pace)
    if as_json:
        facts = {} if found is None else found.plain()
        console.print_json({**plan.shown(), "finished": done, "cost": facts})
    elif found is not None:
        say(found.in_words(start))


def _spelled(ctx: click.Context, kimg: float | None, *, start: Published | None = None) -> str:
    """Composes the command for the card, with the options that differ from their defaults.

    It names the budget as `--kimg`, given or measured, which is the same everywhere.
    """
    options = console.resolved(ctx)
    if kimg is not None:
        options["kimg"] = {"value": kimg, "source": "budget"}
    if start is not None:
        options["init"] = {"value": start.hash, "source": "flag"}
    words = ["stylegan-mix train"]
    flags = {one.name for one in ctx.command.params if getattr(one, "is_flag", False)}
    for name, entry in options.items():
        if entry["source"] != "default" and name not in _NOT_SPELLED:
            value = "" if name in flags else f" {entry['value']}"
            words.append(f"--{name.replace('_', '-')}{value}")
    return " ".join(words)
