"""The folder of a run: its status, inputs and outputs (trainer/README.md, run folder).

`run.json` status and settings, `config.resolved.json`, `env.json`, `inputs.json`,
`metrics.jsonl`, `summary.csv`, `checkpoints/` while it runs, `weights/<stage>/`, `result.json`.
A folder is never taken over by a run with other settings.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stylegan_mix import checkpoint, store
from stylegan_mix.errors import InvalidInput, UsageFailure, fitting
from stylegan_mix.fields import LIST, NUMBER, OBJECT, TEXT, WHOLE, check_each, check_types
from stylegan_mix.process import cpu_name
from stylegan_mix.reading import append_text, parse_json
from trainer import models
from trainer.differences import differing
from trainer.inputs import WEIGHTS, final_weights
from trainer.models import Head
from trainer.models.classifier import Classifier
from trainer.models.layers import operators_on
from trainer.reports import records
from trainer.spec import RunSpec

__all__ = [
    "CHECKPOINT",
    "Finished",
    "RunFolder",
    "environment_of",
    "load_network",
    "now",
    "packed",
    "save_network",
    "unpacked",
]

CHECKPOINT = "trainer-checkpoint"

_COLUMNS = (
    *("stage", "epoch", "step", "lr", "loss", "loss_real", "loss_bank"),
    *("accuracy", "balanced", "seconds"),
)


# Facts of a network that others rely on.
_FACTS = {
    "model": TEXT,
    "classes": LIST,
    "channels": WHOLE,
    "resolution": WHOLE,
    "mean": LIST,
    "std": LIST,
    "split_id": TEXT,
    "test_id": TEXT,
    "sha256": TEXT,
    "history": LIST,
}
_EACH = {"classes": TEXT, "mean": NUMBER, "std": NUMBER, "history": OBJECT}
_ASIDE = "move {} away; the same command goes on without it"


def now() -> str:
    """Formats the current time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RunFolder:
    """The files of one run, each written whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def begin(self, spec: RunSpec, sources: Mapping[str, str], command: str) -> None:
        """Marks the run as worked on by this process; `UsageFailure` in the folder of another."""
        self._require_same(spec)
        config = {"values": spec.plain(), "sources": dict(sources)}
        store.write_json(self.path / "config.resolved.json", config)
        self._note(spec, "running", command=command, begun_utc=now(), ended_utc=None)

    def end(self, spec: RunSpec, status: str, exit_code: int) -> None:
        """Records the end of the work: "done", "stopped", "diverged" or "failed"."""
        self._note(spec, status, ended_utc=now(), exit_code=exit_code)

    def _note(self, spec: RunSpec, status: str, **facts: Any) -> None:
        before = self._stored() or {}
        who = {"process": os.getpid(), "host": socket.gethostname()}
        head = {"schema": "trainer-run/1", "status": status, **who}
        kept = {name: before.get(name) for name in ("command", "begun_utc")}
        note = {**head, **kept, **facts, "spec": spec.plain()}
        store.write_json(self.path / "run.json", note)

    def _stored(self) -> dict[str, Any] | None:
        path = self.path / "run.json"
        if not path.exists():
            return None
        stored: dict[str, Any] = store.read_json(path, limit=records.LARGEST_FILE)
        with fitting(f"{path} does not describe a run", remedy=_ASIDE.format(path)):
            check_types(stored, {"spec": OBJECT})
        return stored

    def _require_same(self, spec: RunSpec) -> None:
        stored = self._stored()
        if stored is None:
            return
        path = self.path / "run.json"
        with fitting(f"{path} does not describe a run", remedy=_ASIDE.format(path)):
            before = RunSpec.from_plain(stored["spec"])
        different = differing(
            {"seed": before.seed, **before.identity()},
            {"seed": spec.seed, **spec.identity()},
            names=("there", "now"),
        )
        if different:
            raise UsageFailure(
                f"{self.path} holds a run with other settings:\n  " + "\n  ".join(different),
                remedy="choose another folder with --out",
            )

    def require_inputs(self, inputs: dict[str, Any]) -> None:
        """Stores the inputs of the run; `InvalidInput` if they were different before."""
        path = self.path / "inputs.json"
        if path.exists():
            before = store.read_json(path)
            with fitting(f"{path} does not list inputs", remedy=_ASIDE.format(path)):
                check_types(before, {})
            before.setdefault("val_id", inputs.get("val_id"))  # earlier versions did not keep it
            changed = [name for name in inputs if before.get(name) != inputs[name]]
            if changed:
                raise InvalidInput(
                    f"{', '.join(changed)} changed since this run began (see {path})",
                    remedy="put the old inputs back, or start a new run with --out",
                )
        store.write_json(path, inputs)

    def write_history(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Rewrites `metrics.jsonl` and `summary.csv` from the events so far."""
        events = list(history)
        lines = "".join(json.dumps(event, allow_nan=False) + "\n" for event in events)
        store.write_bytes(self.path / "metrics.jsonl", lines.encode())
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(events)
        store.write_bytes(self.path / "summary.csv", table.getvalue().encode())

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Appends one event to `metrics.jsonl`; a torn last line is put right on resuming."""
        path = self.path / "metrics.jsonl"
        with store.disk_errors(path):
            append_text(path, json.dumps(event, allow_nan=False) + "\n")

    def write_result(self, record: dict[str, Any]) -> None:
        """Checks and writes the record: from now on the run is finished."""
        records.write(self.path / records.RESULT_FILE, record)

    def clear_checkpoints(self) -> None:
        """Removes the files that only an unfinished run needs."""
        checkpoint.Checkpoints(self.checkpoints, CHECKPOINT).clear()


def environment_of(device: torch.device, precision: str) -> dict[str, Any]:
    """Describes the environment that results depend on, beside the settings.

    `MissingEnvironment` (exit code 4) or `UsageFailure` (2) for a value of KERNELS that cannot be
    followed.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "device": name,
        "numerics": f"{device.type} {precision}",
        "operators": operators_on(device),
    }


def packed(events: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Packs the events of a stage as JSON in bytes, [n] uint8, which may be of any length."""
    text = json.dumps(list(events), allow_nan=False).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def unpacked(stored: torch.Tensor) -> list[dict[str, Any]]:
    """Returns the events of `packed`."""
    events: list[dict[str, Any]] = parse_json(bytes(stored.numpy()))
    check_each(events, OBJECT, "history")
    return events


def save_network(
    folder: Path, model: nn.Module, extra: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a finished stage's network; returns its facts with the hash of its weights."""
    state = model.state_dict()
    known = {**facts, "sha256": checkpoint.weights_sha256(state)}
    checkpoint.save(folder, {"model": state, **extra}, kind=WEIGHTS, facts=known)
    return known


@dataclass(frozen=True)
class Finished:
    """The result of a finished stage.

    The facts name `model`, `classes`, `channels`, `resolution`, `mean`, `std`, `split_id`,
    `test_id`, `sha256`, `accuracy`, `history` and more; confusion: [K, K] on the test part, None
    with more than `evaluate.MOST_CONFUSED` classes; memory: class means [K, D] of its training,
    None if it kept none.
    """

    facts: dict[str, Any]
    confusion: list[list[int]] | None
    weights: dict[str, torch.Tensor]
    memory: torch.Tensor | None = None

    @classmethod
    def load(cls, folder: Path) -> Finished:
        """Reads and checks a `weights/<stage>` folder; `InvalidInput` if it was altered."""
        state, facts = checkpoint.load(folder, kind=WEIGHTS)
        with fitting(f"{folder} holds no network of a run", remedy=_ASIDE.format(folder)):
            if "history" in state:  # older networks have it among their facts
                facts = {**facts, "history": unpacked(state["history"])}
            check_types(facts, _FACTS)
            for name, types in _EACH.items():
                check_each(facts[name], types, name)
            confusion = state["confusion"].tolist() if "confusion" in state else None
            return cls(facts, confusion, state["model"], state.get("memory"))

    @property
    def head(self) -> Head:
        """The head that answers; a plain linear one in networks of older versions."""
        return Head(**self.facts.get("head", {}))

    def network(self) -> Classifier:
        """Loads the network to the CPU, in evaluation mode."""
        facts = self.facts
        with fitting(f"the stored network '{facts['model']}' does not fit its own facts"):
            model = models.build(
                facts["model"],
                classes=len(facts["classes"]),
                channels=facts["channels"],
                head=self.head,
                others={name: Head(**one) for name, one in facts.get("others", {}).items()},
            )
            model.load_state_dict(self.weights)
        model.eval()
        return model


def load_network(run: Path) -> tuple[Classifier, dict[str, Any]]:
    """Loads the final network of a run to the CPU, and its facts (see `Finished`)."""
    finished = Finished.load(final_weights(run))
    return finished.network(), finished.facts
