"""Finished runs as records: one JSON each, written, read and checked strictly; no torch.

Reports read records, and committed results are records. A record holds the accuracies of the last
epoch, by class and by shot group, and the whole description of the run: data, split, budget, bank,
teacher, command, configuration and machine. `K` classes; accuracies are in percent.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_mix import store
from stylegan_mix.datasets.groups import GroupRule, group_rule
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.progress import say
from stylegan_mix.reading import parse_json, read_lines
from stylegan_mix.showing import shown_command
from trainer.differences import differing
from trainer.reports.schema import ROUNDING, check, class_mean, group_means
from trainer.spec import RunSpec

if TYPE_CHECKING:
    from stylegan_mix.datasets import Dataset

__all__ = [
    "LARGEST_FILE",
    "LOCK_FILE",
    "RESULT_FILE",
    "Result",
    "collect",
    "data_ids",
    "finished",
    "is_of",
    "named",
    "only_one",
    "read",
    "read_events",
    "regrouped",
    "require_same_data",
    "small",
    "sound",
    "surveyed",
    "write",
]

LOCK_FILE = "lock"  # of a run folder, held by the process that works on it
RESULT_FILE = "result.json"
# Far above the record of 65,536 classes with long names, the most that a data set can have.
LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class Result:
    """A checked record and its file."""

    record: dict[str, Any]
    path: Path | None = None

    @cached_property
    def spec(self) -> RunSpec:
        return RunSpec.from_plain(self.record["config"])

    @property
    def key(self) -> str:
        """The name of the experiment: results of one key differ by seed alone."""
        return self.spec.key

    @property
    def command(self) -> str:
        """The command of the run, to show; not one that a foreign file could have chosen."""
        return shown_command(self.record["command"], "trainer", "run")

    @property
    def arm(self) -> str:
        return str(self.record["arm"])

    @property
    def recipe(self) -> str:
        return str(self.record["recipe"])

    @property
    def model(self) -> str:
        return str(self.record["model"])

    @property
    def seed(self) -> int:
        return int(self.record["seed"])

    @property
    def dataset(self) -> dict[str, Any]:
        return dict(self.record["dataset"])

    @property
    def budget(self) -> dict[str, Any]:
        return dict(self.record["budget"])

    def accuracy(self, figure: str) -> float | None:
        """Returns a figure of the last epoch in percent, or None; `figures.FIGURES` names them.

        Records of older versions have no "balanced"; it is computed from their classes.
        """
        if figure == "balanced":
            return class_mean(self.per_class)
        value = self.record["accuracy"][figure]
        return None if value is None else float(value)

    @property
    def per_class(self) -> list[float | None]:
        return list(self.record["accuracy"]["per_class"])

    @property
    def test_counts(self) -> list[int] | None:
        """The test images of each class [K]; None in a small record of an older version."""
        if "test_counts" in self.dataset:
            return list(self.dataset["test_counts"])
        confusion = self.record["confusion"]
        return None if confusion is None else [sum(row) for row in confusion]

    @property
    def uneven(self) -> bool:
        """True if its classes have different numbers of test images.

        Without these numbers, it is true if "overall" and "balanced" differ.
        """
        counts = self.test_counts
        if counts is not None:
            return len(set(counts)) > 1
        overall, balanced = self.accuracy("overall"), self.accuracy("balanced")
        return overall is None or balanced is None or abs(overall - balanced) > ROUNDING

    def regrouped(self, rule: GroupRule) -> Result:
        """Returns this result with its classes in other shot groups."""
        found = rule.groups(self.record["dataset"]["counts"])
        members = {name: list(indices) for name, indices in found.members.items()}
        dataset = {**self.record["dataset"], "groups": {"rule": found.rule, **members}}
        accuracy = {**self.record["accuracy"], **group_means(members, self.per_class)}
        return Result({**self.record, "dataset": dataset, "accuracy": accuracy}, self.path)


def write(path: Path, record: dict[str, Any]) -> Result:
    """Checks a record and writes it atomically."""
    checked = check(record, str(path))
    store.write_json(path, checked)
    return Result(checked, path)


def read(path: Path) -> Result:
    """Reads and checks one record; `InvalidInput` (exit code 3) names the fault and its place."""
    with _told_what_next(path):
        return Result(check(store.read_json(path, limit=LARGEST_FILE), str(path)), path)


@contextmanager
def _told_what_next(path: Path) -> Iterator[None]:
    """Adds to an error about a damaged record the way to go on without it."""
    try:
        yield
    except InvalidInput as error:
        aside = path.with_suffix(".damaged")
        error.remedy = error.remedy or (
            f"{shlex.join(['mv', str(path), str(aside)])} and the same command again; "
            "`trainer run` or `trainer sweep` as before makes the record again"
        )
        raise


def finished(folder: Path, spec: RunSpec, data: Dataset) -> Result | None:
    """Finds the result of a run on a data set in its folder; None if the run is not finished.

    Raises `UsageFailure` (exit code 2) for the result of another run, `InvalidInput` (3) for that
    of the same settings on other images.
    """
    path = folder / RESULT_FILE
    if not path.exists():
        return None
    found = read(path)
    wanted = {"seed": spec.seed, **spec.identity()}
    lines = differing(
        {"seed": found.seed, **found.spec.identity()}, wanted, names=("there", "here")
    )
    if lines:
        raise UsageFailure(
            f"{folder} holds a run with other settings:\n  " + "\n  ".join(lines),
            remedy="give this run a --name or --out of its own, or ask for the same settings",
        )
    require_same_data(
        found,
        data,
        remedy="give this run a --name or --out of its own (the finished one stays as it is), or "
        "prepare the images of the finished run again",
    )
    return found


def require_same_data(result: Result, data: Dataset, *, remedy: str) -> None:
    """Raises `InvalidInput` (exit code 3) unless a result is of the images of `data`.

    A data set may have been prepared again under its name, from other images.
    """
    told = result.dataset
    parts = {"split_id": "training split", "test_id": "test part", "val_id": "validation part"}
    changed = [
        f"{part} {told[name][:12]} in the run, {str(getattr(data, name))[:12]} now"
        for name, part in parts.items()
        if name in told and told[name] != getattr(data, name)
    ]
    if changed:
        raise InvalidInput(
            f"{result.path} is of other images than {data.name} has now:\n  "
            + "\n  ".join(changed),
            remedy=remedy,
        )


def collect(paths: Iterable[Path]) -> list[Result]:
    """Finds the finished runs in files and folders: run folders, folders of those, records.

    Other JSON files are ignored. The same run found twice counts once; a run on other images is
    another run. Raises `InvalidInput` for a path that is not there, and for a damaged
    record, and for two records of one run with different numbers.
    """
    found, damaged = _survey(paths)
    if damaged:
        raise damaged[0]
    return found


def sound(paths: Iterable[Path]) -> list[Result]:
    """Finds the finished runs as `collect` does; damaged records are left out, and told."""
    found, damaged = _survey(paths)
    for error in damaged:
        say(f"left out: {error}")
    return found


@contextmanager
def surveyed(paths: Iterable[Path]) -> Iterator[list[Result]]:
    """Gives the sound records to a block of code; then `InvalidInput` if there are damaged ones.

    So a damaged record stops no table, and is not passed over either.
    """
    found, damaged = _survey(paths)
    if damaged and not found:
        raise damaged[0]
    for error in damaged:
        say(f"left out: {error}")
    yield found
    if damaged:
        raise InvalidInput(
            f"{len(damaged)} damaged record(s) left out; the first: {damaged[0]}",
            remedy=damaged[0].remedy,
        )


def _survey(paths: Iterable[Path]) -> tuple[list[Result], list[InvalidInput]]:
    """Finds the sound records, and the errors of the damaged ones in folders."""
    found: dict[tuple[str, tuple[str, ...], int], Result] = {}
    damaged: list[InvalidInput] = []
    for path in paths:
        if not path.exists():
            raise InvalidInput(
                f"there is no file or folder {path}",
                remedy="trainer run makes a run below runs/; or name where yours are",
            )
        for file in _candidates(path):
            try:
                result = _read_candidate(file, named=not path.is_dir())
            except InvalidInput as error:
                damaged.append(error)
                continue
            if result is not None:
                _take(result, found)
    return [found[which] for which in sorted(found)], damaged


def _take(result: Result, found: dict[tuple[str, tuple[str, ...], int], Result]) -> None:
    which = (result.key, data_ids(result), result.seed)
    before = found.setdefault(which, result)
    if not _same_numbers(before, result):
        raise InvalidInput(
            f"{before.path} and {result.path} are the same run with different accuracies",
            remedy="give the files to read one by one, and leave one of these out",
        )


def data_ids(result: Result) -> tuple[str, ...]:
    """Returns the ids of training split and test part, and of a validation part that was used.

    Records of earlier versions do not name the validation part.
    """
    told = result.dataset
    held = (told["val_id"],) if told.get("val_id") else ()
    return told["split_id"], told["test_id"], *held


def is_of(result: Result, ids: Sequence[str | None]) -> bool:
    """Tells if a result is of the images with these ids: training split, test, validation part."""
    told = data_ids(result)
    return told == tuple(ids[: len(told)])


def regrouped(results: Iterable[Result], asked: str | None) -> list[Result]:
    """Puts the classes of all results into the shot groups of a rule, such as "100,20".

    Without a rule they stay as they are. Raises `UsageFailure` (exit code 2) for a rule that cannot
    be read or does not fit the number of classes.
    """
    if asked is None:
        return list(results)
    rule = group_rule(asked)
    return [result.regrouped(rule) for result in results]


def named(results: Iterable[Result], reference: str) -> list[Result]:
    """Selects results by a name: an arm, and after slashes a recipe, model or key.

    An arm alone means its plain recipe, `ce`, if there is one.
    """
    words = set(reference.split("/"))
    found = [one for one in results if words <= {one.arm, one.recipe, one.model, one.key}]
    plain = [one for one in found if one.recipe == "ce"]
    return plain if plain and len(words) == 1 else found


def only_one(reference: str, found: Sequence[Result]) -> list[Result]:
    """Returns the results, if all are of one experiment; else `UsageFailure` lists them.

    Results of one key on other images are of another experiment.
    """
    kinds = {(one.key, *data_ids(one)): one for one in found}
    if len(kinds) > 1:
        listed = "\n  ".join(
            f"{one.dataset['name']}: {one.arm}/{one.recipe}/{one.model}/{key}, "
            f"{one.budget['epochs']} epochs, split {split[:12]}, test part {test[:12]}"
            f"{''.join(f', validation part {one_id[:12]}' for one_id in held)}, {one.path}"
            for (key, split, test, *held), one in sorted(kinds.items())
        )
        raise UsageFailure(
            f"'{reference}' means {len(kinds)} experiments:\n  {listed}",
            remedy="add recipe, model or key, such as hybrid/ce/1a2b3c4d, or name its folder",
        )
    return list(found)


def _same_numbers(one: Result, other: Result) -> bool:
    """Compares two results, except for the rounding of a committed copy."""
    pairs = [(one.accuracy("overall"), other.accuracy("overall"))]
    pairs += zip(one.per_class, other.per_class, strict=True)
    return all(
        a is b if a is None or b is None else math.isclose(a, b, abs_tol=1e-3) for a, b in pairs
    )


def _candidates(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    runs = {file.parent for file in path.rglob("run.json")}
    open_runs = [run for run in runs if not (run / RESULT_FILE).exists()]
    if open_runs:
        say(f"{len(open_runs)} unfinished run(s) in {path} left out, such as {min(open_runs)}")
    files = [file for file in path.rglob("*.json") if not _hidden(file.relative_to(path))]
    return sorted(
        file
        for file in files
        if file.name == RESULT_FILE or not runs.intersection([file.parent, *file.parents])
    )


def _hidden(file: Path) -> bool:
    """Tells if a file lies in a hidden folder, as the choices of commands do."""
    return any(part.startswith(".") for part in file.parts)


def _read_candidate(file: Path, *, named: bool) -> Result | None:
    with _told_what_next(file):
        data = store.read_json(file, limit=LARGEST_FILE)
        ours = isinstance(data, dict) and str(data.get("schema", "")).startswith("trainer-result/")
        if not ours and not named:
            return None
        return Result(check(data, str(file)), file)


def small(record: Mapping[str, Any], *, points: int = 60) -> dict[str, Any]:
    """Shortens a record for a commit: at most `points` of history, no large confusion matrix.

    The first and the last point of the history stay. The folders of bank and teacher, which only
    mean something on one machine, are emptied.
    """
    kept = dict(record)
    history = record["history"]
    if len(history) > points:
        last = len(history) - 1
        kept["history"] = [history[round(i * last / (points - 1))] for i in range(points)]
    if record["confusion"] is not None and len(record["confusion"]) > 20:
        kept["confusion"] = None
    kept["config"] = _without_folders(record["config"])
    if record["teacher"]:
        kept["teacher"] = {**record["teacher"], "run": None}
    for name in ("accuracy", "test_oracle", "history", "diagnostics"):
        kept[name] = _rounded(kept[name], 6)
    return kept


def _without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(config)
    for name in ("bank", "teacher"):
        if plain.get(name):
            plain[name] = {**plain[name], "folder": ""}
    return plain


def _rounded(value: Any, digits: int) -> Any:
    """Rounds numbers to so many significant digits, at any depth."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {name: _rounded(item, digits) for name, item in value.items()}
    return [_rounded(item, digits) for item in value] if isinstance(value, list) else value


def read_events(path: Path) -> list[dict[str, Any]]:
    """Reads the events of a JSONL file; a torn last line is dropped, any other is refused."""
    try:
        lines = read_lines(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    events: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = parse_json(line)
            if not isinstance(event, dict):
                raise ValueError("not a table")
        except ValueError as error:
            if number == len(lines):  # without an end: its writer was killed
                break
            raise InvalidInput(f"{path}, line {number}: {error}") from error
        events.append(event)
    return events
