"""The plan of a report: the options of `metrics` become a subject, references, a request."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stylegan_mix import datasets
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.console import as_typed
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.datasets.asked import AskedDraw
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.metrics.choices import AGAINST, LABELS, SAMPLES, parse_against
from stylegan_mix.metrics.features import script_hash
from stylegan_mix.metrics.memory import check_memory
from stylegan_mix.metrics.probe import Probe, find_probe, probe_key
from stylegan_mix.metrics.request import Found, Request, find
from stylegan_mix.metrics.subject import Subject

__all__ = ["Asked", "Plan", "decide", "without_reals"]

_UNCONDITIONAL = "is unconditional: its samples have no class to be judged by"


@dataclass(frozen=True)
class Asked:
    """The options of `metrics` that name the subject, and its references.

    `generator` is a hash, `bank` a key, or the beginning of one; with neither, the newest generator
    of the split is judged. `features` is "probe" or the path of a TorchScript file, whose hash is
    `features_sha256`. None is a default that depends on the subject.
    """

    generator: str | None = None
    bank: str | None = None
    draw: AskedDraw = AskedDraw()
    against: str = ",".join(AGAINST)
    labels: str | None = None
    n: int | None = None
    seeds: int = 1
    truncation: float | None = None
    features: str = "probe"
    features_sha256: str | None = None
    probe_seed: int = 0
    cas: bool = True
    seed: int = 0

    def problems(self) -> list[str]:
        """Lists everything impossible, before anything is read."""
        found = []
        if self.generator and self.bank:
            found.append("name a GENERATOR or a --bank, not both")
        if self.bank:
            found += [
                f"--{name} belongs to a generator: the rows of a bank are fixed"
                for name in ("labels", "truncation")
                if getattr(self, name) is not None
            ]
        if self.features == "probe" and self.features_sha256:
            found.append("--features-sha256 belongs to --features FILE")
        return found

    @property
    def script(self) -> Path | None:
        """The TorchScript file of the features; None for those of the probe."""
        return None if self.features == "probe" else Path(self.features)

    def command(self) -> list[str]:
        """Composes the command with these options, as words."""
        words = ["stylegan-mix", "metrics"] + ([self.generator] if self.generator else [])
        plain = Asked()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "draw":
                draw = {"dataset": value.dataset, **value.draw}
                words += _spelled({name: one for name, one in draw.items() if one is not None})
            elif field.name != "generator" and value != getattr(plain, field.name):
                words += _spelled({field.name: value})
        return words


def _spelled(options: dict[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", as_typed(value)]
    return words


@dataclass(frozen=True, eq=False)
class Plan:
    """A decided report: `found` if it is there already, `probe` if that has been trained.

    `references` are the parts to compare with, by name; `absent` gives the reason for each missing
    one. `why` are reasons and warnings to print.
    """

    asked: Asked
    subject: Subject
    references: dict[str, Part]
    absent: dict[str, str]
    request: Request
    found: Found | None
    probe: Probe | None
    why: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """Composes the command that requests this report again, as words."""
        return self.asked.command()

    def lines(self) -> list[str]:
        """Puts the plan into words."""
        subject, request, dataset = self.subject, self.request, self.subject.dataset
        parts = self.references.items()
        sizes = ", ".join(f"{name} ({len(part):,} images)" for name, part in parts)
        features = request.features if request.features == "probe" else request.features[:12]
        probe = self.probe.hash[:12] if self.probe else "to be trained on the training part"
        state = "there already" if self.found else "to be made"
        samples = f"{request.n:,} samples of labels '{request.labels}'"
        return [
            *self.why,
            f"{subject.kind} {subject.name} of {dataset.name}, split {dataset.split_id[:12]}",
            *([warned] if (warned := subject.short_training()) else []),
            f"{samples} for each of {len(request.seeds)} seed(s), against {sizes}",
            f"features {features}; probe {probe}",
            f"report {request.key[:12]}: {state}",
        ]


def decide(asked: Asked) -> Plan:
    """Resolves all open options, by the generators, banks, data and reports that exist.

    Raises `UsageFailure` (exit code 2) for an impossible request, `InvalidInput` (3) if there is
    nothing to judge or it is of another split, `MissingEnvironment` (4) for absent data and for
    more classes than the memory holds.
    """
    if problems := asked.problems():
        raise UsageFailure("; ".join(problems))
    against = parse_against(asked.against)
    features = "probe"
    if asked.script is not None:
        features = script_hash(asked.script, asked.features_sha256)
    subject, why = _subject(asked)
    references, absent = _references(subject.dataset, against)
    request = _request(asked, subject, tuple(references), features)
    notes: list[str] = []
    found = find(request, notes.append)
    if found is None:
        check_memory(subject.dataset.num_classes, len(references))
    probe = find_probe(subject.dataset, asked.probe_seed)
    why = (*why, *subject.dataset.notes, *notes)
    return Plan(asked, subject, references, absent, request, found, probe, why)


def without_reals(asked: Asked) -> tuple[Published, str] | None:
    """Finds the named generator, and the reason if it cannot be compared with reals; else None."""
    if not asked.generator:
        return None
    published = generator_store.load(asked.generator)
    name = published.card["dataset"]
    if not published.card["classes"]:
        return published, f"the generator {_UNCONDITIONAL}"
    if asked.draw.dataset is None and not datasets.available(name):
        return published, f"data set {name} is not in this store"
    return None


# The subject


def _subject(asked: Asked) -> tuple[Subject, tuple[str, ...]]:
    """Finds the generator or bank to judge, and the reasons for the choice."""
    if asked.bank:
        bank = open_bank(bank_store.resolve(asked.bank))
        dataset = _dataset_of(bank.facts, f"bank {bank.key[:12]}", asked.draw)
        return Subject(dataset, None, bank), ()
    if asked.generator:
        published = generator_store.load(asked.generator)
        if not published.card["classes"]:
            raise InvalidInput(
                f"generator {published.hash[:12]} {_UNCONDITIONAL}",
                remedy="--page FOLDER draws what can be drawn of it",
            )
        dataset = _dataset_of(published.card, f"generator {published.hash[:12]}", asked.draw)
        return Subject(dataset, published, None), ()
    dataset = asked.draw.load()
    found = generator_store.find(split_id=dataset.split_id)
    if not found:
        raise InvalidInput(
            generator_store.none_of(dataset),
            remedy=f"{shlex.join(['stylegan-mix', 'train', *dataset.options])} trains one",
        )
    return Subject(dataset, found[0], None), (*asked.draw.why, *generator_store.left_out())


def _dataset_of(card: dict[str, Any], what: str, draw: AskedDraw) -> Dataset:
    """Loads the data set on the card; `InvalidInput` if it, or the requested one, is another."""
    told: dict[str, Any] = {
        name: card.get(name) if one is None else one for name, one in draw.draw.items()
    }
    if told["profile"] == "natural":
        told["imbalance"] = draw.imbalance
    dataset = datasets.load(draw.dataset or card["dataset"], **told)
    if dataset.split_id != card["split_id"]:
        raise InvalidInput(
            f"{what} comes from training split {card['split_id'][:12]} of {card['dataset']}; "
            f"this is split {dataset.split_id[:12]} of {dataset.name}",
            remedy="leave out --dataset, --imbalance, --profile and --split-seed, or name those "
            "that it was trained with",
        )
    return dataset


# References and request


def _references(
    dataset: Dataset, against: tuple[str, ...]
) -> tuple[dict[str, Part], dict[str, str]]:
    """Collects the parts to compare with, and the reason for each missing one."""
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
    """Loads the draw at imbalance 1; `InvalidInput` if the source does not hold it."""
    whole = datasets.load(dataset.name, imbalance=1.0, profile="exp", split_seed=dataset.split_seed)
    if whole.split_id == dataset.split_id:
        raise InvalidInput(f"{dataset.name}: this training part is the balanced one")
    return whole.train


def _request(asked: Asked, subject: Subject, against: tuple[str, ...], features: str) -> Request:
    dataset, bank = subject.dataset, subject.bank
    truncation = 1.0 if asked.truncation is None else float(asked.truncation)
    n = asked.n or (SAMPLES if bank is None else min(SAMPLES, len(bank)))
    if bank is not None and n > len(bank):
        raise UsageFailure(f"--n {n:,} is more than the {len(bank):,} rows of the bank")
    if n < 2 * dataset.num_classes:
        raise UsageFailure(f"--n must be at least {2 * dataset.num_classes}, two a class, got {n}")
    return Request(
        subject=subject.hash,
        kind=subject.kind,
        split_id=dataset.split_id,
        test_id=dataset.test_id,
        against=against,
        labels="rows" if bank is not None else asked.labels or LABELS[0],
        n=n,
        seeds=tuple(asked.seed + index for index in range(asked.seeds)),
        truncation=truncation if bank is None else None,
        features=features,
        probe=probe_key(dataset, asked.probe_seed),
        cas=asked.cas and "test" in against,
    )
