"""The notes below a table: the facts that a reader needs to trust it; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stylegan_mix.datasets.groups import GROUPS, telling
from trainer.reports import figures
from trainer.reports.records import Result

__all__ = ["counted", "groups_note", "of"]

_KINDS = {
    "-unmixed": "control: the bank holds unmixed class-balanced samples",
    "-pixel": "control: the bank holds pixel mixes of decoded samples, from the same latents",
    "-clean": "rows of the bank that its judge keeps",
    "-even": "control of equal-real: as many real rows, drawn evenly over the classes, are added",
    "-judge": "labels of the bank's rows by its judge; a number is the judge's share in them",
    "-crossed": "each row of the bank is mixed with a real one",
    "-falling": "rows of the bank, or with -weight their weight, fall from epoch to epoch",
    "-from": "rows of the bank after so many epochs",
    "-until": "rows of the bank in so many first epochs",
    "-equal-real": "rows of the bank are added to the real ones",
    "-drw": "late in training, losses are weighted by class",
    "-head": "at the end, a new head on class-balanced real rows",
    "-h2t": "the head learns on class-balanced rows with feature maps of others",
    "-autoaugment": "training rows are augmented by AutoAugment's policy for CIFAR-10",
    "-randaugment": "training rows are augmented by RandAugment, with its N and M",
    "-simclr": "training rows are boxes with jittered colours, as in SimCLR",
    "cutout": "a square of half the side of each training row is hidden",
}


def counted(number: int, noun: str) -> str:
    """Counts things: "1 run", "3 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def of(results: Sequence[Result]) -> list[str]:
    """Lists the notes of the results of one table, a sentence or a few each."""
    return [
        *_data_notes(results),
        _budget_note(results),
        *_bank_notes(results),
        *_arm_notes(results),
        _machine_note(results),
    ]


def _data_notes(results: Sequence[Result]) -> list[str]:
    data = results[0].dataset
    seed = f", split seed {data['split_seed']}" if data["split_seed"] else ""
    overlap = data["overlap"]
    if data["dropped_overlap"]:
        found = "Training images that are also in the test part were dropped."
    elif overlap:
        found = f"{overlap} training images are also in the test part."
    else:
        found = "No training image is also in the test part."
    about = (
        f"Data: {data['name']}, profile {data['profile']}{seed}, split {data['split_id'][:12]}: "
        f"{data['train_images']:,} training images ({max(data['counts']):,} to "
        f"{min(data['counts']):,} a class), {data['test_images']:,} test images. {found}"
    )
    return [about, f"Figures: {figures.explained(results)}", groups_note(data)]


def groups_note(data: Mapping[str, Any]) -> str:
    """Describes the shot groups of a record's data set, or says why there are none."""
    groups = data["groups"]
    if len(set(data["counts"])) == 1:
        return "All classes have equally many training images, so there are no shot groups."
    told = telling(data["counts"], groups)
    if not told:
        only = next(name for name in GROUPS if groups[name])
        return (
            f"Shot groups by {groups['rule']}: all classes are {only}; --groups sets another rule."
        )
    sizes = ", ".join(
        f"{name} {_members(members, data['classes'])}" for name, members in told.items()
    )
    return f"Shot groups by {groups['rule']}: {sizes}."


def _members(indices: Sequence[int], classes: Sequence[str]) -> str:
    if len(classes) > 10:
        return f"{len(indices)} classes"
    return f"({', '.join(classes[index] for index in indices)})"


def _budget_note(results: Sequence[Result]) -> str:
    budget = results[0].budget
    steps = sorted({result.budget["steps"] for result in results})
    count = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    seeds = sorted({result.seed for result in results})
    fair = sorted({result.spec.fairness for result in results})
    return (
        f"Budget: {counted(budget['epochs'], 'epoch')}, {count} steps of {budget['batch']} images, "
        f"learning rate {budget['lr']:g}, {budget['precision']}. Fair by {' and '.join(fair)}. "
        f"Accuracy in percent after the last epoch, {_runs(seeds)}."
    )


def _runs(seeds: Sequence[int]) -> str:
    """Describes the runs behind an accuracy."""
    if len(seeds) == 1:
        return f"of one run (seed {seeds[0]})"
    return f"mean ± standard deviation over n runs (seeds {', '.join(map(str, seeds))})"


def _bank_notes(results: Sequence[Result]) -> list[str]:
    found = {}
    for result in results:
        bank = result.record["bank"]
        if bank:
            found[bank["key"]] = bank
    notes = []
    for bank in sorted(found.values(), key=lambda one: (one["space"], one["key"])):
        text = f"Bank {bank['key'][:12]}: {bank['n']:,} rows, space {bank['space']}"
        if bank.get("policy"):
            text += f", {bank['policy']}"
        if bank.get("generator"):
            text += f", generator {str(bank['generator'])[:12]}"
        if bank.get("generator_kimg"):
            text += f" trained for {bank['generator_kimg']:,g} thousand images"
        if bank.get("split") == "declared":
            text += " imported, and only declared to be of this split"
        notes.append(text + ".")
    return notes


def _arm_notes(results: Sequence[Result]) -> list[str]:
    arms = {result.arm for result in results}
    return [
        f"*{suffix}: {text}."
        for suffix, text in _KINDS.items()
        if any(suffix in arm for arm in arms)
    ]


def _machine_note(results: Sequence[Result]) -> str:
    machines: dict[str, list[float]] = {}
    for result in results:
        where = result.record["environment"]
        device = where["cpu"] if where["device"] == "cpu" else where["device"]
        threads = f", {counted(where['threads'], 'thread')}" if where["device"] == "cpu" else ""
        name = f"{device}{threads}, torch {where['torch']}"
        machines.setdefault(name, []).append(result.budget["seconds"])
    texts = [
        f"{name} ({counted(len(times), 'run')}, {_times(times)}{' each' * (len(times) > 1)})"
        for name, times in sorted(machines.items())
    ]
    return f"Hardware: {'; '.join(texts)}."


def _times(seconds: Sequence[float]) -> str:
    shortest, longest = _time(min(seconds)), _time(max(seconds))
    return shortest if shortest == longest else f"{shortest} to {longest}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
