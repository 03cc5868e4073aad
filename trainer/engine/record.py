"""The result record of a finished run ("trainer-result/1"), which reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stylegan_mix.banks.policy import in_brief
from trainer.engine.folder import Finished, now
from trainer.engine.portions import Portions
from trainer.inputs import Inputs
from trainer.reports.schema import SCHEMA
from trainer.settings import method
from trainer.spec import RunSpec

__all__ = ["MOST_EVENTS", "of_run", "thinned"]

MOST_EVENTS = 2000
"""The most events of a history in a record."""


def of_run(
    spec: RunSpec,
    inputs: Inputs,
    trained: Mapping[str, Finished],
    taught_by: Sequence[Finished],
    *,
    command: str,
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Composes the record of a run from the stages it `trained`; the last one is its result.

    Everything but `seconds`, `finished_utc` and `environment` is independent of interruptions.
    """
    chosen = method(spec)
    final, taught = list(trained.values())[-1].facts, trained[chosen.taught.name].facts
    confusion = list(trained.values())[-1].confusion
    return {
        "schema": SCHEMA,
        "dataset": _dataset(spec, inputs),
        "arm": spec.arm,
        "aug": spec.aug,
        "recipe": spec.recipe,
        "method": chosen.plain(),
        "model": spec.model,
        "seed": spec.seed,
        "budget": _budget(spec, trained, len(inputs.data.train.labels)),
        "bank": _bank(inputs),
        "teacher": _teacher(spec, taught_by),
        "accuracy": final["accuracy"],
        "test_oracle": _best(final["history"]),
        "history": thinned(
            [event for stage in trained.values() for event in stage.facts["history"]]
        ),
        "confusion": confusion,
        "diagnostics": {
            "weights_sha256": final["sha256"],
            "validation": final["validation"],
            "teacher_disagreement": taught["disagreement"],
            "votes": taught["votes"],
            **({"posthoc": final["posthoc"]} if final.get("posthoc") else {}),
        },
        "command": command,
        "config": spec.plain(),
        "environment": dict(environment),
        "finished_utc": now(),
    }


def _dataset(spec: RunSpec, inputs: Inputs) -> dict[str, Any]:
    data = inputs.data
    groups = data.groups
    return {
        "name": data.name,
        "profile": data.profile,
        "imbalance": data.imbalance,
        "split_seed": data.split_seed,
        "split_id": data.split_id,
        "test_id": data.test_id,
        **({} if data.val_id is None else {"val_id": data.val_id}),
        "classes": list(data.classes),
        "counts": [int(count) for count in data.counts],
        "groups": {
            "rule": groups.rule,
            **{name: list(indices) for name, indices in groups.members.items()},
        },
        "train_images": len(data.train.labels),
        "test_counts": [int(count) for count in data.test_counts],
        "test_images": len(data.test.labels),
        "overlap": len(data.overlap) + data.dropped,
        "dropped_overlap": spec.data.drop_overlap,
    }


def _budget(spec: RunSpec, trained: Mapping[str, Finished], images: int) -> dict[str, Any]:
    """Counts steps and images of the run itself; a teacher stage stands under `stages` only."""
    chosen = method(spec)
    own = [stage for stage in chosen.stages if stage.name not in chosen.teachers]
    steps = {stage.name: trained[stage.name].facts["steps"] for stage in own}
    return {
        "epochs": spec.epochs,
        "steps": sum(steps.values()),
        "batch": spec.batch,
        "lr": spec.lr,
        "precision": spec.precision,
        "seconds": round(sum(stage.facts["seconds"] for stage in trained.values()), 1),
        "images": sum(
            Portions(spec, stage, images=images, steps=steps[stage.name]).images for stage in own
        ),
        "fair": spec.fairness,
        "stages": [
            {key: stage.facts[key] for key in ("stage", "epochs", "steps", "seconds")}
            for stage in trained.values()
        ],
    }


def _bank(inputs: Inputs) -> dict[str, Any] | None:
    bank = inputs.bank
    if bank is None:
        return None
    policy = in_brief(bank.facts.get("request") or {})
    return {
        "key": bank.key,
        "request_key": bank.request_key,
        "content_sha256": bank.content_sha256,
        "n": len(bank),
        "space": bank.space,
        **{name: bank.facts.get(name) for name in ("alpha", "generator", "generator_kimg")},
        **({} if policy == "uniform" else {"policy": policy}),
        **({"split": "declared"} if bank.facts.get("generator_imported") else {}),
        **({} if inputs.accepted is None else {"accepted": len(inputs.accepted)}),
    }


def _teacher(spec: RunSpec, taught_by: Sequence[Finished]) -> dict[str, Any] | None:
    """Describes the first teacher of the last stage that has one, and its questions."""
    if not taught_by:
        return None
    first = taught_by[0].facts
    return {
        "kind": "+".join(sorted(method(spec).taught.objective.needs.answers)),
        "run": spec.teacher and "/".join(Path(spec.teacher.folder).parts[-2:]),
        "model": first["model"],
        "sha256": first["sha256"],
        "accuracy": first["accuracy"]["overall"],
    }


def thinned(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Selects at most `MOST_EVENTS` events, with the first and the last of all, in their order.

    Half of them are evaluated ones, so that a curve stays. `metrics.jsonl` has all.
    """
    if len(history) <= MOST_EVENTS:
        return history
    evaluated = [place for place, event in enumerate(history) if event["accuracy"] is not None]
    kept = {*_spaced(range(len(history))), *_spaced(evaluated)}
    return [history[place] for place in sorted(kept)]


def _spaced(places: Sequence[int]) -> list[int]:
    """Selects half of `MOST_EVENTS` places, evenly spaced, with the first and the last."""
    most = MOST_EVENTS // 2
    if len(places) <= most:
        return list(places)
    return [places[round(i * (len(places) - 1) / (most - 1))] for i in range(most)]


def _best(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Finds the best evaluated epoch of the last stage; it is printed, but selects nothing."""
    seen = [event for event in history if event["accuracy"] is not None]
    best = max(seen, key=lambda event: (event["accuracy"], -event["epoch"]))
    return {"epoch": best["epoch"], "overall": best["accuracy"]}
