"""`stylegan-mix generate`: the bank that was asked for, at once if it exists."""

from __future__ import annotations

import shlex
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, process, progress
from stylegan_mix.banks.request import Request
from stylegan_mix.commands.data import DEFAULT, chosen_dataset
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators.collapse import warning
from stylegan_mix.latents.plan import SPACES
from stylegan_mix.progress import say

if TYPE_CHECKING:
    from stylegan_mix.banks.store import Record
    from stylegan_mix.datasets import Dataset
    from stylegan_mix.generators.store import Published
    from stylegan_mix.numerics import Numerics
    from stylegan_mix.training.plan import TrainPlan

__all__ = ["generate"]

_SPACE_HELP = "Where rows are mixed: " + "; ".join(
    f"{name}: {what}" for name, what in SPACES.items()
)


@click.command("generate")
@partial(console.data_options, default=f"{DEFAULT}, or that of --generator")
@click.option("--n", "--num-images", type=int, default=50_000, show_default=True, help="Images.")
@click.option("--space", default="w", show_default=True, metavar="SPACE", help=_SPACE_HELP + ".")
@click.option(
    "--alpha", type=float, default=1.0, show_default=True, help="lam ~ Beta(alpha, alpha)."
)
@click.option(
    "--truncation", type=float, default=1.0, show_default=True, help="psi; 1 is the full spread."
)
@click.option("--generator", metavar="HASH", help="This generator, not the newest of the split.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the convolutions.",
)
@click.option("--exact", is_flag=True, help="Reuse a bank only if it has this machine's numerics.")
@click.option("--no-train", is_flag=True, help="A missing generator is an error.")
@click.option(
    "--minutes", type=console.FiniteRange(0, min_open=True), help="Stop cleanly after that."
)
@console.run_options
def generate(**options: Any) -> None:
    """Write a bank of hybrid images, mixed between the classes of a long-tailed data set.

    Uses the newest finished generator of that data set and split, and trains one where there is
    none. The same request again gives the same bank at once; an interrupted one goes on from the
    blocks that are there.

    \b
    stylegan-mix generate --dataset digits_lt --n 20000
    stylegan-mix generate --dataset cifar10_lt --imbalance 100 --space none --dry-run
    """
    began = time.monotonic()
    # Bounds are checked before anything is read or trained.
    _request(options, generator="", split_id="", image=(1, 1, 1))
    published = _published(options)
    if published is None:
        return
    card = published.card
    request = _request(
        options,
        generator=published.hash,
        split_id=card["split_id"],
        image=(len(card["classes"]), card["resolution"], card["channels"]),
    )
    _show_plan(request, published)
    record = _existing(request)
    if record is not None and not options["exact"]:
        _answer(record, options, state="exists")
        return
    _write(request, published, options, began)


def _request(
    options: dict[str, Any], *, generator: str, split_id: str, image: tuple[int, int, int]
) -> Request:
    classes, resolution, channels = image
    names = ("n", "space", "alpha", "truncation", "seed")
    return Request(
        generator=generator,
        split_id=split_id,
        classes=classes,
        resolution=resolution,
        channels=channels,
        **{name: options[name] for name in names},
    )


def _existing(request: Request) -> Record | None:
    from stylegan_mix.banks import store

    found = store.find(request_key=request.key)
    return found[0] if found else None


# The generator


def _published(options: dict[str, Any]) -> Published | None:
    """The generator to use; None after a dry run has said that one would be trained."""
    from stylegan_mix.generators import store as generator_store

    if options["generator"]:
        published = generator_store.load(options["generator"])
        _check_asked(published, options)
        return published
    dataset = chosen_dataset(options)
    found = generator_store.find(split_id=dataset.split_id)
    return found[0] if found else _trained(dataset, options)


def _check_asked(published: Published, options: dict[str, Any]) -> None:
    """A generator of another data set or split than the one that was named is no generator.

    Nor is one without classes: the rows of a bank need labels.
    """
    if not published.card["classes"]:
        raise InvalidInput(
            f"generator {published.hash[:12]} is unconditional: it draws images of no known "
            "class, and the rows of a bank need two classes",
            remedy=f"look at what it draws in {published.folder / 'grid.png'}; for a bank, train "
            "or import a class-conditional one",
        )
    for option in ("dataset", "imbalance", "profile", "split_seed"):
        asked, has = options[option], published.card.get(option)
        if asked is not None and asked != has:
            word = option.replace("_", " ")
            raise InvalidInput(
                f"generator {published.hash[:12]} was trained with {word} {has}, not {asked}",
                remedy="leave out --generator, or ask for the data that it was trained on",
            )


def _trained(dataset: Dataset, options: dict[str, Any]) -> Published | None:
    """Trains the default generator of a split after saying so: the one place where this is done."""
    train = shlex.join(["stylegan-mix", "train", *dataset.options])
    imported = _imported(dataset)
    if options["no_train"]:
        raise InvalidInput(
            f"no finished generator of {dataset.name}, split {dataset.split_id[:12]}{imported}",
            remedy=f"{train} trains one; without --no-train this command does it first",
        )
    from stylegan_mix.training.plan import plan_training, show_plan, start_of
    from stylegan_mix.training.run import ensure_generator

    process.set_up_process(options["threads"])
    plan = plan_training(
        dataset, preset=None, kimg=None, seed=0, device=options["device"], command=train
    )
    start = start_of(plan)
    say(f"no finished generator of {dataset.name}: this one is trained first{imported}")
    show_plan(plan, start=start)
    if options["dry_run"]:
        _show_training_cost(plan, start, options)
        return None
    with progress.StopSignals(options["minutes"]) as stop:
        return ensure_generator(plan, stop)


def _show_training_cost(plan: TrainPlan, start: float, options: dict[str, Any]) -> None:
    """What it takes before the bank can be written, and the bank's space on the disk."""
    from stylegan_mix.training import cost
    from stylegan_mix.training.plan import cost_text

    facts, dataset = cost.of(plan, start=start), plan.dataset
    image = (dataset.num_classes, dataset.resolution, dataset.channels)
    request = _request(options, generator="", split_id=dataset.split_id, image=image)
    if options["as_json"]:
        train = {"train": plan.shown(), "cost": facts}
        console.print_json({"state": "no generator", **train, "bytes": request.bytes})
        return
    say(cost_text(facts, start))
    say(f"then a bank of {request.n:,} images, {request.bytes / 1e6:,.1f} MB")


def _imported(dataset: Dataset) -> str:
    """A hint at an imported generator that is said to be of this split: never taken unasked."""
    from stylegan_mix.generators import store as generator_store

    for one in generator_store.find():
        if one.imported and one.card["split_id"] == dataset.split_id:
            return f"; an imported one is taken if named: --generator {one.hash[:12]}"
    return ""


# The bank


def _show_plan(request: Request, published: Published) -> None:
    card = published.card
    height, width, channels = request.image_shape
    factor = card.get("imbalance")
    split = "as it is" if factor is None else f"imbalance {factor:g}"
    say(
        f"{request.n:,} images of {card['dataset']} ({split}, split {request.split_id[:12]}), "
        f"{height}x{width}x{channels}, {request.bytes / 1e6:,.1f} MB"
    )
    say(
        f"space {request.space}: {SPACES[request.space]}; alpha {request.alpha:g}, "
        f"truncation {request.truncation:g}, seed {request.seed}"
    )
    if published.imported:
        say(
            f"generator {published.hash[:12]}, imported; that it was trained on this split is "
            f"{published.imported['split']}"
        )
        return
    worst = _least_diverse(card)
    say(f"generator {published.hash[:12]}, {card['kimg']:g} thousand images{worst}")
    if text := warning(dict(enumerate(card.get("diversity") or ())), card["classes"]):
        say(text)


def _least_diverse(card: dict[str, Any]) -> str:
    known = [
        (ratio, name)
        for ratio, name in zip(card.get("diversity") or (), card["classes"], strict=False)
        if ratio is not None
    ]
    return f", diversity at least {min(known)[0]:.2f} ({min(known)[1]})" if known else ""


def _write(request: Request, published: Published, options: dict[str, Any], began: float) -> None:
    from stylegan_mix.banks import store
    from stylegan_mix.banks.write import seconds_per_block, write_bank
    from stylegan_mix.generators import store as generator_store
    from stylegan_mix.numerics import numerics_class
    from stylegan_mix.process import resolve_device

    device = resolve_device(options["device"])
    numerics = numerics_class(device, options["precision"])
    exact = [
        one for one in store.find(request_key=request.key) if one.key == request.exact_key(numerics)
    ]
    if exact:
        _answer(exact[0], options, state="exists")
        return
    process.set_up_process(options["threads"])
    network = generator_store.network(published, precision=options["precision"]).to(device)
    if options["dry_run"]:
        _estimate(request, numerics, seconds_per_block(network, request), options)
        return
    minutes = options["minutes"]
    if minutes is not None:
        minutes = max(minutes - (time.monotonic() - began) / 60, 0.0)
    folder = write_bank(request, published, numerics, network, minutes=minutes)
    _answer(store.record(folder), options, state="written")


def _estimate(
    request: Request, numerics: Numerics, seconds: float, options: dict[str, Any]
) -> None:
    from stylegan_mix.latents.plan import BLOCK

    facts: dict[str, Any] = {
        "state": "absent",
        "key": request.exact_key(numerics),
        "request_key": request.key,
        "images": request.n,
        "blocks": request.blocks,
        "bytes": request.bytes,
        "images_per_second": round(BLOCK / seconds, 1),
        "seconds": round(seconds * request.blocks, 1),
    }
    if options["as_json"]:
        console.print_json(facts)
        return
    console.result(
        f"would write bank {facts['key'][:12]}: {request.n:,} images, "
        f"{request.bytes / 1e6:,.1f} MB, about {progress.in_words(facts['seconds'])} at "
        f"{facts['images_per_second']:,.0f} images/s (one block was timed)"
    )


def _answer(record: Record, options: dict[str, Any], *, state: str) -> None:
    from stylegan_mix.banks.card import training_command

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
    if options["as_json"]:
        console.print_json(facts)
        return
    console.result(f"bank {record.key[:12]} {state}: {record.folder}")
    say(f"preview {facts['preview']}")
    say(f"next    {training_command(record.facts)}")
