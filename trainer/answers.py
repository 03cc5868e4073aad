"""The answers of a network as a table for people and programs: CSV and JSON.

`N` images, `K` classes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from trainer.predict import Answers
from trainer.reports import figures
from trainer.reports.records import Result

__all__ = ["as_csv", "as_plain", "confusion_csv", "in_brief"]


def as_csv(found: Answers) -> str:
    """Renders a line an image: row, file, classes by index and name, probability of each class.

    The column `file` is there for files only. Label and its name are empty where no label is known.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    names = found.classes
    files = ["file"] if found.files is not None else []
    known = ["label", "prediction", "label_name", "prediction_name"]
    writer.writerow(["index", *files, *known, *(f"p:{name}" for name in names)])
    for row, (label, prediction, shares) in enumerate(_rows(found)):
        told = [row] if found.files is None else [row, found.files[row]]
        true = ("", "") if label is None else (label, names[label])
        answer = (true[0], prediction, true[1], names[prediction])
        writer.writerow([*told, *answer, *(f"{share:.6f}" for share in shares)])
    return table.getvalue()


def as_plain(found: Answers) -> dict[str, Any]:
    """Returns the answers as JSON values, schema `trainer-predict/1`.

    `accuracy` is in percent of the labelled images; null if there are none. `probabilities` of an
    image are in the order of `classes`.
    """
    names = found.classes
    images = []
    for row, (label, prediction, shares) in enumerate(_rows(found)):
        told = {} if found.files is None else {"file": found.files[row]}
        true = None if label is None else names[label]
        answer = {"label": true, "prediction": names[prediction]}
        probabilities = [round(share, 6) for share in shares]
        images.append({"index": row, **told, **answer, "probabilities": probabilities})
    scored = found.rescored()
    return {
        "schema": "trainer-predict/1",
        "run": None if found.result.path is None else str(found.result.path.parent),
        "classes": names,
        "labelled": int(found.labelled.sum()),
        "accuracy": None if scored is None else scored.record["accuracy"],
        "images": images,
    }


def in_brief(found: Answers) -> str:
    """Counts the images, and gives the accuracies of those whose class is known."""
    count, scored = len(found.labels), found.rescored()
    if scored is None:
        return f"{count:,} images, no label is known"
    labelled = int(found.labelled.sum())
    of = "" if labelled == count else f" of {labelled:,} labelled images"
    told = [
        f"{figures.heading(name, [scored])} {value:.1f} %"
        for name in figures.shown([scored])
        if (value := scored.accuracy(name)) is not None
    ]
    return f"{count:,} images; right{of}: {', '.join(told)}"


def confusion_csv(result: Result) -> str:
    """Renders a confusion matrix: a line for each true class, a column for each predicted one.

    A cell counts the images. The result has a matrix.
    """
    names = list(result.dataset["classes"])
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["true", *names])
    writer.writerows(
        [name, *row] for name, row in zip(names, result.record["confusion"], strict=True)
    )
    return table.getvalue()


def _rows(found: Answers) -> Iterator[tuple[int | None, int, list[float]]]:
    """Yields (label or None, predicted class, probability of each class [K]) of each image."""
    rows = zip(found.labels, found.labelled, found.predicted, found.probabilities, strict=True)
    for label, known, prediction, shares in rows:
        yield int(label) if known else None, int(prediction), shares.tolist()
