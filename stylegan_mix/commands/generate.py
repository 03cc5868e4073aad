"""`stylegan-mix generate`: writes the requested bank, or returns it at once if it exists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, process
from stylegan_mix.errors import Failure, Interrupted, Stopped
from stylegan_mix.latents.pairing import FILLS, PAIRINGS, Fill, PairingKind
from stylegan_mix.latents.spaces import SPACES, Space
from stylegan_mix.launched import by_torchrun, speaks
from stylegan_mix.progress import SILENT, reporter_for, say
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals

if TYPE_CHECKING:
    from stylegan_mix.banks.plan import Plan
    from stylegan_mix.banks.shards import Shard
    from stylegan_mix.banks.store import Record

__all__ = ["generate"]


def _listed(values: Iterable[Space | Fill | PairingKind]) -> str:
    return "; ".join(f"{value.name}: {value.about}" for value in values)


_SPACE_HELP = f"Space in which rows are mixed: {_listed(SPACES.values())}."

_FILL_HELP = f"Draw of class a: {_listed(FILLS.values())}."
_PAIRS_HELP = (
    "Draw of class b: "
    + _listed(kind for kind in PAIRINGS.values() if kind.name != "listed")
    + "; or a CSV file of lines a,b[,weight]."
)
_LAM_HELP = (
    "Distribution of lam, the share of class a: beta; fixed:0.5; grid:0.1,0.5,0.9, one of these "
    "drawn evenly; window:0.25,0.75, Beta between the two."
)


@click.command("generate")
@partial(console.data_options, default=f"{console.DEFAULT_DATASET}, or that of --generator")
@click.option("--n", "--num-images", type=int, default=50_000, show_default=True, help="Images.")
@click.option("--space", default="w", show_default=True, metavar="SPACE", help=_SPACE_HELP)
@click.option(
    "--alpha", type=float, default=1.0, show_default=True, help="lam ~ Beta(alpha, alpha)."
)
@click.option(
    "--truncation", type=float, default=1.0, show_default=True, help="psi; 1 is the full spread."
)
@click.option("--fill", default="uniform", show_default=True, metavar="FILL", help=_FILL_HELP)
@click.option("--pairs", default="uniform", show_default=True, metavar="PAIRS", help=_PAIRS_HELP)
@click.option(
    "--unmixed",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Share of rows of class a alone: b = a and lam = 1.",
)
@click.option("--lam", default="beta", show_default=True, metavar="LAW", help=_LAM_HELP)
@click.option("--generator", metavar="HASH", help="This generator, not the newest of the split.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the convolutions.",
)
@click.option("--exact", is_flag=True, help="Reuse a bank only if it has this machine's numerics.")
@click.option(
    "--train/--no-train",
    default=None,
    help="Train a missing generator however long that takes; or make it an error. Default: train "
    "for up to four hours.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Make part I of N of the blocks alone, for machines that share the store.",
)
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after that."
)
@console.progress_option
@console.run_options
def generate(
    dataset: str | None,
    imbalance: float | None,
    profile: str | None,
    split_seed: int | None,
    threads: int | None,
    shard: str | None,
    minutes: float | None,
    progress: Path | None,
    dry_run: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Write a bank of hybrid images, mixed between the classes of a long-tailed data set.

    Uses the newest finished generator of that data set and split, or trains one if there is
    none. For more than four hours it trains only with --train, except on digits_lt and
    cifar10_lt. The same request again gives the same bank at once; an interrupted one goes on
    from its finished blocks.

    The same command in several processes, or on several machines that share the store, shares
    the work: so do the processes of torchrun, and the parts of --shard. The bytes are the same.

    \b
    stylegan-mix generate --dataset digits_lt --n 20000
    stylegan-mix generate --dataset cifar10_lt --imbalance 100 --space none --dry-run
    torchrun --nproc-per-node 2 -m stylegan_mix generate --num-images 20000
    """
    from stylegan_mix.banks.plan import Asked, decide
    from stylegan_mix.banks.shards import Shard
    from stylegan_mix.datasets.asked import AskedDraw

    part = None if shard is None else Shard.parse(shard)
    draw = AskedDraw(dataset, imbalance, profile, split_seed)
    plan = decide(Asked(draw, **options))
    _show(plan)
    if plan.existing is None:
        process.set_up_process(threads)
    if plan.existing is not None:
        _answer(plan.existing, as_json, state="exists")
    elif dry_run:
        _print_cost(plan, part, as_json)
    else:
        _check_time(plan)
        with StopSignals(minutes) as stop, _as_launched():
            reporter = reporter_for(progress) if speaks() else SILENT
            plan, record = _made(plan, Session(stop, reporter), part)
        if record is None:
            _answer_part(plan, part, as_json)
        else:
            _answer(record, as_json, state="exists" if plan.existing else "written")


@contextmanager
def _as_launched() -> Iterator[None]:
    """Ends this process with its torchrun; a stop is told by the first process alone."""
    if by_torchrun():
        process.end_with_parent()
    try:
        yield
    except (Stopped, Interrupted):
        if speaks():
            raise
        raise click.exceptions.Exit(0) from None
    except Failure as error:
        # Blocks differ from process to process, so each tells its own.
        error.of_one_process = True
        raise


def _show(plan: Plan) -> None:
    from stylegan_mix.training.plan import plan_text

    if not speaks():
        return
    for line in plan.lines():
        say(line)
    if plan.training is not None:
        say(plan_text(plan.training.plan, start=plan.training.start))


def _check_time(plan: Plan) -> None:
    """Refuses a long training that nobody asked for, by a short measurement."""
    from stylegan_mix.training import cost

    if plan.training is not None and plan.limited and speaks():
        found = cost.estimate(plan.training.plan, start=plan.training.start)
        say(found.in_words(plan.training.start))
        plan.require_short(found.left)


def _made(plan: Plan, session: Session, part: Shard | None) -> tuple[Plan, Record | None]:
    """Trains a generator if there is none, then writes the bank; None for a part of it."""
    from stylegan_mix.banks.write import write_plan
    from stylegan_mix.training.run import ensure_generator

    if plan.training is not None:
        plan = plan.of(ensure_generator(plan.training.plan, session))
        _show(plan)
    return plan, plan.existing or write_plan(plan, session, shard=part)


def _print_cost(plan: Plan, part: Shard | None, as_json: bool) -> None:
    """Prints the cost: steps, or rows, are timed on this machine."""
    from stylegan_mix.banks import cost

    if not speaks():
        return
    if plan.training is not None:
        _print_training_cost(plan, as_json)
        return
    facts = cost.estimate(plan, part)
    if as_json:
        console.print_json({**facts, "seconds": facts["seconds"].plain()})
        return
    what = "" if part is None else f"shard {part} of "
    console.result(
        f"would write {what}bank {facts['key'][:12]}: {plan.request.n:,} images, "
        f"{plan.request.bytes / 1e6:,.1f} MB, {facts['seconds'].in_words()} on this machine"
    )


def _print_training_cost(plan: Plan, as_json: bool) -> None:
    from stylegan_mix.training import cost

    training, request = plan.training, plan.request
    if training is None:
        return
    found = cost.estimate(training.plan, start=training.start)
    if as_json:
        train = {"train": training.plan.shown(), "cost": found.plain()}
        console.print_json({"state": "no generator", **train, "bytes": request.bytes})
    else:
        say(found.in_words(training.start))
        say(f"then a bank of {request.n:,} images, {request.bytes / 1e6:,.1f} MB")
    plan.require_short(found.left)


def _answer_part(plan: Plan, part: Shard | None, as_json: bool) -> None:
    """Tells that a shard is made, and how much of the bank is there."""
    from stylegan_mix.banks import shards
    from stylegan_mix.banks import store as bank_store

    if plan.means is None or part is None or not speaks():
        return
    key = plan.request.exact_key(plan.means.numerics)
    found = next((one for one in bank_store.unfinished() if one.key == key), None)
    landed, blocks = (found.landed, found.blocks) if found else (0, plan.request.blocks)
    absent = shards.absent(found.folder, part) if found else []
    if as_json:
        facts = {"state": "shard made", "shard": str(part), "key": key, "blocks": blocks}
        console.print_json({**facts, "landed": landed, "not_begun": absent})
        return
    console.result(f"shard {part} of bank {key[:12]} made: {landed:,} of {blocks:,} blocks there")
    if absent:
        say(f"not begun: --shard {', '.join(absent[:10])}{' ...' if len(absent) > 10 else ''}")
    say("the last shard seals the bank; the same command without --shard makes the missing blocks")


def _answer(record: Record, as_json: bool, *, state: str) -> None:
    from stylegan_mix.banks.card import training_command

    if not speaks():
        return
    facts = {
        "state": state,
        "key": record.key,
        "request_key": record.request_key,
        "content_sha256": record.content_sha256,
        "n": record.facts["n"],
        "bytes": record.size,
        "folder": str(record.folder),
        "preview": str(record.folder / "preview.png"),
    }
    if as_json:
        console.print_json(facts)
        return
    console.result(f"bank {record.key[:12]} {state}: {record.folder}")
    say(f"preview {facts['preview']}")
    say(f"next    {training_command(record.facts)}")
