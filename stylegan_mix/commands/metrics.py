"""`stylegan-mix metrics`: what samples of a generator, or rows of a bank, are worth."""

from __future__ import annotations

import shlex
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan_mix import console, process, progress
from stylegan_mix.commands.data import DEFAULT, chosen_dataset
from stylegan_mix.console import result
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.metrics.request import AGAINST, LABELS, Found, Request, find, parse_against
from stylegan_mix.progress import say

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset, Part
    from stylegan_mix.generators.store import Published
    from stylegan_mix.metrics.subject import Subject

__all__ = ["metrics"]

SAMPLES = 10_000
# A classifier's first steps of a process take many times as long as all others.
_WARM_UP, _TIMED_STEPS = (2,), (1, 11)
_UNCONDITIONAL = "is unconditional: its samples have no class to be judged by"
# What does not change the report stays out of the command in it.
_NOT_SPELLED = ("out", "page", "threads", "debug", "as_json", "dry_run")


@click.command("metrics")
@click.argument("generator", required=False)
@click.option("--bank", metavar="KEY", help="Judge rows of this bank, not a generator.")
@partial(console.data_options, default=f"{DEFAULT}, or that of what is judged")
@click.option(
    "--against",
    default=",".join(AGAINST),
    show_default=True,
    metavar="PARTS",
    help="Real images to compare with; balanced is left out where it does not exist.",
)
@click.option(
    "--labels",
    type=click.Choice(LABELS),
    help="Of the samples: every class alike, or as in the training part.  [default: uniform]",
)
@click.option(
    "--n", "--num-images", type=click.IntRange(2), help=f"Samples a seed.  [default: {SAMPLES}]"
)
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Sets of samples."
)
@click.option(
    "--truncation", type=console.FiniteRange(0, 2), help="psi of a generator.  [default: 1]"
)
@click.option(
    "--features",
    default="probe",
    show_default=True,
    metavar="probe|FILE",
    help="Space of distances: the probe, or a TorchScript file, which is a program and is run.",
)
@click.option("--features-sha256", metavar="HEX", help="The hash that the file must have.")
@click.option(
    "--probe-seed", type=int, default=0, show_default=True, help="Seed of the probe's training."
)
@click.option(
    "--cas/--no-cas", default=True, help="Train a classifier on the samples and test it on reals."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report: .json or .md.")
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Draw the generator's pictures and write them there with an index.html.",
)
@console.run_options
@click.pass_context
def metrics(ctx: click.Context, **options: Any) -> None:
    """Judge the samples of a generator, or a bank, against real images, with the floor beside.

    GENERATOR is a hash or the beginning of one; by default the newest of the data set and split.
    Distances are taken in the features of a probe, a small classifier that is trained once on the
    training part; they are not FID. To choose a checkpoint, use --against train: it looks at no
    test image. The same request again is answered at once.

    \b
    stylegan-mix metrics --dataset digits_lt
    stylegan-mix metrics 3fa9c1 --against train,test --seeds 3 --out report.md
    stylegan-mix metrics 3fa9c1 --page pictures
    stylegan-mix metrics --bank 9061f3c614e8 --n 5000
    """
    _check_options(options)
    if options["page"] and (without := _without_reals(options)):
        _page_alone(*without, options)
        return
    sha256 = _features(options)
    subject = _subject(options)
    references, absent = _references(subject.dataset, parse_against(options["against"]))
    request = _request(subject, list(references), sha256, options)
    found = find(request)
    _show_plan(subject, references, request, options, there=found is not None)
    if options["dry_run"]:
        _estimate(subject, request, options, there=found is not None)
        return
    state = "exists" if found else "made"
    if found is None:
        found = _made(subject, references, absent, request, options, _spelled(ctx))
    index = _page(subject, found, request, options) if options["page"] else None
    _answer(found, state, index, options)


def _check_options(options: dict[str, Any]) -> None:
    problems = []
    if options["generator"] and options["bank"]:
        problems.append("name a GENERATOR or a --bank, not both")
    if options["bank"]:
        problems += [
            f"--{name} belongs to a generator: the rows of a bank are what they are"
            for name in ("labels", "truncation")
            if options[name] is not None
        ]
        if options["page"]:
            problems.append("--page shows a generator: `bank preview` draws rows of a bank")
    if options["features"] == "probe" and options["features_sha256"]:
        problems.append("--features-sha256 belongs to --features FILE")
    if options["out"] is not None and options["out"].suffix not in (".json", ".md"):
        problems.append(f"--out ends in .json or .md, got '{options['out']}'")
    parse_against(options["against"])
    if problems:
        raise UsageFailure("; ".join(problems))
    if options["page"]:
        from stylegan_mix.pictures import folder

        folder.check(options["page"])


# What is judged


def _subject(options: dict[str, Any]) -> Subject:
    from stylegan_mix.generators import store as generator_store
    from stylegan_mix.metrics.subject import Subject

    if options["bank"]:
        from stylegan_mix.banks import store as banks
        from stylegan_mix.banks.reader import open_bank

        bank = open_bank(banks.resolve(options["bank"]))
        dataset = _dataset_of(bank.facts, f"bank {bank.key[:12]}", options)
        return Subject(dataset, None, bank)
    if options["generator"]:
        published = generator_store.load(options["generator"])
        if not published.card["classes"]:
            raise InvalidInput(
                f"generator {published.hash[:12]} {_UNCONDITIONAL}",
                remedy="--page FOLDER draws what can be drawn of it",
            )
        dataset = _dataset_of(published.card, f"generator {published.hash[:12]}", options)
        return Subject(dataset, published, None)
    dataset = chosen_dataset(options)
    found = generator_store.find(split_id=dataset.split_id)
    if not found:
        raise InvalidInput(
            f"no finished generator of {dataset.name}, split {dataset.split_id[:12]}",
            remedy=f"{shlex.join(['stylegan-mix', 'train', *dataset.options])} trains one",
        )
    return Subject(dataset, found[0], None)


def _draw(options: dict[str, Any], card: dict[str, Any]) -> dict[str, Any]:
    """Which draw of the data set: the options, else what the card says."""
    names = ("imbalance", "profile", "split_seed")
    chosen = {name: card.get(name) if options[name] is None else options[name] for name in names}
    if chosen["profile"] == "natural":
        chosen["imbalance"] = options["imbalance"]
    return chosen


def _dataset_of(card: dict[str, Any], what: str, options: dict[str, Any]) -> Dataset:
    """The data set that the card names; error 3 if it, or what the options ask, is another."""
    from stylegan_mix import datasets

    name = options["dataset"] or card["dataset"]
    dataset = datasets.load(name, **_draw(options, card))
    if dataset.split_id != card["split_id"]:
        raise InvalidInput(
            f"{what} comes from training split {card['split_id'][:12]} of {card['dataset']}; "
            f"this is split {dataset.split_id[:12]} of {dataset.name}",
            remedy="leave out --dataset, --imbalance, --profile and --split-seed, or name those "
            "that it was trained with",
        )
    return dataset


def _features(options: dict[str, Any]) -> str:
    """ "probe", or the hash of the file that is named and vouched for."""
    if options["features"] == "probe":
        return "probe"
    from stylegan_mix.metrics.features import script_hash

    return script_hash(Path(options["features"]), options["features_sha256"])


def _references(
    dataset: Dataset, against: tuple[str, ...]
) -> tuple[dict[str, Part], dict[str, str]]:
    """The parts to compare with, and why others are absent."""
    parts: dict[str, Part] = {}
    absent: dict[str, str] = {}
    for name in against:
        if name == "balanced":
            try:
                parts[name] = _balanced(dataset)
            except InvalidInput as error:
                absent[name] = str(error)
        else:
            parts[name] = dataset.train if name == "train" else dataset.test
    if not parts:
        raise InvalidInput(f"nothing to compare with: {absent['balanced']}")
    return parts, absent


def _balanced(dataset: Dataset) -> Part:
    """The draw at imbalance 1; `InvalidInput` where the source does not hold it."""
    from stylegan_mix import datasets

    whole = datasets.load(dataset.name, imbalance=1.0, profile="exp", split_seed=dataset.split_seed)
    if whole.split_id == dataset.split_id:
        raise InvalidInput(f"{dataset.name}: this training part is the balanced one")
    return whole.train


def _request(
    subject: Subject, references: list[str], sha256: str, options: dict[str, Any]
) -> Request:
    from stylegan_mix.metrics.probe import probe_key

    dataset, bank = subject.dataset, subject.bank
    truncation = 1.0 if options["truncation"] is None else float(options["truncation"])
    n = options["n"] or (SAMPLES if bank is None else min(SAMPLES, len(bank)))
    if bank is not None and n > len(bank):
        raise UsageFailure(f"--n {n:,} is more than the {len(bank):,} rows of the bank")
    if n < 2 * dataset.num_classes:
        raise UsageFailure(f"--n must be at least {2 * dataset.num_classes}, two a class, got {n}")
    return Request(
        subject=subject.hash,
        kind=subject.kind,
        split_id=dataset.split_id,
        test_id=dataset.test_id,
        against=tuple(references),
        labels="rows" if bank is not None else options["labels"] or LABELS[0],
        n=n,
        seeds=tuple(options["seed"] + index for index in range(options["seeds"])),
        truncation=truncation if bank is None else None,
        features=sha256,
        probe=probe_key(dataset, options["probe_seed"]),
        cas=options["cas"] and "test" in references,
    )


# Plan and cost


def _show_plan(
    subject: Subject,
    references: dict[str, Part],
    request: Request,
    options: dict[str, Any],
    *,
    there: bool,
) -> None:
    from stylegan_mix.metrics.probe import find_probe

    dataset = subject.dataset
    probe = find_probe(dataset, options["probe_seed"])
    sizes = ", ".join(f"{name} ({len(part):,} images)" for name, part in references.items())
    features = request.features if request.features == "probe" else request.features[:12]
    say(
        f"{subject.kind} {subject.name} of {dataset.name}, split {dataset.split_id[:12]}\n"
        f"{request.n:,} samples of labels '{request.labels}' for each of {len(request.seeds)} "
        f"seed(s), against {sizes}\n"
        f"features {features}; probe "
        f"{probe.hash[:12] if probe else 'to be trained on the training part'}\n"
        f"report {request.key[:12]}: {'there already' if there else 'to be made'}"
    )


def _estimate(subject: Subject, request: Request, options: dict[str, Any], *, there: bool) -> None:
    """Prints the cost: what is drawn, and what is trained, with one block and a few steps timed."""
    from stylegan_mix.metrics.probe import find_probe, schedule_for

    schedule = schedule_for(subject.dataset.resolution)
    trainings = len(request.seeds) * request.cas
    trainings += find_probe(subject.dataset, options["probe_seed"]) is None
    facts: dict[str, Any] = {
        "state": "exists" if there else "absent",
        "key": request.key,
        "samples": request.n * len(request.seeds),
        "classifiers_to_train": 0 if there else trainings,
        "training_steps": 0 if there else trainings * schedule.steps,
        "seconds": 0.0 if there else round(_seconds(subject, request, trainings, options), 1),
    }
    if options["as_json"]:
        console.print_json(facts)
        return
    console.result(
        f"would draw {facts['samples']:,} samples and train {facts['classifiers_to_train']} small "
        f"classifiers ({facts['training_steps']:,} steps): about "
        f"{progress.in_words(facts['seconds'])}, and the time of the distances"
        if not there
        else f"report {request.key[:12]} exists"
    )


def _seconds(subject: Subject, request: Request, trainings: int, options: dict[str, Any]) -> float:
    from stylegan_mix.latents.plan import BLOCK
    from stylegan_mix.metrics.probe import schedule_for
    from stylegan_mix.metrics.samples import decode_block, labels_for

    process.set_up_process(options["threads"])
    dataset, device = subject.dataset, _device(options)
    seconds = 0.0
    if subject.published:
        network = subject.network(device)
        labels = labels_for(dataset.counts, "uniform", BLOCK)
        decode_block(network, labels, 0, seed=0, truncation=1.0)
        began = time.perf_counter()
        decode_block(network, labels, 0, seed=0, truncation=1.0)
        blocks = -(-request.n // BLOCK) * len(request.seeds)
        seconds += (time.perf_counter() - began) * blocks
    if trainings:
        steps = schedule_for(dataset.resolution).steps
        seconds += _seconds_per_step(dataset, device) * steps * trainings
    return seconds


def _seconds_per_step(dataset: Dataset, device: Any) -> float:
    """Measured, without what a training does once."""
    from dataclasses import replace

    from stylegan_mix.metrics.probe import schedule_for, train_classifier

    took = []
    for steps in (*_WARM_UP, *_TIMED_STEPS):
        began = time.perf_counter()
        train_classifier(
            dataset.train,
            classes=dataset.num_classes,
            flip=dataset.flip,
            schedule=replace(schedule_for(dataset.resolution), steps=steps),
            seed=0,
            device=device,
            label="a few steps",
        )
        took.append(time.perf_counter() - began)
    fewer, more = _TIMED_STEPS
    return max(took[-1] - took[-2], 0.0) / (more - fewer)


def _device(options: dict[str, Any]) -> Any:
    import torch

    from stylegan_mix.process import resolve_device

    return torch.device(resolve_device(options["device"]))


# The report


def _made(
    subject: Subject,
    references: dict[str, Part],
    absent: dict[str, str],
    request: Request,
    options: dict[str, Any],
    command: str,
) -> Found:
    from stylegan_mix.metrics.make import make

    process.set_up_process(options["threads"])
    return make(
        subject,
        references,
        absent,
        request,
        script=None if request.features == "probe" else Path(options["features"]),
        probe_seed=options["probe_seed"],
        device=_device(options),
        command=command,
    )


# The page


def _without_reals(options: dict[str, Any]) -> tuple[Published, str] | None:
    """The generator that is named, and why it cannot be set beside real images; None if it can."""
    from stylegan_mix.datasets import available
    from stylegan_mix.generators import store as generator_store

    if not options["generator"]:
        return None
    published = generator_store.load(options["generator"])
    name = published.card["dataset"]
    if not published.card["classes"]:
        return published, f"the generator {_UNCONDITIONAL}"
    if options["dataset"] is None and not available(name):
        return published, f"data set {name} is not in this store"
    return None


def _page_alone(published: Published, why: str, options: dict[str, Any]) -> None:
    """The page of a generator without its data set: no report."""
    from stylegan_mix.pictures.make import make_page

    say(f"generator {published.hash[:12]}: no report and no real images, {why}")
    facts = {"generator": published.hash, "page": str(options["page"]), "report": None, "why": why}
    if not options["dry_run"]:
        process.set_up_process(options["threads"])
        index = make_page(
            options["page"],
            published,
            None,
            why_not=why,
            seed=options["seed"],
            truncation=1.0 if options["truncation"] is None else options["truncation"],
            device=_device(options),
        )
        facts["page"] = str(index)
    if options["as_json"]:
        console.print_json(facts)
    else:
        result(f"{'would write ' if options['dry_run'] else ''}page {facts['page']}")


def _page(subject: Subject, found: Found, request: Request, options: dict[str, Any]) -> Path:
    from stylegan_mix.pictures.make import Measured, make_page

    if subject.published is None or request.truncation is None:
        raise ValueError("a page shows a generator")
    process.set_up_process(options["threads"])
    return make_page(
        options["page"],
        subject.published,
        Measured(subject.dataset, found),
        seed=request.seeds[0],
        truncation=request.truncation,
        device=_device(options),
    )


def _spelled(ctx: click.Context) -> str:
    """The command with the options that differ from their defaults."""
    words = ["stylegan-mix", "metrics"]
    for name, entry in console.resolved(ctx).items():
        if entry["source"] == "default" or name in _NOT_SPELLED:
            continue
        if name == "generator":
            words.append(str(entry["value"]))
        elif name == "cas":
            words.append("--cas" if entry["value"] else "--no-cas")
        else:
            words += [f"--{name.replace('_', '-')}", str(entry["value"])]
    return shlex.join(words)


def _answer(found: Found, state: str, index: Path | None, options: dict[str, Any]) -> None:
    from stylegan_mix import store
    from stylegan_mix.metrics import report

    out = options["out"]
    if out is not None and out.suffix == ".json":
        store.write_json(out, found.report)
    elif out is not None:
        store.write_bytes(out, report.markdown(found.report).encode())
    if options["as_json"]:
        page = {} if index is None else {"page": str(index)}
        console.print_json({"state": state, "folder": str(found.folder), **page, **found.report})
        return
    for line in report.text_lines(found.report):
        result(line)
    say(f"report {found.report['key'][:12]} {state}: {out or found.folder}")
    if index is not None:
        say(f"page {index}")
