"""Changes of a generator's training, each for the same time on one machine, judged as they go.

    python tools/experiments/generator_changes.py tools/experiments/cpu32_changes.toml \\
        --results tools/results/cpu32_changes --threads 2
    python tools/experiments/generator_changes.py ... --only growing --only narrow
    python tools/experiments/generator_changes.py ... --picture        draws what is there

The file names a preset and variants of it. A fifth of the training images (`held_out`) is set aside
before anything is trained, so no test image is used. Each variant trains on the rest for `minutes`.
At equal steps of time its newest state is published and judged:

* kernel distance to the training images, mean over the classes (lower is better);
* memorisation: distance to the nearest training image, over that of other training images;
* CAS: accuracy on the held-out images of a classifier trained on samples alone.

Features are those of a probe with another seed than the one that a discriminator can see. A variant
leaves one JSON, written after every point, and `curves.png` shows quality against images and
against minutes. The same command goes on: minutes are those of the training's own log, which an
interruption does not lengthen. Judging takes no time from them. Equal minutes are equal work only
on a machine that does nothing else.

In a variant, `grow = [0.4, 0.1]` is growing by shares of the time: images of half the size for 0.4
of it, the last block faded in over the next 0.1. A measurement at the start turns it into kimg.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from stylegan_mix import datasets, errors, process, rng, store
from stylegan_mix.columns import aligned
from stylegan_mix.datasets import Dataset, Part
from stylegan_mix.datasets.hashes import identity
from stylegan_mix.drawing.colours import COLOURS
from stylegan_mix.drawing.plots import png, styled
from stylegan_mix.errors import Diverged, InvalidInput, Stopped, UsageFailure
from stylegan_mix.generators import store as generator_store
from stylegan_mix.metrics.features import of_probe
from stylegan_mix.metrics.measure import Judge
from stylegan_mix.metrics.probe import ensure_probe
from stylegan_mix.metrics.samples import drawn, labels_for
from stylegan_mix.metrics.scores import class_mean
from stylegan_mix.presets import Preset
from stylegan_mix.progress import SILENT
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training.cost import step_seconds
from stylegan_mix.training.pace import pace_of
from stylegan_mix.training.plan import TrainPlan, plan_training
from stylegan_mix.training.run import publish_reached, run_training
from stylegan_mix.training.saves import Saves

SCHEMA = "generator-changes/1"
# More than any training takes in its time, and few enough for the disk: pictures take space.
MOST_KIMG = 30_000.0
# A point is reached when less than this share of its time is left.
NEAR = 0.01
PANELS = (
    ("kernel", "Kernel distance to training images", "lower is better"),
    ("memorisation", "Memorisation", "0: copies, 1: as new as real images"),
    ("cas", "CAS on held-out training images, %", "higher is better"),
    ("cas_few", "The same of the rarest classes, %", "higher is better"),
)
_SETTINGS = {one.name for one in dataclasses.fields(Preset)} - {"name", "resolution", "kimg"}
DEFAULTS = {"held_out": 0.2, "n": 5000, "points": 4, "minutes": 40.0, "probe_seed": 1}


def held_out(dataset: Dataset, share: float) -> Dataset:
    """Cuts a share of every class from the training part, at least one image; it becomes the test.

    The first images of a keyed order are cut, so every variant and machine cuts the same.
    """
    labels = dataset.train.labels
    cut = np.zeros(len(labels), bool)
    for c, count in enumerate(dataset.counts.tolist()):
        rows = np.flatnonzero(labels == c)
        if count < 2:
            raise InvalidInput(f"class {dataset.classes[c]} has {count} image(s), none to hold out")
        order = rng.stream(0, "experiment.held-out", c).permutation(rows)
        cut[order[: max(round(share * count), 1)]] = True
    kept, other = (
        Part(dataset.train.images[rows], labels[rows]) for rows in (np.flatnonzero(~cut), cut)
    )
    split_id, test_id = (
        identity(part.images, part.labels, dataset.classes) for part in (kept, other)
    )
    counts = np.bincount(kept.labels, minlength=dataset.num_classes)
    return dataclasses.replace(
        dataset, train=kept, test=other, split_id=split_id, test_id=test_id, counts=counts
    )


class Comparison:
    """A file of variants, the data that they share, and the judge of all."""

    def __init__(self, file: Path, results: Path, threads: int | None) -> None:
        self.plan = tomllib.loads(file.read_text(encoding="utf-8"))
        self.settings = {**DEFAULTS, **self.plan.get("judge", {})}
        if unknown := set(self.settings) - set(DEFAULTS):
            raise UsageFailure(f"[judge] of {file} knows no {', '.join(sorted(unknown))}")
        self.file, self.results, self.threads = file, results, threads
        base = dict(self.plan["base"])
        named = {name: base.pop(name) for name in ("imbalance", "split_seed") if name in base}
        whole = datasets.load(base.pop("dataset"), **named)
        self.dataset = held_out(whole, self.settings["held_out"])
        self.preset, self.seed = base.pop("preset"), base.pop("seed", 0)
        self.device = base.pop("device", "cpu")
        self.base = base
        for place, own in (("base", base), *((one["name"], one) for one in self.plan["variants"])):
            if unknown := set(own) - _SETTINGS - {"name", "about", "grow"}:
                raise UsageFailure(f"{place} of {file} knows no {', '.join(sorted(unknown))}")
        self._judge: Judge | None = None

    def training(self, changes: dict[str, Any]) -> TrainPlan:
        """Plans the training of a variant; its budget is never reached."""
        return plan_training(
            self.dataset,
            preset=self.preset,
            kimg=MOST_KIMG,
            seed=self.seed,
            device=self.device,
            command=self.command(),
            changes={**self.base, **changes},
        )

    def command(self) -> str:
        """Composes the command of the whole comparison."""
        words = ["python", "tools/experiments/generator_changes.py", str(self.file)]
        return shlex.join([*words, "--results", str(self.results)])

    def changes_of(self, variant: dict[str, Any]) -> dict[str, Any]:
        """Resolves the changes of a variant; shares of the time for growing become kimg."""
        changes = {name: v for name, v in variant.items() if name not in ("name", "about", "grow")}
        if "grow" not in variant:
            return changes
        small, fading = variant["grow"]
        seconds = 60 * self.settings["minutes"]
        # Far ends: only the speed of both sizes is measured.
        pace = pace_of(self.training({**changes, "grow_start": 1.0, "grow_end": 1.0}), step_seconds)
        batch = self.training(changes).preset.batch
        start = small * seconds / pace.half.middle * batch / 1000
        end = start + fading * seconds / pace.whole.middle * batch / 1000
        return {**changes, "grow_start": round(start, 3), "grow_end": round(end, 3)}

    def judge(self, session: Session) -> Judge:
        """Makes the judge: references are the training images and the held-out ones alone."""
        if self._judge is None:
            device = torch.device(self.device)
            probe = ensure_probe(self.dataset, self.settings["probe_seed"], device, session)
            network = probe.network(device)
            self._judge = Judge(
                self.dataset,
                {"train": self.dataset.train, "test": self.dataset.test},
                network=network,
                backbone=of_probe(network, probe.hash),
                device=device,
                session=session,
            )
        return self._judge

    def figures(self, generator: str, session: Session) -> dict[str, float | None]:
        """Judges a published generator by its samples."""
        judge = self.judge(session)
        labels = labels_for(self.dataset.counts, "uniform", self.settings["n"])
        network = generator_store.network(generator_store.load(generator)).to(self.device)
        samples = drawn(network, labels, seed=0, truncation=1.0, session=session)
        found, _ = judge.judge(samples, seed=0, cas=True)
        names = [name for name, _ in judge.scopes]
        first = len(names) - self.dataset.num_classes
        alone = found[""]
        groups = {name: names.index(name) for name in ("many", "medium", "few") if name in names}
        return {
            "kernel": class_mean(found["train"]["kernel"][first:]),
            "memorisation": alone["memorisation"][0],
            "copies": alone["copies"][0],
            "diversity": alone["diversity"][0],
            "label_accuracy": _percent(alone["label_accuracy"][0]),
            "cas": _percent(alone["cas"][0]),
            **{f"cas_{name}": _percent(alone["cas"][at]) for name, at in groups.items()},
        }

    def record(self, variant: dict[str, Any]) -> dict[str, Any]:
        """Reads the record of a variant, or begins one; InvalidInput if it is of another plan."""
        path = self.path(variant)
        if not path.exists():
            changes = self.changes_of(variant)
            preset = self.training(changes).preset
            return {
                "schema": SCHEMA,
                "variant": variant["name"],
                "about": variant["about"],
                "asked": variant,
                "changes": changes,
                "preset": preset.plain(),
                "settings": self.settings,
                "seed": self.seed,
                "dataset": self.dataset.name,
                "imbalance": self.dataset.imbalance,
                "split_id": self.dataset.split_id,
                "held_out_id": self.dataset.test_id,
                "device": self.device,
                "hardware": process.cpu_name(),
                "threads": self.threads,
                "torch": torch.__version__,
                "command": self.command(),
                "points": [],
            }
        record: dict[str, Any] = store.read_json(path)
        told = {
            "asked": variant,
            "settings": self.settings,
            "split_id": self.dataset.split_id,
            "seed": self.seed,
        }
        for name, value in told.items():
            if record.get(name) != value:
                raise InvalidInput(
                    f"{path} has {name} {record.get(name)!r:.60}, {self.file} now {value!r:.60}",
                    remedy=f"another --results, or move {path} away to begin it again",
                )
        return record

    def path(self, variant: dict[str, Any]) -> Path:
        """Returns the file of a variant's record."""
        return self.results / f"{variant['name']}-seed{self.seed}.json"

    def run(self, variant: dict[str, Any]) -> None:
        """Trains and judges a variant up to its last point; writes its record after each."""
        record = self.record(variant)
        plan = self.training(record["changes"])
        points, minutes = self.settings["points"], self.settings["minutes"]
        store.write_json(self.path(variant), record)
        for number in range(len(record["points"]) + 1, points + 1):
            if "failed" in record:
                return
            try:
                _train_up_to(plan, 60 * minutes * number / points)
                point = self.point(plan)
            except Diverged as failure:
                record["failed"] = str(failure)
                print(f"{variant['name']}, point {number} of {points}: {failure}", flush=True)
            else:
                record["points"].append(point)
                print(f"{variant['name']}, point {number} of {points}: {_words(point)}", flush=True)
            store.write_json(self.path(variant), record)

    def point(self, plan: TrainPlan) -> dict[str, Any]:
        """Publishes the newest state of a training and judges it."""
        with StopSignals() as stop:
            session = Session(stop)
            published = publish_reached(plan, lambda kimg: self.command(), session)[0]
            return {
                "seconds": round(trained_seconds(plan), 1),
                "kimg": published.card["kimg"],
                "generator": published.hash,
                **self.figures(published.hash, session),
            }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _words(point: dict[str, Any]) -> str:
    shown = (f"{name} {point[name]:.4g}" for name, _, _ in PANELS if point.get(name) is not None)
    return f"{point['kimg']:g} kimg in {point['seconds']:g} s, {', '.join(shown)}"


def trained_seconds(plan: TrainPlan) -> float:
    """Sums the time of the newest saved state: that of its log, and since its last line."""
    newest = Saves(plan.folder).newest(print)
    if newest is None:
        return 0.0
    _, (step, saved, _) = newest
    log = plan.folder / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return float(saved["tick"]["seconds"]) + sum(
        line["seconds"] for line in lines if line["step"] <= step
    )


def _train_up_to(plan: TrainPlan, seconds: float) -> None:
    """Trains until the saved state has had so many seconds; a signal ends the script."""
    while (left := seconds - trained_seconds(plan)) > NEAR * seconds:
        with StopSignals(left / 60) as stop:
            try:
                run_training(plan, Session(stop, SILENT))
                return  # the whole budget
            except Stopped:
                if stop.requested != "minutes":
                    raise


# --------------------------------------------------------------------- the picture and the table


def records_in(results: Path) -> list[dict[str, Any]]:
    """Reads all records of a folder that have a point."""
    found = [store.read_json(path) for path in sorted(results.glob("*.json"))]
    return [one for one in found if one.get("schema") == SCHEMA and one["points"]]


@styled
def curves(records: Sequence[dict[str, Any]]) -> Figure:
    """Draws every figure against images (left) and minutes (right), a line for each variant."""
    figure = Figure(figsize=(9.0, 2.6 * len(PANELS)), layout="constrained")
    grid = figure.subplots(len(PANELS), 2, sharey="row", squeeze=False)
    for (name, title, better), (images, minutes) in zip(PANELS, grid, strict=True):
        for number, record in enumerate(records):
            points = [one for one in record["points"] if one.get(name) is not None]
            values = [one[name] for one in points]
            style = {"color": COLOURS[number % len(COLOURS)], "marker": ".", "linewidth": 1.3}
            style |= {"linestyle": "-" if number < len(COLOURS) else "--"}
            label = f"{record['variant']}, seed {record['seed']}"
            images.plot([one["kimg"] for one in points], values, label=label, **style)
            minutes.plot([one["seconds"] / 60 for one in points], values, **style)
        images.set_title(f"{title} ({better})")
        for axes in (images, minutes):
            axes.set_xlim(left=0)
    grid[-1][0].set_xlabel("thousand images shown")
    grid[-1][1].set_xlabel("minutes of training")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def table(records: Sequence[dict[str, Any]]) -> str:
    """Lists the last point of every variant, the lowest kernel distance first."""
    rows = [("variant", "seed", "minutes", "kimg", *(name for name, _, _ in PANELS))]
    ends = sorted(
        ((one["points"][-1], one) for one in records),
        key=lambda pair: (pair[0]["kernel"] is None, pair[0]["kernel"] or 0.0),
    )
    for point, one in ends:
        cells = (point.get(name) for name, _, _ in PANELS)
        rows.append(
            (
                one["variant"],
                str(one["seed"]),
                f"{point['seconds'] / 60:.1f}",
                f"{point['kimg']:g}",
                *("n/a" if cell is None else f"{cell:.4g}" for cell in cells),
            )
        )
    return "\n".join(aligned(rows, right=range(1, len(rows[0]))))


def main() -> int:
    """Runs the unfinished variants, then draws; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path, help="TOML file with base, judge and variants")
    parser.add_argument("--results", type=Path, required=True, help="folder of the records")
    parser.add_argument("--only", action="append", help="a variant; again for several")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--picture", action="store_true", help="only draw what is there")
    options = parser.parse_args()
    try:
        if not options.picture:
            process.set_up_process(options.threads)
            comparison = Comparison(options.plan, options.results, options.threads)
            names = [one["name"] for one in comparison.plan["variants"]]
            if unknown := set(options.only or ()) - set(names):
                raise UsageFailure(
                    f"no variant {', '.join(sorted(unknown))}; there are {', '.join(names)}"
                )
            for variant in comparison.plan["variants"]:
                if not options.only or variant["name"] in options.only:
                    comparison.run(variant)
        found = records_in(options.results)
        if not found:
            raise InvalidInput(f"no finished point in {options.results}", remedy="run it first")
        store.write_bytes(options.results / "curves.png", png(curves(found)))
        print(table(found))
    except errors.Failure as failure:
        print(failure, failure.remedy or "", sep="\n", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
