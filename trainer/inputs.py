"""The inputs of a run besides its data set: references to a bank and a teacher, by content.

No torch here: a command resolves and shows its inputs before anything heavy is imported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_mix import arrays, datasets
from stylegan_mix.banks.reader import Bank, open_bank
from stylegan_mix.datasets import Dataset
from stylegan_mix.datasets.streamed import as_files
from stylegan_mix.errors import InvalidInput, UsageFailure, fitting
from stylegan_mix.fields import TEXT, check_types
from stylegan_mix.judging.annotations import Annotations, find_annotations, open_annotations
from trainer.reports import records
from trainer.spec import AcceptRef, BankRef, DataSpec, LabelRef, RunSpec, TeacherRef

__all__ = [
    "WEIGHTS",
    "Inputs",
    "Judged",
    "accepted_rows",
    "annotations_of",
    "bank_for",
    "bank_reference",
    "final_weights",
    "load_data",
    "open_inputs",
    "posterior_of",
    "require_fitting",
    "teacher_facts",
    "teacher_reference",
]

WEIGHTS = "trainer-weights"

# A posterior in float16 adds to 1 within rounding.
_ROUNDING = 0.02
_CHECKED_ROWS = 65_536


@dataclass(frozen=True)
class Inputs:
    """The opened and checked inputs of a run.

    `accepted` are the rows of the bank that are used, in rising order; None means all of them.
    `posterior` [rows of the bank, K] is that of a judge, None if labels are by lam alone.
    """

    data: Dataset
    bank: Bank | None
    identity: dict[str, Any]
    accepted: np.ndarray | None = None
    posterior: np.ndarray | None = None


def open_inputs(spec: RunSpec) -> Inputs:
    """Opens and checks data set, bank and teacher; their faults are reported here.

    Raises the errors of `require_fitting`, and `MissingEnvironment` (exit code 4) for absent data.
    """
    data = load_data(spec.data)
    require_fitting(spec, data)
    for part in (data.train, data.test, data.val):
        files = as_files(part and part.images)
        if files is not None:
            files.require_there()
    bank = bank_for(spec.bank, data) if spec.bank else None
    named = spec.identity()
    identity = {
        "split_id": data.split_id,
        "test_id": data.test_id,
        **({} if data.val_id is None else {"val_id": data.val_id}),
        "bank": named["bank"],
        "teacher": named["teacher"],
        **({"accept": named["accept"]} if spec.accept else {}),
        **({"label": named["label"]} if spec.label else {}),
    }
    accepted = accepted_rows(bank, spec.accept) if bank and spec.accept else None
    posterior = posterior_of(bank, spec.label) if bank and spec.label else None
    return Inputs(data, bank, identity, accepted, posterior)


def load_data(data: DataSpec) -> Dataset:
    """Loads the draw of a run; its images may be files. Raises the errors of `datasets.load`."""
    return datasets.load(**asdict(data), streamed=True)


def require_fitting(spec: RunSpec, data: Dataset) -> None:
    """Checks, without reading an image, that batch, bank and teacher fit the data set.

    Raises `UsageFailure` (exit code 2) for a batch that is larger than the training set, and for
    padding of images that are cropped as they are read; `InvalidInput` (3) for a bank or a teacher
    of another split or shape.
    """
    count = len(data.train.labels)
    if spec.pad is not None and as_files(data.train.images) is not None:
        raise UsageFailure(
            f"--pad has no effect: images of {data.name} are cropped at random as they are read",
            remedy="leave --pad out",
        )
    if spec.batch > count:
        raise UsageFailure(
            f"a batch of {spec.batch} is larger than the {count} training images",
            remedy="choose a smaller --batch",
        )
    if spec.bank:
        bank_for(spec.bank, data, verify=False)
    if spec.teacher:
        _check_teacher(spec.teacher, data)


def _check_teacher(reference: TeacherRef, data: Dataset) -> None:
    facts = teacher_facts(Path(reference.folder))
    expected = {
        "sha256": reference.sha256,
        "classes": list(data.classes),
        "channels": data.channels,
        "split_id": data.split_id,
    }
    for name, value in expected.items():
        if facts[name] != value:
            raise InvalidInput(
                f"the teacher in {reference.folder} has {name} {facts[name]!r}, this run {value!r}",
                remedy="take a teacher that was trained on this data set and split",
            )


def bank_reference(folder: Path) -> BankRef:
    """Describes the bank in `folder`; its pixels are checked when the run opens it."""
    bank = open_bank(folder, verify=False)
    return BankRef(
        key=bank.key,
        request_key=bank.request_key,
        content_sha256=bank.content_sha256,
        space=bank.space,
        folder=str(folder.absolute()),
    )


@dataclass(frozen=True)
class Judged:
    """Annotations of a bank: their content hash, their folder; `newer` if there are newer ones."""

    sha256: str
    folder: str
    newer: bool


def annotations_of(bank: BankRef, before: str | None, without: str) -> Judged:
    """Finds the annotations of a bank in a folder called `before`, else the newest.

    Raises `InvalidInput` (exit code 3), with the command that makes some, if there are none;
    `without` says what is then not known.
    """
    opened = open_bank(Path(bank.folder), verify=False)
    found = find_annotations(opened)
    if not found:
        raise InvalidInput(
            f"bank {bank.key[:12]} has not been judged: {without}",
            remedy=f"stylegan-mix bank judge {bank.key[:12]}",
        )
    taken = next((one for one in found if one.name == before), found[0])
    made = open_annotations(taken, opened)
    return Judged(made.content_sha256, str(taken.absolute()), taken != found[0])


def _annotations_of(bank: Bank, reference: AcceptRef | LabelRef) -> Annotations:
    """Opens the annotations that a run began with."""
    made = open_annotations(Path(reference.folder), bank)
    if made.content_sha256 != reference.content_sha256:
        raise InvalidInput(
            f"{reference.folder} holds other annotations than this run began with",
            remedy="start a new run, or put the annotations back",
        )
    return made


def posterior_of(bank: Bank, reference: LabelRef) -> np.ndarray:
    """Reads the judge's posterior of each row of a bank, [rows, K] float16.

    Raises `InvalidInput` (exit code 3) for annotations that are gone, damaged or others by now, and
    for a posterior that is none.
    """
    posterior = _annotations_of(bank, reference).posterior
    for start in range(0, len(posterior), _CHECKED_ROWS):
        rows = posterior[start : start + _CHECKED_ROWS].astype(np.float32)
        odd = (rows < 0).any(1) | (abs(rows.sum(1) - 1) > _ROUNDING)
        if odd.any():
            row = start + int(odd.argmax())
            raise InvalidInput(
                f"{reference.folder}: the posterior of row {row:,} must be shares that add to 1, "
                f"they add to {rows[row - start].sum():g}",
                remedy=f"move the folder away and make it again: stylegan-mix bank judge "
                f"{bank.key[:12]}",
            )
    return posterior


def accepted_rows(bank: Bank, reference: AcceptRef) -> np.ndarray:
    """Finds the rows of a bank that its judge keeps, in rising order: int64.

    Raises `InvalidInput` (exit code 3) for annotations that are gone, damaged or others by now, and
    for a judge that keeps no row.
    """
    rows = np.flatnonzero(_annotations_of(bank, reference).clean(bank))
    if not len(rows):
        raise InvalidInput(
            f"the judge keeps none of the {len(bank):,} rows of bank {bank.key[:12]}",
            remedy="train a better generator, or use all rows: --accept all",
        )
    return rows


def bank_for(reference: BankRef, data: Dataset, *, verify: bool = True) -> Bank:
    """Opens and checks the bank of a run: its bytes, its split, its classes and image shape.

    Without `verify` its bytes are left unread. Raises `InvalidInput` (exit code 3); a bank of
    another split would leak held-out images.
    """
    bank = open_bank(Path(reference.folder), verify=verify)
    if bank.content_sha256 != reference.content_sha256:
        raise InvalidInput(
            f"bank {reference.folder} holds other rows than this run began with",
            remedy="start a new run, or put the bank back",
        )
    bank.require_split(data.split_id)
    if bank.classes != data.classes:
        raise InvalidInput(f"bank {bank.key[:12]} names classes {bank.classes}, not {data.classes}")
    found, expected = bank.images.shape[1:], data.train.images.shape[1:]
    if found != expected:
        raise InvalidInput(f"bank {bank.key[:12]} holds images {found}, the data set {expected}")
    return bank


def teacher_reference(run: Path) -> TeacherRef:
    """Refers to a finished run as a teacher. Raises `InvalidInput` (exit code 3) if it is none."""
    return TeacherRef(sha256=str(teacher_facts(run)["sha256"]), folder=str(run.absolute()))


def teacher_facts(run: Path) -> dict[str, Any]:
    """Reads the facts of the final network of a finished run."""
    folder = final_weights(run)
    with fitting(f"{folder} holds no network of a run"):
        facts: dict[str, Any] = arrays.read_manifest(folder, kind=WEIGHTS)["facts"]["facts"]
        check_types(facts, {"sha256": TEXT})
    return facts


def final_weights(run: Path) -> Path:
    """Finds the folder of the final network of a finished run."""
    path = run / records.RESULT_FILE
    if not path.is_file():
        raise InvalidInput(
            f"{run} is not a finished run: it has no {path.name}",
            remedy="name a run folder, such as runs/digits_lt-ce-none-1a2b3c4d/seed-0",
        )
    stages = records.read(path).budget.get("stages")
    if not stages:
        raise InvalidInput(f"{path} names no stages; it is a record without a network")
    with fitting(f"{path} does not name its stages"):
        name = stages[-1]["stage"]
        if Path(name).name != name:
            raise ValueError(f"'{name}' is not the name of a stage")
    return run / "weights" / name
