"""`stylegan-mix train`: trains a generator on a long-tailed split, or goes on with one."""

from __future__ import annotations

from typing import Any

import click

from stylegan_mix import console

__all__ = ["train"]

# The options that change a field of the preset, under the same name.
_CHANGES: list[tuple[str, Any, str]] = [
    ("batch", click.IntRange(2), "Images a step."),
    ("lr", console.FiniteRange(0, min_open=True), "Learning rate of both networks."),
    ("r1_gamma", console.FiniteRange(0), "Weight of the R1 penalty."),
    (
        "ema_kimg",
        console.FiniteRange(0, min_open=True),
        "Half-life of the weight average, in kimg.",
    ),
    ("augment", str, "none, or a list of color,translation,cutout."),
    ("label_weight", console.FiniteRange(0), "Weight of the label embedding against z."),
    ("label_noise", console.FiniteRange(0), "Noise on the label embedding in training."),
    ("real_power", console.FiniteRange(0, 1), "Reals drawn by count ** POWER a class."),
    ("label_power", console.FiniteRange(0, 1), "Generated labels drawn by count ** POWER."),
    ("precision", click.Choice(["float32", "bfloat16"]), "Of the convolutions."),
]

# What does not change the weights stays out of the command on the card.
_NOT_SPELLED = ("minutes", "save_minutes", "threads", "debug", "as_json", "dry_run")


def _change_options(command: Any) -> Any:
    for name, kind, text in reversed(_CHANGES):
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, type=kind, help=f"{text} Default: the preset's.")(
            command
        )
    return command


@click.command()
@console.data_options
@click.option("--preset", metavar="NAME", help="tiny8, cpu32 or cifar; default by resolution.")
@click.option(
    "--kimg", type=console.FiniteRange(0, min_open=True), help="Budget in thousands of images."
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
@_change_options
@console.run_options
@click.pass_context
def train(ctx: click.Context, **options: Any) -> None:
    """Train a StyleGAN2 on exactly the long-tailed training images of a data set.

    The same command goes on with an interrupted training, and returns the generator of a
    finished one at once. A longer --kimg goes on from a shorter one.

    \b
    stylegan-mix train --dataset digits_lt --preset tiny8
    stylegan-mix train --dataset cifar10_lt --preset cpu32 --kimg 1000 --minutes 55
    """
    from stylegan_mix import datasets
    from stylegan_mix.training import command

    console.set_up_process(options["threads"])
    dataset = datasets.load(
        options["dataset"] or "digits_lt",
        imbalance=options["imbalance"],
        profile=options["profile"],
        split_seed=options["split_seed"],
    )
    changes = {name: options[name] for name, _, _ in _CHANGES if options[name] is not None}
    plan = command.plan_training(
        dataset,
        preset=options["preset"],
        kimg=options["kimg"],
        seed=options["seed"],
        device=options["device"],
        command=_spelled(ctx),
        changes=changes,
    )
    there = command.finished(plan)
    show_plan(plan, there is not None)
    if options["dry_run"]:
        if options["as_json"]:
            console.print_json({**plan.shown(), "finished": there is not None})
        return
    with console.StopSignals(options["minutes"]) as stop:
        published = there or command.run_training(plan, stop, save_minutes=options["save_minutes"])
    if options["as_json"]:
        console.print_json({"generator": published.hash, "folder": str(published.folder)})
        return
    for label, count, ratio in zip(
        published.card["classes"],
        published.card["counts"],
        published.card["diversity"],
        strict=True,
    ):
        shown = "n/a" if ratio is None else f"{ratio:.2f}"
        console.result(f"{label:<24} {count:>6} images   diversity {shown}")
    console.result(f"generator {published.hash[:12]}  {published.folder}")
    console.result(f"every class, real and generated: {published.folder / 'grid.png'}")


def show_plan(plan: Any, done: bool) -> None:
    """Prints a training's plan and its cost in steps and images."""
    preset = plan.preset
    steps = -(-int(plan.kimg * 1000) // preset.batch)
    state = "finished already" if done else "to train, or to go on with"
    factor = plan.dataset.imbalance
    split = "as it is" if factor is None else f"imbalance {factor:g}"
    console.say(
        f"{plan.dataset.name} ({split}, "
        f"{len(plan.dataset.train.labels):,} images, split {plan.dataset.split_id[:12]})\n"
        f"preset {preset.name}: {plan.kimg:g} kimg = {steps:,} steps of {preset.batch}, "
        f"{preset.precision} on {plan.device}, seed {plan.seed}: {state}\n"
        f"training {plan.key[:12]} in {plan.folder}"
    )


def _spelled(ctx: click.Context) -> str:
    """The command with the options that differ from their defaults, to write on the card."""
    words = ["stylegan-mix train"]
    for name, entry in console.resolved(ctx).items():
        if entry["source"] != "default" and name not in _NOT_SPELLED:
            words.append(f"--{name.replace('_', '-')} {entry['value']}")
    return " ".join(words)
