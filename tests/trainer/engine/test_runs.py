"""Whole runs on the embedded digits: every recipe, resuming, teachers, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_settings import EVERY_RECIPE, arm_with_bank, data_for

from stylegan_mix import datasets, store
from stylegan_mix.errors import (
    Diverged,
    Interrupted,
    InvalidInput,
    Stopped,
    UsageFailure,
)
from stylegan_mix.session import Session
from trainer import inputs
from trainer.engine import evaluate
from trainer.engine.arms import ARMS
from trainer.engine.folder import Finished, load_network
from trainer.engine.run import budget, run_recipe
from trainer.engine.transform import Transform
from trainer.objectives import FeatureDistill, Loss, Task
from trainer.recipes.catalogue import RECIPES, recipe
from trainer.spec import BankRef, DataSpec, RunSpec, TeacherRef, VoteSpec

DIGITS = DataSpec("digits_lt", imbalance=20.0, profile="exp")


def small(**settings: Any) -> RunSpec:
    """Two epochs of three steps, and a head of one epoch where a recipe has one."""
    name = settings.get("recipe", "ce")
    data, version = data_for(name, DIGITS), RECIPES[name].version if name in RECIPES else 1
    base = RunSpec(
        data=data, recipe_version=version, model="resnet8", epochs=2, bn_refresh_batches=2
    )
    votes = {"votes": VoteSpec(views=4)} if settings.get("recipe") == "patched-one-hot" else {}
    return replace(base, **votes, **settings)


def run(spec: RunSpec, folder: Path, stop: Any, **options: Any) -> dict[str, Any]:
    return run_recipe(spec, folder, session=Session(stop), **{"checkpoint_seconds": 1e9, **options})


@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_every_recipe_runs_with_hybrids_and_stops_and_resumes_exactly(
    recipe: str,
    bank_for: Callable[[DataSpec], BankRef],
    stop_after: Any,
    require_same: Any,
    monkeypatch: Any,
    tmp_path: Path,
) -> None:
    """Stopped after every other step, the run ends with the bytes of an undisturbed one."""
    aug = arm_with_bank(recipe)
    bank = bank_for(data_for(recipe, DIGITS)) if aug != "none" else None
    spec = small(recipe=recipe, aug=aug, bank=bank)
    whole = run(spec, tmp_path / "whole", stop_after())
    # The teacher is asked again, not read from the store of the undisturbed run.
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "another store"))
    record = None
    for _ in range(40):
        try:
            record = run(spec, tmp_path / "pieces", stop_after(4))
            break
        except Stopped:
            assert json.loads((tmp_path / "pieces/run.json").read_text())["status"] == "stopped"
    assert record is not None
    require_same(tmp_path / "pieces", tmp_path / "whole")
    events = (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in events] == whole["history"]


def test_a_finished_run_returns_its_result_without_running(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    record = run(small(), tmp_path / "run", stop_after(), command="trainer run")
    before = _written(tmp_path / "run/result.json")
    assert run(small(), tmp_path / "run", stop_after(0), command="other") == record
    assert _written(tmp_path / "run/result.json") == before
    assert record["command"] == "trainer run"
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "done"
    assert not (tmp_path / "run/checkpoints").exists()


def _written(path: Path) -> tuple[int, ...]:
    """What writing a file changes, to the nanosecond; reading it changes the time of access."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def test_the_record_says_what_was_run(
    bank: BankRef, home: Path, stop_after: Any, tmp_path: Path
) -> None:
    spec = small(recipe="kd", aug="hybrid", bank=bank, teacher_model="resnet20")
    record = run(spec, tmp_path / "run", stop_after())
    data = datasets.load("digits_lt")
    assert record["dataset"]["split_id"] == data.split_id
    assert record["dataset"]["counts"] == data.counts.tolist()
    assert record["budget"]["steps"] == 6  # of the student: its teacher's stand under stages
    assert [s["steps"] for s in record["budget"]["stages"]] == [6, 6]
    assert record["bank"]["n"] == 300 and record["bank"]["key"] == bank.key
    assert record["method"] == recipe("kd").plain()
    assert record["teacher"]["kind"] == "logits" and record["teacher"]["model"] == "resnet20"
    confusion = np.array(record["confusion"])
    assert confusion.sum() == len(data.test.labels)
    assert record["accuracy"]["overall"] == 100 * confusion.trace() / confusion.sum()
    assert record["history"][-1]["accuracy"] == record["accuracy"]["overall"]
    disagreed = record["diagnostics"]["teacher_disagreement"]
    assert 0 <= disagreed["real"] <= 1 and 0 <= disagreed["bank"] <= 1


def test_votes_are_kept_for_later_runs(
    home: Path, stop_after: Any, require_same: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    spec = small(recipe="patched-one-hot")
    run(spec, tmp_path / "one", stop_after())
    kept = list((home / "annotations").glob("*/votes/MANIFEST.json"))
    assert len(kept) == 1
    monkeypatch.setattr("trainer.engine.votes.collect", None)  # asking again would fail
    run(spec, tmp_path / "two", stop_after())
    require_same(tmp_path / "one", tmp_path / "two")


def test_a_head_is_trained_on_the_backbone_of_the_first_stage(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    run(small(recipe="crt"), tmp_path / "run", stop_after())
    first, second = (
        Finished.load(tmp_path / "run/weights" / name).weights for name in ("train", "head")
    )
    changed = {name for name, value in second.items() if not torch.equal(value, first[name])}
    assert changed == {"head.weight", "head.bias"}


def test_a_kept_head_goes_on_from_what_it_was_and_norms_follow(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    run(small(recipe="h2t"), tmp_path / "run", stop_after())
    first, second = (
        Finished.load(tmp_path / "run/weights" / name).weights for name in ("train", "head")
    )
    changed = {name for name, value in second.items() if not torch.equal(value, first[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    followed = {name for name in first if name.endswith(statistics)}
    assert changed == {"head.weight", "head.bias"} | followed
    alike = torch.cosine_similarity(first["head.weight"], second["head.weight"])
    assert (alike > 0.9).all()


def test_features_of_two_teachers_are_met_by_a_projection(
    home: Path, stop_after: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    teacher, student = RECIPES["cbd"].stages
    both = (
        teacher,
        replace(teacher, name="other"),
        replace(student, teachers=("teacher", "other")),
    )
    monkeypatch.setitem(RECIPES, "cbd", replace(RECIPES["cbd"], stages=both))
    seen = []
    bind = FeatureDistill.bind

    def bound(self: FeatureDistill, task: Task, state: torch.nn.Module | None = None) -> Loss:
        seen.append((task.features, task.teacher_features, state))
        return bind(self, task, state)

    monkeypatch.setattr(FeatureDistill, "bind", bound)
    record = run(small(recipe="cbd"), tmp_path / "run", stop_after())
    assert [stage["stage"] for stage in record["budget"]["stages"]] == [s.name for s in both]
    assert {widths[:2] for widths in seen} == {(64, 128)}
    state = seen[0][2]
    assert state is not None and all(value.grad.any() for value in state.parameters())


def test_arms_share_their_steps_and_seeds_do_not_share_weights(
    bank: BankRef, home: Path, stop_after: Any, tmp_path: Path
) -> None:
    found = {}
    for aug, arm in ARMS.items():
        spec = small(aug=aug, bank=bank if arm.bank else None)
        found[aug] = run(spec, tmp_path / aug, stop_after())
    assert len({record["budget"]["steps"] for record in found.values()}) == 1
    images = {aug: record["budget"]["images"] for aug, record in found.items()}
    assert len({images[aug] for aug, arm in ARMS.items() if not arm.even}) == 1
    assert images["mixup"] < images["mixup-even"] <= 1.5 * images["mixup"]
    other = run(small(seed=1), tmp_path / "other", stop_after())
    hashes = {r["diagnostics"]["weights_sha256"] for r in (*found.values(), other)}
    assert len(hashes) == len(ARMS) + 1


def test_bfloat16_runs(home: Path, stop_after: Any, tmp_path: Path) -> None:
    record = run(small(precision="bfloat16"), tmp_path / "run", stop_after())
    assert record["budget"]["precision"] == "bfloat16"


def test_a_finished_network_can_be_loaded_and_scores_as_it_did(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    record = run(small(), tmp_path / "run", stop_after())
    model, facts = load_network(tmp_path / "run")
    data, cpu = datasets.load("digits_lt"), torch.device("cpu")
    transform = Transform(facts["mean"], facts["std"], pad=0, flip=False, device=cpu)
    logits = evaluate.logits_of(model, data.test, transform, device=cpu, precision="float32")
    right = (logits.argmax(1).numpy() == data.test.labels).mean()
    assert 100 * right == pytest.approx(record["accuracy"]["overall"])
    assert not model.training


@pytest.mark.cuda
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_runs_on_cuda(
    recipe: str, bank_for: Callable[[DataSpec], BankRef], stop_after: Any, tmp_path: Path
) -> None:
    aug = arm_with_bank(recipe)
    bank = bank_for(data_for(recipe, DIGITS)) if aug != "none" else None
    spec = small(recipe=recipe, aug=aug, bank=bank, precision="bfloat16", epochs=20)
    record = run(spec, tmp_path / "run", stop_after(), device="cuda")
    assert record["accuracy"]["overall"] > 30


# A teacher from another run


def test_a_finished_run_teaches_in_place_of_the_teacher_stage(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    """The same teacher, given or trained, makes the same student."""
    own = run(small(recipe="one-hot"), tmp_path / "own", stop_after())
    run(small(), tmp_path / "teacher", stop_after())
    reference = inputs.teacher_reference(tmp_path / "teacher")
    assert reference.sha256 == own["teacher"]["sha256"]
    given = run(small(recipe="one-hot", teacher=reference), tmp_path / "given", stop_after())
    assert given["diagnostics"]["weights_sha256"] == own["diagnostics"]["weights_sha256"]
    assert given["teacher"]["run"] == f"{tmp_path.name}/teacher"  # no path of this machine
    assert [s["stage"] for s in given["budget"]["stages"]] == ["student"]


def test_a_teacher_of_another_split_is_refused(home: Path, stop_after: Any, tmp_path: Path) -> None:
    other = replace(DIGITS, imbalance=10.0)
    run(small(data=other), tmp_path / "teacher", stop_after())
    reference = inputs.teacher_reference(tmp_path / "teacher")
    with pytest.raises(InvalidInput, match="has split_id") as error:
        run(small(recipe="kd", teacher=reference), tmp_path / "run", stop_after())
    assert error.value.code == 3


def test_a_teacher_of_other_classes_is_refused(
    home: Path, stop_after: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    run(small(), tmp_path / "teacher", stop_after())
    reference = inputs.teacher_reference(tmp_path / "teacher")
    facts = inputs.teacher_facts(tmp_path / "teacher")
    monkeypatch.setattr(inputs, "teacher_facts", lambda run: {**facts, "classes": ["a", "b"]})
    with pytest.raises(InvalidInput, match=r"has classes \['a', 'b'\]"):
        run(small(recipe="kd", teacher=reference), tmp_path / "run", stop_after())


def test_a_folder_that_is_no_finished_run_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a finished run"):
        inputs.teacher_reference(tmp_path)


def test_a_teacher_whose_weights_were_altered_is_refused(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    run(small(), tmp_path / "teacher", stop_after())
    reference = inputs.teacher_reference(tmp_path / "teacher")
    path = tmp_path / "teacher/weights/train/data.h5"
    path.chmod(0o644)
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(InvalidInput, match="was altered"):
        run(small(recipe="kd", teacher=reference), tmp_path / "run", stop_after())


# What is refused


def test_names_are_checked_before_anything_is_written(tmp_path: Path, stop_after: Any) -> None:
    reference = TeacherRef("hash", "/nowhere")
    for spec, problem in (
        (small(recipe="kdd"), "unknown recipe 'kdd'"),
        (small(model="resnet9"), "unknown model 'resnet9'"),
        (small(recipe="kd", teacher_model="x"), "unknown model 'x'"),
        (small(teacher=reference), "recipe 'ce' has no teacher"),
        (small(recipe_version=2), "recipe 'ce' is at version 1, but the run asks for version 2"),
        (small(recipe="kd", teacher=reference, teacher_model="resnet8"), "no teacher network"),
    ):
        with pytest.raises(UsageFailure, match=problem):
            run(spec, tmp_path / "run", stop_after())
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_not_taken_over(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(small(), tmp_path / "run", stop_after(1))
    with pytest.raises(UsageFailure, match=r"lr: 0.1 there, 0.2 now"):
        run(small(lr=0.2), tmp_path / "run", stop_after())
    with pytest.raises(UsageFailure, match=r"seed: 0 there, 1 now"):
        run(small(seed=1), tmp_path / "run", stop_after())
    run(small(), tmp_path / "run", stop_after())


def test_a_run_that_another_process_works_on_is_left_alone(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    with store.locked(tmp_path / "run/lock"), pytest.raises(Stopped, match="worked on by"):
        run(small(), tmp_path / "run", stop_after())


def test_inputs_that_changed_since_the_run_began_are_refused(
    home: Path, stop_after: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    with pytest.raises(Stopped):
        run(small(), tmp_path / "run", stop_after(1))
    data = datasets.load("digits_lt")
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: replace(data, split_id="0" * 64))
    with pytest.raises(InvalidInput, match="split_id changed since this run began"):
        run(small(), tmp_path / "run", stop_after())


def test_a_bank_of_another_split_is_refused(
    home: Path, bank_of: Callable[..., BankRef], stop_after: Any, tmp_path: Path
) -> None:
    foreign = bank_of(home / "bank", datasets.load("digits_lt"), split="f" * 64)
    with pytest.raises(InvalidInput, match="comes from training split ffffffffffff") as error:
        run(small(aug="bank", bank=foreign), tmp_path / "run", stop_after())
    assert error.value.code == 3


def test_a_bank_with_other_rows_than_the_run_began_with_is_refused(
    bank: BankRef, stop_after: Any, tmp_path: Path
) -> None:
    spec = small(aug="bank", bank=replace(bank, content_sha256="0" * 64))
    with pytest.raises(InvalidInput, match="holds other rows"):
        run(spec, tmp_path / "run", stop_after())


def test_an_altered_bank_is_refused(bank: BankRef, stop_after: Any, tmp_path: Path) -> None:
    path = Path(bank.folder) / "bank.h5"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match="bytes; its manifest says"):
        run(small(aug="hybrid", bank=bank), tmp_path / "run", stop_after())


def test_a_bank_that_is_replaced_while_it_is_read_ends_the_run(
    bank: BankRef, stop_after: Any, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(small(aug="bank", bank=bank), tmp_path / "run", stop_after(1))
    path = Path(bank.folder) / "bank.h5"

    class Replacing(stop_after):  # type: ignore[misc]
        """Touches the file while the run goes on."""

        @property
        def requested(self) -> None:
            os.utime(path, (1, 1))

    with pytest.raises(InvalidInput, match="was replaced or altered"):
        run(small(aug="bank", bank=bank), tmp_path / "run", Replacing())


def test_a_batch_beyond_the_training_set_is_refused(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageFailure, match="a batch of 512 is larger than the 335 training"):
        run(small(batch=512), tmp_path / "run", stop_after())


def test_a_run_that_diverges_says_so_and_leaves_no_result(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match="not finite at step") as error:
        run(small(lr=1000.0, warmup_epochs=0.0, epochs=30), tmp_path / "run", stop_after())
    assert error.value.code == 5
    note = json.loads((tmp_path / "run/run.json").read_text())
    assert (note["status"], note["exit_code"]) == ("diverged", 5)
    assert not (tmp_path / "run/result.json").exists()


def test_a_network_that_is_not_finite_is_never_kept(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    """Every loss is finite at this rate, while the variances of the refresh are not."""
    spec = small(lr=100.0, epochs=5, warmup_epochs=0.0)
    with pytest.raises(Diverged, match="not finite") as error:
        run(spec, tmp_path / "run", stop_after())
    assert error.value.code == 5
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "diverged"
    assert not (tmp_path / "run/result.json").exists()
    assert not (tmp_path / "run/weights").exists()


@pytest.mark.parametrize("recipe", ["ce", "crt", "kd", "tau-norm"])
def test_no_stage_keeps_a_network_whose_refresh_is_not_finite(
    recipe: str, home: Path, stop_after: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    def refresh(model: torch.nn.Module, *others: Any) -> None:
        model.get_buffer("stem_norm.running_var")[3] = float("inf")

    monkeypatch.setattr("trainer.engine.loop.refresh_norms", refresh)
    with pytest.raises(Diverged, match="not finite, in stem_norm.running_var; it was not kept"):
        run(small(recipe=recipe), tmp_path / "run", stop_after())
    assert not (tmp_path / "run/weights").exists()


@pytest.mark.parametrize("changed", [{"test_id": "0" * 64}, {"split_id": "0" * 64}])
def test_a_finished_run_on_other_images_is_not_given_as_the_one_of_now(
    home: Path, stop_after: Any, tmp_path: Path, monkeypatch: Any, changed: dict[str, str]
) -> None:
    run(small(), tmp_path / "run", stop_after())
    data = datasets.load("digits_lt")
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: replace(data, **changed))
    before = _written(tmp_path / "run/result.json")
    with pytest.raises(InvalidInput, match="of other images than digits_lt has now") as error:
        run(small(), tmp_path / "run", stop_after())
    assert "000000000000 now" in str(error.value)
    assert _written(tmp_path / "run/result.json") == before


def test_a_run_of_the_first_version_of_the_loop_is_not_gone_on_with(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageFailure, match="the training loop is at version 2"):
        run(small(loop_version=1), tmp_path / "run", stop_after())
    both = small(epochs=10, loop_version=1)  # the same bits in both versions
    run(both, tmp_path / "run", stop_after())


def test_a_plan_counts_what_the_run_will_do(home: Path, stop_after: Any, tmp_path: Path) -> None:
    data = datasets.load("digits_lt")
    spec = small(recipe="crt")
    planned = budget(spec, data)
    record = run(spec, tmp_path / "run", stop_after())
    assert planned["steps"] == record["budget"]["steps"] == 9
    assert planned["images"] == record["budget"]["images"]
    given = replace(small(recipe="kd"), teacher=TeacherRef("hash", "/nowhere"))
    assert [stage["name"] for stage in budget(given, data)["stages"]] == ["student"]


def test_validation_images_leave_training_and_are_scored(
    home: Path, stop_after: Any, tmp_path: Path
) -> None:
    spec = small(data=replace(DIGITS, val_per_class=2))
    record = run(spec, tmp_path / "run", stop_after())
    assert record["dataset"]["train_images"] == 335 - 20
    assert 0 <= record["diagnostics"]["validation"]["overall"] <= 100


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (Interrupted("x", signal.SIGINT), ("stopped", 130)),
        (KeyboardInterrupt(), ("stopped", 130)),
        (Stopped("x"), ("stopped", 75)),
        (Diverged("x"), ("diverged", 5)),
        (InvalidInput("x"), ("failed", 3)),
        (ZeroDivisionError(), ("failed", 1)),
    ],
)
def test_a_run_notes_how_it_ended(
    error: BaseException,
    end: tuple[str, int],
    home: Path,
    stop_after: Any,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    def fails(spec: RunSpec) -> None:
        raise error

    monkeypatch.setattr("trainer.engine.run.open_inputs", fails)
    with pytest.raises(type(error)):
        run(small(), tmp_path / "run", stop_after())
    note = json.loads((tmp_path / "run/run.json").read_text())
    assert (note["status"], note["exit_code"]) == end
