"""Trains and judges one generator for each row of a table, and prints the table.

    python tools/experiments/generator_rows.py tools/experiments/cifar10_lt_generators.toml \\
        --results tools/results/cifar10_lt_generators
    python tools/experiments/generator_rows.py ... --only twins --seed 1
    python tools/experiments/generator_rows.py ... --table
    python tools/experiments/generator_rows.py ... --compare float32 bfloat16

A row is `stylegan-mix train` with its options, then `stylegan-mix metrics` on the generator. Each
finished row and seed leaves one small JSON with both commands. A finished one is not repeated, and
an interrupted one goes on. `--table` and `--compare` run nothing; they print the finished rows as
Markdown. `--compare` also tells if the second row is as good as the first. They are equivalent if
the 90 % interval of the paired difference over seeds lies within 5 % of the first row's mean, or
within one point for shares (coverage, accuracies).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from stylegan_mix import store
from stylegan_mix.generators import store as generator_store
from stylegan_mix.process import cpu_name
from stylegan_mix.reading import (
    LARGEST_TOML,
    parse_json,
    parse_toml,
    read_json,
    read_lines,
    read_text,
)

# Figures of the table: figure, reference, scopes, decimals.
COLUMNS = (
    ("frechet", "test", ("all", "few"), 2),
    ("kernel", "test", ("all", "few"), 3),
    ("coverage", "test", ("many", "medium", "few"), 2),
    ("cas", None, ("all", "few"), 1),
    ("label_accuracy", None, ("all", "few"), 1),
    ("diversity", None, ("few",), 2),
)
# A claim of "no worse" is an equivalence test over at least so many seeds.
LEAST_SEEDS, MARGIN, POINT = 5, 0.05, 0.01
SHARES = ("coverage", "cas", "label_accuracy")


def options_of(table: dict[str, Any]) -> list[str]:
    """Turns a table of options into words of a command line."""
    words: list[str] = []
    for name, value in table.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


def run(words: list[str], threads: int) -> dict[str, Any]:
    """Runs a command of this project and returns its JSON; ends the script if it fails."""
    command = [sys.executable, "-m", "stylegan_mix", *words, "--threads", str(threads), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = parse_json(done.stdout)
    return found


def finish(row: dict[str, Any], plan: dict[str, Any], seed: int, threads: int) -> dict[str, Any]:
    """Trains and judges one row; returns its record."""
    own = {name: value for name, value in row.items() if name not in ("name", "about")}
    train = ["train", *options_of({**plan["base"], **own, "seed": seed})]
    published = generator_store.load(run(train, threads)["generator"])
    judge = ["metrics", published.hash, *options_of(plan["metrics"])]
    report = run(judge, threads)
    folder = store.home() / "training" / published.card["training"]
    log = [parse_json(line) for line in read_lines(folder / "metrics.jsonl") if line]
    events = folder / "events.jsonl"
    return {
        "row": row["name"],
        "about": row["about"],
        "seed": seed,
        "commands": [f"stylegan-mix {' '.join(words)}" for words in (train, judge)],
        "generator": published.hash,
        "probe": report["request"]["probe"],
        "split_id": report["split_id"],
        "test_id": report["test_id"],
        "operators": published.card["operators"],
        "attempts": published.card.get("attempts", 1),
        "events": [line.decode() for line in read_lines(events) if line] if events.exists() else [],
        "training_seconds": round(sum(line["seconds"] for line in log), 1),
        "diversity": published.card["diversity"],
        "last_log": log[-1],
        "scopes": report["scopes"],
        "figures": [_short(figure) for figure in report["figures"]],
        "hardware": cpu_name(),
        "threads": threads,
        "torch": torch.__version__,
    }


def _short(figure: dict[str, Any]) -> dict[str, Any]:
    def rounded(name: str) -> list[float | None]:
        values = (at.get(name) for at in figure["at"])
        return [None if value is None else round(value, 5) for value in values]

    kept = {"figure": figure["figure"], "against": figure.get("against")}
    return {**kept, "value": rounded("value"), "floor": rounded("floor")}


def table(records: list[dict[str, Any]], rows: list[dict[str, Any]]) -> str:
    """Renders the finished rows as Markdown: means over seeds, with the spread of several."""
    heads = [f"{figure} {scope}" for figure, _, scopes, _ in COLUMNS for scope in scopes]
    lines = [f"| row | seeds | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    floors: list[str] = []
    for row in rows:
        found = [record for record in records if record["row"] == row["name"]]
        if not found:
            continue
        cells, floors = [], []
        for figure, against, scopes, decimals in COLUMNS:
            scale = _scale(decimals)
            for scope in scopes:
                values = [_value(r, figure, against, scope, "value") for r in found]
                cells.append(_cell([v * scale for v in values if v is not None], decimals))
                floor = _value(found[0], figure, against, scope, "floor")
                floors.append("" if floor is None else f"{floor * scale:.{decimals}f}")
        lines.append(f"| {row['name']} | {len(found)} | {' | '.join(cells)} |")
    if floors:
        lines.append(f"| *real images* | | {' | '.join(floors)} |")
    return "\n".join(lines)


def notes(records: list[dict[str, Any]], plan: dict[str, Any]) -> str:
    """Describes the rows, and the budget and hardware behind them, as Markdown."""
    done = {record["row"] for record in records}
    lines = [f"- {row['name']}: {row['about']}." for row in plan["rows"] if row["name"] in done]
    missing = [row["name"] for row in plan["rows"] if row["name"] not in done]
    base = plan["base"]
    precision = f" in {base['precision']}" if "precision" in base else ""
    lines.append(
        f"- Budget: preset {base['preset']}{precision}, {base['kimg']} thousand images a row; "
        f"{plan['metrics']['n']:,} samples of uniform labels against the test part; features of "
        f"the probe {_only(record['probe'][:12] for record in records)}."
    )
    minutes = [record["training_seconds"] / 60 for record in records]
    lines.append(
        f"- Hardware: {_only(record['hardware'] for record in records)}, "
        f"{_only(str(record['threads']) for record in records)} thread, torch "
        f"{_only(record['torch'] for record in records)}, operators "
        f"{_only(record['operators'] for record in records)}; {_short_time(min(minutes))} to "
        f"{_short_time(max(minutes))} minutes of training a row, on a busy machine."
    )
    if missing:
        lines.append(f"- Not run yet: {', '.join(missing)}.")
    return "\n".join(lines)


def _scale(decimals: int) -> int:
    """Returns 100 for accuracies, which have one decimal and are shown in per cent; else 1."""
    return 100 if decimals == 1 else 1


def _short_time(minutes: float) -> str:
    return f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}"


def _only(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def _value(
    record: dict[str, Any], figure: str, against: str | None, scope: str, kind: str
) -> float | None:
    at = record["scopes"].index(scope)
    for found in record["figures"]:
        if found["figure"] == figure and found["against"] == against:
            value: float | None = found[kind][at]
            return value
    return None


def _cell(values: list[float], decimals: int) -> str:
    if not values:
        return "n/a"
    mean = f"{statistics.mean(values):.{decimals}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def comparison(records: list[dict[str, Any]], first: str, second: str) -> str:
    """Computes paired differences of two rows over common seeds, by figure, as Markdown."""
    by_seed = {(record["row"], record["seed"]): record for record in records}
    seeds = sorted({seed for row, seed in by_seed if (first, seed) in by_seed and row == second})
    if len(seeds) < LEAST_SEEDS:
        raise SystemExit(
            f"{first} and {second} share {len(seeds)} seeds; a claim of no difference takes "
            f"{LEAST_SEEDS}"
        )
    lines = [f"| {len(seeds)} seeds | {first} | {second} | difference, 90 % | equivalent |"]
    lines.append("|---" * 5 + "|")
    for figure, against, scopes, decimals in COLUMNS:
        for scope in scopes:
            pairs = [
                [_value(by_seed[row, seed], figure, against, scope, "value") for seed in seeds]
                for row in (first, second)
            ]
            scale = _scale(decimals)
            one, two = ([v * scale for v in values if v is not None] for values in pairs)
            if len(one) != len(seeds) or len(two) != len(seeds):
                continue
            gaps = [b - a for a, b in zip(one, two, strict=True)]
            mean, error = statistics.mean(gaps), statistics.stdev(gaps) / len(gaps) ** 0.5
            reach = float(stats.t.ppf(0.95, len(gaps) - 1)) * error
            most = POINT * scale if figure in SHARES else MARGIN * abs(statistics.mean(one))
            verdict = "yes" if abs(mean) + reach <= most else "not shown"
            lines.append(
                f"| {figure} {scope} | {_cell(one, decimals + 1)} | {_cell(two, decimals + 1)} | "
                f"{mean:+.{decimals + 1}f} ± {reach:.{decimals + 1}f} | {verdict} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Runs the unfinished rows, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path, help="TOML file with base, metrics and rows")
    parser.add_argument("--results", type=Path, required=True, help="folder of the records")
    parser.add_argument("--only", action="append", help="a row; again for several")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the finished rows")
    parser.add_argument("--compare", nargs=2, metavar="ROW", help="print paired differences")
    options = parser.parse_args()
    plan = parse_toml(read_text(options.plan, limit=LARGEST_TOML))
    names = [row["name"] for row in plan["rows"]]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.table or options.compare:
        records = [read_json(path) for path in sorted(options.results.glob("*.json"))]
        if options.compare:
            shown = comparison(records, *options.compare)
        else:
            shown = table(records, plan["rows"])
        print(f"{shown}\n\n{notes(records, plan)}")
        return
    for row in plan["rows"]:
        out = options.results / f"{row['name']}-seed{options.seed}.json"
        if out.exists() or (options.only and row["name"] not in options.only):
            continue
        record = finish(row, plan, options.seed, options.threads)
        store.write_json(out, record)
        print(f"{row['name']}, seed {options.seed}: {out}")


if __name__ == "__main__":
    main()
