"""Chooses levers of hybrid images by folds of the digits' training part, then proves the choice.

    python tools/experiments/digits_levers.py choose --work WORK --out choice.json
    python tools/experiments/digits_levers.py prove --work WORK --choice choice.json \\
        --results tools/results/digits_levers

`choose` cuts the training part into folds, and makes a data set of each: its own test part is a
fold, so neither the generator nor the judge of a fold has seen it. For each fold it trains a
generator, writes and judges the banks, and trains every arm. Arms are ordered by their balanced
accuracy on the images of all folds together. The test part of the digits is not read.

`prove` trains the baselines and the first arm of the choice on the whole training part. It scores
them on the test part, and copies the records into a folder.

Every step is a command of the project, which goes on where it was stopped; so does this script. The
arms, banks and budgets stand in a plan, `digits_levers.toml` beside it unless `--plan` names one.
Data and runs lie in WORK, and the store too, unless `STYLEGAN_MIX_HOME` says where it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import stats

from stylegan_mix import datasets, output
from stylegan_mix.process import cpu_name
from stylegan_mix.rng import stream

PLAN = Path(__file__).with_suffix(".toml")
DIGITS = ["--dataset", "digits_lt"]


def command(words: list[str], package: str) -> Any:
    """Runs a command of this project and returns its JSON; ends the script if it fails."""
    told = [sys.executable, "-m", package, *words]
    print("$", shlex.join([package, *words]), file=sys.stderr, flush=True)
    found = subprocess.run([*told, "--json"], stdout=subprocess.PIPE, check=False)
    if found.returncode:
        sys.exit(found.returncode)
    return json.loads(found.stdout)


def fold_of(labels: np.ndarray, folds: int) -> np.ndarray:
    """Puts the images of each class into folds of about equal size, [N] int64."""
    fold = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        fold[stream(0, "levers.fold", int(label)).permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def prepared(work: Path, number: int, folds: int) -> list[str]:
    """Makes the data set of a fold; returns the options that name it."""
    name, train = f"digits_fold{number}of{folds}", datasets.load("digits_lt").train
    fold = fold_of(train.labels, folds)
    folder = work / name
    for row, label in enumerate(train.labels):
        part = "test" if fold[row] == number else "train"
        path = folder / part / str(label) / f"{row:03}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(train.images[row, :, :, 0])).save(path)
    command(["dataset", "prepare", name, "--from", str(folder), "--no-flip"], "stylegan_mix")
    return ["--dataset", name]


def banks(data: list[str], plan: dict[str, Any], kimg: float, work: Path) -> dict[str, str]:
    """Trains the generator of a data set, writes and judges its banks; returns their keys."""
    command(["train", *data, "--preset", "tiny8", "--kimg", str(kimg)], "stylegan_mix")
    found = {}
    for name, options in plan["banks"].items():
        words = ["generate", *data, "--n", str(plan["rows"]), "--no-train", *typed(options)]
        found[name] = command(words, "stylegan_mix")["key"]
        picture = work / f"judged-{found[name][:12]}.png"
        command(["bank", "judge", found[name], "--out", str(picture)], "stylegan_mix")
    return found


def typed(options: dict[str, Any]) -> list[str]:
    """Turns options into words of a command line."""
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


def trained(
    data: list[str], arm: dict[str, Any], keys: dict[str, str], plan: dict[str, Any], out: Path
) -> list[dict[str, Any]]:
    """Trains an arm with every seed; returns the records of its runs."""
    words = ["run", *data, "--model", "resnet8", "--epochs", str(plan["epochs"])]
    words += [*typed(with_bank(arm, keys)), "--seeds", str(plan["seeds"])]
    words += ["--threads", "1", "--out", str(out)]
    (table,) = command(words, "trainer")["tables"]
    (row,) = table["rows"]
    runs = [out.glob(f"*-{row['key']}/seed-{seed}/result.json") for seed in range(plan["seeds"])]
    return [json.loads(run.read_text()) for found in runs for run in found]


def with_bank(arm: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    """Names the bank of an arm by its key."""
    return {**arm, "bank": keys[arm["bank"]]} if "bank" in arm else arm


def right(records: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts right answers and images by class, over the runs of one arm and seed, [K] each."""
    confusion = np.sum([one["confusion"] for one in records], axis=0)
    return np.diagonal(confusion), confusion.sum(1)


def figures(records: list[dict[str, Any]]) -> dict[str, float]:
    """Computes accuracies in percent on the images of all folds together, for one seed."""
    hits, images = right(records)
    by_class = 100 * hits / images
    groups = datasets.load("digits_lt").groups.members
    told = {name: by_class[list(members)].mean() for name, members in groups.items()}
    return {
        "balanced": round(float(by_class.mean()), 2),
        "overall": round(float(100 * hits.sum() / images.sum()), 2),
        **{name: round(float(value), 2) for name, value in told.items()},
    }


def paired(ours: list[float], theirs: list[float]) -> dict[str, float | None]:
    """Computes the mean paired difference, and half the width of its 95 % interval."""
    each = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, half = statistics.mean(each), None
    if len(each) > 1:
        spread = statistics.stdev(each) / len(each) ** 0.5
        half = round(float(stats.t.ppf(0.975, len(each) - 1)) * spread, 2)
    return {"mean": round(mean, 2), "half_width": half}


def choose(options: argparse.Namespace) -> None:
    """Trains every arm in every fold, and writes the arms in the order of their accuracy."""
    plan = tomllib.loads(options.plan.read_text())
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in plan["arms"]}
    keys = {}
    for number in range(plan["folds"]):
        data = prepared(options.work, number, plan["folds"])
        keys[number] = banks(data, plan, plan["kimg"], options.work)
        for name, arm in plan["arms"].items():
            out = options.work / "runs"
            runs[name] += trained(data, arm, keys[number], plan, out)
    seeds = range(plan["seeds"])
    found = {
        name: [figures([one for one in records if one["seed"] == seed]) for seed in seeds]
        for name, records in runs.items()
    }
    base = [one["balanced"] for one in found[plan["baseline"]]]
    rows = [
        {
            "arm": name,
            "options": plan["arms"][name],
            "by_seed": each,
            "balanced": round(statistics.mean(one["balanced"] for one in each), 2),
            "over_baseline": paired([one["balanced"] for one in each], base),
        }
        for name, each in found.items()
    ]
    rows.sort(key=lambda row: -float(str(row["balanced"])))
    written = {
        "schema": "digits-levers/1",
        "command": f"python tools/experiments/{Path(__file__).name} choose --work WORK --out FILE",
        "plan": plan,
        "banks": keys,
        "hardware": {"cpu": cpu_name(), "threads": 1},
        "arms": rows,
    }
    output.write_json(options.out, written)
    show(rows, plan["baseline"])


def show(rows: list[dict[str, Any]], baseline: str) -> None:
    """Prints the arms in the order of their accuracy."""
    print(f"{'arm':<28} balanced  over {baseline}   many  medium    few")
    for row in rows:
        over, each = row["over_baseline"], row["by_seed"]
        means = [statistics.mean(one[name] for one in each) for name in ("many", "medium", "few")]
        half = "" if over["half_width"] is None else f" ± {over['half_width']:.1f}"
        told = "  ".join(f"{value:5.1f}" for value in means)
        print(f"{row['arm']:<28} {row['balanced']:8.1f}  {over['mean']:+5.1f}{half:<7}  {told}")


def prove(options: argparse.Namespace) -> None:
    """Trains the baselines and the chosen arm, and scores them on the test part."""
    chosen = json.loads(options.choice.read_text())
    plan, best = chosen["plan"], chosen["arms"][0]["arm"]
    proof = plan["prove"]
    keys = banks(DIGITS, plan, proof["kimg"], options.work)
    tables = []
    for name in dict.fromkeys([*proof["arms"], best]):
        arm = plan["arms"][name]
        told = with_bank(arm, keys)
        tables.append(
            "[[runs]]\n" + "".join(f"{key} = {json.dumps(one)}\n" for key, one in told.items())
        )
    sweep = options.work / "prove.toml"
    base = f'[base]\ndataset = "digits_lt"\nseeds = {proof["seeds"]}\nepochs = {plan["epochs"]}\n'
    output.write_text(sweep, "\n".join([base, *tables]))
    words = ["sweep", str(sweep), "--out", str(options.work / "runs"), "--threads", "1"]
    command([*words, "--results", str(options.results)], "trainer")


def main() -> None:
    """Runs one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(required=True)
    first = steps.add_parser("choose", help="train every arm in every fold")
    first.add_argument("--out", type=Path, required=True, help="write the order of the arms there")
    first.add_argument("--plan", type=Path, default=PLAN, help="another file of arms and banks")
    first.set_defaults(step=choose)
    second = steps.add_parser("prove", help="train the chosen arm and the baselines")
    second.add_argument("--choice", type=Path, required=True, help="JSON that `choose` has written")
    second.add_argument("--results", type=Path, required=True, help="folder of the records")
    second.set_defaults(step=prove)
    for one in (first, second):
        one.add_argument("--work", type=Path, required=True, help="folder of data and runs")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("STYLEGAN_MIX_HOME", str(options.work / "store"))
    options.step(options)


if __name__ == "__main__":
    main()
