"""Making a report: probe, references, samples of every seed, figures, floors; then the store.

A report appears in the store by one rename, so nobody finds a half-made one. A probe that was
trained on the way stays for the next time.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stylegan_mix import arrays, store
from stylegan_mix.datasets import Dataset
from stylegan_mix.metrics import features, report
from stylegan_mix.metrics.measure import Judge, least_for_frechet
from stylegan_mix.metrics.plan import Plan
from stylegan_mix.metrics.probe import Probe, ensure_probe
from stylegan_mix.metrics.request import KIND, Found, Request, find, folder
from stylegan_mix.metrics.subject import Subject
from stylegan_mix.networks import Generator
from stylegan_mix.numerics import numerics_class
from stylegan_mix.session import Session

__all__ = ["make"]


def make(plan: Plan, device: torch.device, session: Session = Session()) -> Found:
    """Makes the report of a plan, or finds the one that another process made meanwhile."""
    request = plan.request
    final = folder(request)
    lock = final.with_name(f".{final.name}.lock")
    with store.locked(lock, session=session):
        found = find(request, session.say)
        if found is None:
            facts, rows = _report(plan, device, session)
            # `find` left out an altered report; the one measured now replaces it.
            shutil.rmtree(final, ignore_errors=True)
            named, cells = report.packed(facts["figures"])
            arrays.write(final, rows | cells, kind=KIND, facts={**facts, "figures": named})
            found = Found(facts, final)
        lock.unlink(missing_ok=True)
    return found


def _report(
    plan: Plan, device: torch.device, session: Session
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measures the facts of a report, and its arrays of answers by sample."""
    subject, request, probe_seed = plan.subject, plan.request, plan.asked.probe_seed
    # First, so that a damaged generator is reported before anything is computed.
    generator = subject.network(device) if subject.bank is None else None
    probe = ensure_probe(subject.dataset, probe_seed, device, session)
    network = probe.network(device)
    script = plan.asked.script
    backbone = (
        features.of_probe(network, probe.hash)
        if script is None
        else features.of_script(script, request.features, device, session)
    )
    judge = Judge(
        subject.dataset,
        plan.references,
        network=network,
        backbone=backbone,
        device=device,
        session=session,
    )
    figures, rows = _measured(subject, request, judge, generator, session)
    facts = {
        **_origin(subject, request, probe, probe_seed),
        "features": {"name": backbone.name, "sha256": backbone.sha256, "width": judge.width},
        "numerics": numerics_class(device.type, "float32").spec(),
        "command": shlex.join(plan.command()),
        **figures,
    }
    facts["references"] |= {name: {"absent": why} for name, why in plan.absent.items()}
    return {**facts, "notes": _notes(facts, subject)}, rows


def _measured(
    subject: Subject,
    request: Request,
    judge: Judge,
    generator: Generator | None,
    session: Session,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measures all seeds and their floors; also returns arrays [seeds, n] of answers by sample."""
    classes = subject.dataset.num_classes
    runs, kept = [], []
    counts = np.zeros(classes)
    for seed in request.seeds:
        samples = subject.samples(request, seed, generator, session)
        session.say(
            f"seed {seed}: distances, neighbours, accuracies of {len(samples.labels):,} samples"
        )
        figures, rows = judge.judge(samples, seed=seed, cas=request.cas)
        if samples.rows is not None:
            rows["row"] = samples.rows
        runs.append(figures)
        kept.append(rows)
        counts += np.bincount(samples.labels, minlength=classes)
    session.say("floors: real images in place of the samples")
    share = counts / counts.sum()
    rows_of_figures = report.cells(runs, judge.floors(share))
    facts = {
        "scopes": [name for name, _ in judge.scopes],
        "references": judge.described(share),
        "figures": rows_of_figures,
        "choose_by": report.chosen_by(rows_of_figures, classes),
    }
    return facts, {name: np.stack([rows[name] for rows in kept]) for name in kept[0]}


def _origin(subject: Subject, request: Request, probe: Probe, probe_seed: int) -> dict[str, Any]:
    """Lists the judged subject and the judges: names, numbers, seeds, hashes."""
    return {
        "schema": "stylegan-mix-metrics",
        "schema_version": report.SCHEMA_VERSION,
        "key": request.key,
        "request": request.spec(),
        "subject": subject.facts(),
        **_split(subject.dataset),
        "samples": {
            "n": request.n,
            "labels": request.labels,
            "seeds": list(request.seeds),
            "truncation": request.truncation,
        },
        "probe": {
            "sha256": probe.hash,
            "seed": probe_seed,
            "test_accuracy": probe.card["test_accuracy_mean"],
        },
    }


def _split(dataset: Dataset) -> dict[str, Any]:
    groups = dataset.groups
    return {
        "dataset": dataset.name,
        "profile": dataset.profile,
        "imbalance": dataset.imbalance,
        "split_seed": dataset.split_seed,
        "split_id": dataset.split_id,
        "test_id": dataset.test_id,
        "classes": list(dataset.classes),
        "counts": [int(count) for count in dataset.counts],
        "overlap": len(dataset.overlap),
        "groups": {
            "rule": groups.rule,
            "many": list(groups.many),
            "medium": list(groups.medium),
            "few": list(groups.few),
        },
    }


def _notes(facts: Mapping[str, Any], subject: Subject) -> list[str]:
    """Lists the reservations that a reader of the figures must know."""
    warned = subject.short_training()
    notes = [warned] if warned else []
    notes += [
        f"no {name}: {reference['absent']}"
        for name, reference in facts["references"].items()
        if "absent" in reference
    ]
    least = least_for_frechet(facts["features"]["width"])
    start = len(facts["scopes"]) - len(facts["classes"])
    for row in facts["figures"]:
        missing = sum(cell["value"] is None for cell in row["at"][start:])
        if row["figure"] == "frechet" and missing:
            notes.append(
                f"Frechet distances against {row['against']} are n/a for {missing} classes with "
                f"fewer than {least} images or samples (twice the width of the features): see KD, "
                "which has no bias there"
            )
    if subject.bank is not None and subject.bank.mixes:
        notes.append(
            f"rows mixed in space '{subject.bank.space}' count for the class of the larger share"
        )
    if facts["overlap"]:
        notes.append(f"{facts['overlap']} training images are also in the test part")
    return notes
