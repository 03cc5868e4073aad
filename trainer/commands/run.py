"""`trainer run`: resolves the options, shows the plan and its cost, trains one run a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stylegan_mix import console, process, progress, stopping
from stylegan_mix.launched import speaks
from stylegan_mix.session import Session
from trainer.curves import TENSORBOARD, require_tensorboard
from trainer.schedule import CONSTANT

if TYPE_CHECKING:
    from stylegan_mix.estimates import Span
    from trainer.plan import Asked, Plan
    from trainer.reports.records import Result
    from trainer.spec import RunSpec

__all__ = ["asked_for", "run", "show"]

Command = TypeVar("Command", bound=Callable[..., Any])

_SETTINGS: list[tuple[str, Any, str]] = [
    ("--aug", str, "Arm, such as mixup, bank, hybrid; a wrong name lists all. Default: none."),
    ("--recipe", str, "Method, see `trainer recipes`. Default: ce."),
    ("--model", str, "Network, see `trainer models`. Default: by data set."),
    ("--bank", str, "Key, path, or space: w, unmixed, pixel. Default: as before, or the newest."),
    ("--teacher", str, "Folder of a finished run that teaches."),
    ("--teacher-model", str, "Network of the recipe's own teacher. Default: --model."),
    (
        "--views",
        int,
        "Views of each image, most of them patches, that a label-only teacher votes on.",
    ),
    ("--epochs", int, "Passes over the real images. Default: by data set."),
    ("--batch", int, "Images a step. Default: 128."),
    ("--lr", float, "Highest learning rate. Default: 0.1."),
    ("--precision", str, "float32 or bfloat16. Default: float32."),
    ("--warmup-epochs", float, "Epochs in which the rate rises. Default: 5."),
    ("--weight-decay", float, "Default: 2e-4."),
    ("--momentum", float, "Default: 0.9."),
    ("--alpha", float, "Mixers draw shares from Beta(ALPHA, ALPHA). Default: 1; unimix: 0.8."),
    (
        "--fair",
        str,
        "Rows of the bank: equal-steps, in the place of real ones (default); equal-real, added.",
    ),
    ("--bank-share", float, "Rows of the bank a step, as a share of --batch. Default: 0.5."),
    ("--bank-weight", float, "Weight of a bank's row in the loss. Default: 1."),
    (
        "--bank-schedule",
        str,
        "constant (default), falling (in rows), falling-weight, from:EPOCH or until:EPOCH.",
    ),
    ("--mix-bank-real/--no-mix-bank-real", bool, "Mix each row of the bank with a real one."),
    (
        "--accept",
        str,
        "Rows of the bank that are used: all, or clean: those that its judge keeps. Default: all.",
    ),
    (
        "--label",
        str,
        "Label of a bank's row: lam (default), judge, or the judge's share of it, such as 0.5.",
    ),
    ("--final-real-fraction", float, "Last steps on real unmixed images. Default: 0.1."),
    (
        "--drw",
        float,
        "Share of the steps after which losses are weighted by class. Default: never.",
    ),
    (
        "--head-epochs",
        int,
        "Epochs added for a new head on class-balanced real rows, backbone frozen. Default: 0.",
    ),
    (
        "--h2t/--no-h2t",
        bool,
        "Train the head, on class-balanced rows, with feature maps of others: H2T on any recipe.",
    ),
    (
        "--augment",
        str,
        "Policy for all rows, such as autoaugment+cutout; a wrong name lists all. Default: plain.",
    ),
    ("--bn-refresh-batches", int, "Batches that renew batch-norm statistics. Default: 200."),
    ("--pad", int, "Pixels of padding before a crop. Default: an eighth of the side."),
    ("--flip/--no-flip", bool, "Mirror images at random. Default: by data set."),
    ("--eval-every", int, "Epochs between evaluations. Default: as cost allows."),
    ("--val-per-class", int, "Images a class kept out of training for tuning. Default: 0."),
]


def _settings(command: Command) -> Command:
    for names, kind, text in reversed(_SETTINGS):
        typed: dict[str, Any] = {"default": None} if kind is bool else {"type": kind}
        command = click.option(names, help=text, **typed)(command)
    return command


@click.command()
@console.data_options
@click.option("--drop-overlap", is_flag=True, help="Leave out images that the test part holds.")
@_settings
@click.option("--seeds", type=int, default=1, show_default=True, help="Runs, from --seed on.")
@click.option("--out", default="runs", show_default=True, help="Folder of the run folders.")
@click.option("--name", help="Name of the run's folder. Default: data, method and a key.")
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after so long."
)
@console.progress_option
@click.option("--tensorboard", type=click.Path(path_type=Path), help=TENSORBOARD)
@console.run_options
@click.pass_context
def run(ctx: click.Context, **options: Any) -> None:
    """Train a classifier on a long-tailed data set, with or without a bank of hybrid images.

    The same command goes on with an interrupted run and prints the result of a finished one.
    Without --dataset, open options of data set and split are those of the named bank, or else
    of the newest.

    \b
    trainer run --aug hybrid --seeds 3
    trainer run --dataset cifar10_lt --aug mixup --recipe balanced-softmax --epochs 20
    """
    from trainer.plan import decide

    sources = {name: str(entry["source"]) for name, entry in console.resolved(ctx).items()}
    for name in _unread_of_file(options, sources):
        if speaks():
            progress.say(
                f"left out: {name} = {options[name]} of the file, which this run does not read"
            )
        options[name], sources[name] = None, "default"
    if options["tensorboard"]:
        require_tensorboard()
    plan = decide(asked_for(options))
    if not speaks():  # one process of torchrun is enough
        if not options["dry_run"]:
            _carry_out(plan, options, sources)
        return
    for reason in plan.why:
        progress.say(reason)
    if options["dry_run"]:
        process.set_up_process(options["threads"])
        _show_cost(plan, options["device"], as_json=options["as_json"])
        return
    show(plan)
    _print(plan, _carry_out(plan, options, sources), as_json=options["as_json"])


def _carry_out(plan: Plan, options: Mapping[str, Any], sources: dict[str, str]) -> list[Result]:
    """Trains what is not finished; further processes of torchrun print nothing."""
    from trainer.execute import How, execute

    how = How(options["device"], options["threads"], sources, tensorboard=options["tensorboard"])
    reporter = progress.reporter_for(options["progress"]) if speaks() else progress.SILENT
    with stopping.StopSignals(options["minutes"]) as stop:
        return execute(plan, Session(stop, reporter), how)


def _unread_of_file(options: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Lists the options of a configuration file without an effect: it may serve several arms."""
    from trainer.settings import unread_options

    return sorted(name for name in unread_options(options) if sources[name] == "file")


def asked_for(options: Mapping[str, Any]) -> Asked:
    """Collects the options of the command line as a request."""
    from trainer.plan import Asked

    known = {field.name for field in fields(Asked)}
    asked = {name: value for name, value in options.items() if name in known}
    return Asked(**{**asked, "val_per_class": asked["val_per_class"] or 0})


def show(plan: Plan) -> None:
    """Prints a plan: data, arm, method, budget, folder; for people, before anything is spent."""
    spec, data = plan.spec, plan.data
    factor = "" if data.imbalance is None else f", imbalance {data.imbalance:g}"
    seeds = ", ".join(map(str, plan.seeds))
    progress.say(
        f"{data.name}{factor}: {len(data.train.labels):,} training and "
        f"{len(data.test.labels):,} test images, split {data.split_id[:12]}, shot groups by "
        f"{data.groups.rule}, {len(data.overlap)} images in both parts\n"
        f"arm {spec.arm}, recipe {spec.recipe}, {spec.model}: {spec.epochs} epochs, batch "
        f"{spec.batch}, learning rate {spec.lr:g}, {spec.precision}, seeds {seeds}\n"
        f"{_batch(spec)}{_augment(plan)}"
        f"folder {plan.folder(plan.seeds[0]).parent}"
    )


def _augment(plan: Plan) -> str:
    """Tells which changes of a policy have no effect on the images of this data set; or ""."""
    data = plan.data
    idle = plan.spec.policy.idle(data.channels, data.resolution**2)
    if not idle:
        return ""
    where = f"{data.resolution}x{data.resolution} pixels, {data.channels} channel(s)"
    return f"augment {plan.spec.augment}: at {where}, no effect of {', '.join(idle)}\n"


def _batch(spec: RunSpec) -> str:
    """Says which rows a batch has beside plain real ones, and in which way that is fair; or ""."""
    count = spec.extra_rows
    if not count:
        return ""
    real = spec.most_rows - count
    kind = "of the bank" if spec.uses_bank else "drawn evenly over the classes"
    when = "" if spec.bank_schedule == CONSTANT else f", {spec.bank_schedule}"
    return f"{real} real rows a step and {count} {kind}{when}, fair by {spec.fairness}\n"


def _show_cost(plan: Plan, device: str, *, as_json: bool) -> None:
    from trainer.engine import cost

    open_seeds = [seed for seed in plan.seeds if plan.finished(seed) is None]
    found = cost.estimate(plan.spec, plan.data, device)
    one: Span = found["seconds"]
    total = one.times(len(open_seeds))
    if as_json:
        run = {"run": plan.spec.plain(), "folder": str(plan.folder(plan.seeds[0]).parent)}
        to_do = {
            "seeds": list(plan.seeds),
            "open_seeds": open_seeds,
            "total_seconds": total.plain(),
        }
        console.print_json({**run, **to_do, "cost": {**found, "seconds": one.plain()}})
        return
    show(plan)
    if slow := process.slow_precision(plan.spec.precision, found["device"]):
        progress.say(slow)
    stages = ", ".join(f"{one['name']} {one['steps']:,}" for one in found["stages"])
    console.result(f"steps       {found['steps']:,} a run ({stages})")
    console.result(f"images      {found['images']:,} a run")
    console.result(f"evaluated   every {found['eval_every']} epochs")
    console.result(f"time        {one.in_words()} a run on {found['device']}")
    console.result(f"disk        about {found['bytes'] / 1e6:,.1f} MB a run")
    console.result(f"bank        {'found' if plan.spec.bank else 'none needed'}")
    console.result(f"to run      {len(open_seeds)} of {len(plan.seeds)} seeds")
    console.result(f"in all      {total.in_words()}")
    console.result(f"command     {plan.command(plan.seeds[0])}")


def _print(plan: Plan, found: list[Result], *, as_json: bool) -> None:
    from trainer.reports import tables

    if as_json:
        console.print_json(tables.plain(found))
        return
    console.result(tables.seed_table(found))
    progress.say(f"next: trainer report {plan.root}")
