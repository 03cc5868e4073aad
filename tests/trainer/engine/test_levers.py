"""Whole runs with levers: their stages, and that they go on at any step with the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judged_banks import judged
from other_settings import data_for

from stylegan_mix import datasets
from stylegan_mix.errors import Stopped, UsageFailure
from stylegan_mix.session import Session
from trainer.engine.features import HeadToTail
from trainer.engine.folder import Finished
from trainer.engine.run import budget, run_recipe
from trainer.inputs import annotations_of
from trainer.objectives import CrossEntropy, Deferred, Reweighted, Sum
from trainer.recipes.catalogue import RECIPES
from trainer.recipes.levers import with_levers
from trainer.recipes.stage import Draw
from trainer.settings import check, method
from trainer.spec import BankRef, DataSpec, LabelRef, RunSpec, VoteSpec

SMALL = RunSpec(
    data=DataSpec("digits_lt", imbalance=20.0, profile="exp"),
    model="resnet8",
    epochs=3,
    bn_refresh_batches=2,
    final_real_fraction=0.2,
)
PLAIN = replace(SMALL, final_real_fraction=RunSpec.final_real_fraction)
# Of nine steps, the last two see real rows only; weights by class begin at step 5.
LEVERS: dict[str, dict[str, Any]] = {
    "added, crossed": {"fair": "equal-real", "mix_bank_real": True, "bank_share": 0.75},
    "falling": {"bank_schedule": "falling", "drw": 0.5, "head_epochs": 1},
    "late": {"bank_schedule": "from:1", "fair": "equal-real", "drw": 0.5},
    "votes": {"recipe": "patched-one-hot", "votes": VoteSpec(views=3), "mix_bank_real": True},
    "taught": {"recipe": "kd", "drw": 0.5, "head_epochs": 2, "augment": "randaugment+cutout"},
    "control": {"aug": "mixup-even", "bank_schedule": "until:1", "head_epochs": 1},
    "fused": {"recipe": "gcl", "h2t": True},
    "votes of a control": {
        "aug": "mixup-even",
        "recipe": "patched-one-hot",
        "votes": VoteSpec(views=3),
    },
}


def spec_of(name: str, bank: BankRef) -> RunSpec:
    settings = {"aug": "hybrid", **LEVERS[name]}
    return replace(SMALL, bank=bank if settings["aug"] == "hybrid" else None, **settings)


def run(spec: RunSpec, folder: Path, stop: Any) -> dict[str, Any]:
    return run_recipe(spec, folder, session=Session(stop), checkpoint_seconds=1e9)


@pytest.mark.parametrize("name", LEVERS)
def test_a_run_with_levers_goes_on_at_any_step_with_the_same_bits(
    name: str,
    bank: BankRef,
    home: Path,
    stop_after: Any,
    require_same: Callable[[Path, Path], None],
    tmp_path: Path,
) -> None:
    """Stopped after every second step, within each of its phases."""
    spec = spec_of(name, bank)
    whole = run(spec, tmp_path / "whole", stop_after())
    done = False
    for _ in range(40):
        try:
            run(spec, tmp_path / "pieces", stop_after(4))
            done = True
            break
        except Stopped:
            pass
    assert done
    require_same(tmp_path / "pieces", tmp_path / "whole")
    assert whole["budget"]["fair"] == spec.fairness
    assert whole["budget"]["images"] == budget(spec, datasets.load("digits_lt"))["images"] - (
        9 * 128 if RECIPES[spec.recipe].teachers else 0  # of a teacher
    )


def test_a_judges_labels_change_a_run_and_resume(
    bank: BankRef, home: Path, stop_after: Any, require_same: Any, tmp_path: Path
) -> None:
    judged(Path(bank.folder), lambda rows: rows % 2 == 0)
    spec = replace(SMALL, aug="hybrid", bank=bank)
    made = annotations_of(bank, None, "")
    labelled = replace(spec, label=LabelRef(0.5, made.sha256, made.folder), recipe="kd")
    run(labelled, tmp_path / "whole", stop_after())
    for looks in (3, 13):
        with pytest.raises(Stopped):
            run(labelled, tmp_path / str(looks), stop_after(looks))
        run(labelled, tmp_path / str(looks), stop_after())
        require_same(tmp_path / "whole", tmp_path / str(looks))
    plain = run(replace(labelled, label=None), tmp_path / "plain", stop_after())
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert whole["arm"] == "hybrid-judge0.5"
    sha = [one["diagnostics"]["weights_sha256"] for one in (plain, whole)]
    assert sha[0] != sha[1]


def test_a_head_phase_trains_the_head_alone(
    bank: BankRef, home: Path, stop_after: Any, tmp_path: Path
) -> None:
    spec = spec_of("taught", bank)
    record = run(spec, tmp_path / "run", stop_after())
    stages = record["budget"]["stages"]
    assert [(one["stage"], one["epochs"]) for one in stages] == [
        ("teacher", 3),
        ("student", 3),
        ("head", 2),
    ]
    student, head = (
        Finished.load(tmp_path / "run" / "weights" / name).weights for name in ("student", "head")
    )
    changed = {name for name in student if not (student[name] == head[name]).all()}
    assert changed and all(name.startswith("head.") for name in changed)
    # The teacher is that of the student; the head has none.
    assert record["teacher"]["kind"] == "logits"
    assert record["diagnostics"]["teacher_disagreement"]["bank"] is not None
    assert [one["name"] for one in record["method"]["stages"]] == ["teacher", "student", "head"]
    assert record["arm"] == "hybrid-drw-head-randaugment-2-9+cutout"


def test_levers_are_stages_of_the_method() -> None:
    spec = replace(PLAIN, epochs=200, drw=0.8, head_epochs=10)
    train, head = check(spec).stages
    assert train.objective == Deferred(CrossEntropy(), Reweighted(CrossEntropy(), 0.9999), 0.8)
    assert (head.epochs(200), head.draws, head.start) == (10, (Draw("class"),), "train")
    assert (head.train, head.rows, head.norms, head.head) == ("head", "real", "frozen", "new")
    teacher, student, _ = check(replace(spec, recipe="kd")).stages
    assert teacher.objective == CrossEntropy()
    assert isinstance(student.objective, Deferred)
    assert isinstance(student.objective.first, Sum)
    for epochs in (1, 7, 199, 200):
        for heads in {1, epochs // 2, epochs} - {0}:
            made = with_levers(RECIPES["ce"], drw=None, head_epochs=heads, h2t=False, epochs=epochs)
            assert made.stages[-1].epochs(epochs) == heads
    assert method(PLAIN) == RECIPES["ce"]


def test_head_to_tail_on_cross_entropy_is_its_recipe() -> None:
    made = check(replace(PLAIN, h2t=True))
    assert made.stages == RECIPES["h2t"].stages


@pytest.mark.parametrize("name", ["crt", "lws", "mislas", "gcl", "gcl-angular"])
def test_head_to_tail_is_added_to_a_stage_that_trains_a_head(name: str) -> None:
    """On gcl it keeps the loss, the length and the rate of the second stage of gcl."""
    first, then = RECIPES[name].stages
    asked = replace(PLAIN, recipe=name, recipe_version=RECIPES[name].version, h2t=True)
    before, head = check(asked).stages
    assert before == first
    assert head.draws == (Draw("class"), Draw("instance", judged=False))
    assert head.forward == HeadToTail(rho=0.25)
    assert replace(head, draws=then.draws, forward=then.forward) == then


@pytest.mark.parametrize("name", ["balanced-softmax", "ldam-drw", "balpoe", "kd"])
def test_head_to_tail_follows_any_other_first_stage_and_keeps_its_head(name: str) -> None:
    *first, head = check(replace(PLAIN, recipe=name, h2t=True)).stages
    assert tuple(first) == RECIPES[name].stages
    own = first[-1].objective.needs.head
    published = RECIPES["h2t"].stages[1]
    expected = replace(published, start=first[-1].name, objective=CrossEntropy(own))
    assert head == expected


def test_head_to_tail_is_added_to_balanced_draws_alone() -> None:
    head = RECIPES["crt"].stages[1]
    assert head.can_fuse
    assert not replace(head, draws=(Draw("square-root"),)).can_fuse
    assert not replace(head, train="all").can_fuse


def test_head_to_tail_goes_on_a_new_head_too() -> None:
    *_, head = check(replace(PLAIN, head_epochs=2, h2t=True)).stages
    assert (head.head, head.forward) == ("new", HeadToTail(rho=0.25))
    assert head.epochs(PLAIN.epochs) == 2


@pytest.mark.parametrize(
    "name",
    [
        *("tau-norm", "ncm", "h2t", "cbd", "memory-kt", "breadcrumbs", "balms"),
        *("class-balanced", "square-root", "progressive", "effective-number"),
    ],
)
def test_head_to_tail_is_refused_where_it_has_no_place(name: str) -> None:
    """After a correction, other draws, a fusion of its own, or beside a second head."""
    with pytest.raises(UsageFailure, match="'h2t' is set to True"):
        check(replace(PLAIN, recipe=name, h2t=True))


def test_class_frequencies_are_corrected_once() -> None:
    takes = {name: (one.takes_drw, one.takes_head) for name, one in RECIPES.items()}
    both = {"ce", "kd", "one-hot", "patched-one-hot", "focal", "ldam", "label-aware-smoothing"}
    both |= {"manifold-mixup"}
    head_only = {"balanced-softmax", "ldam-drw", "cb-ce", "cb-focal", "ce-drw"}
    head_only |= {"balanced-sigmoid", "logit-adjust", "vs-loss", "balpoe"}
    assert {name for name, taken in takes.items() if taken == (True, True)} == both
    assert {name for name, taken in takes.items() if taken == (False, True)} == head_only
    drw_only = {"memory-kt", "ncm", "temperature"}
    drw_only |= {name for name in RECIPES if name.startswith("memory-") and RECIPES[name].posthoc}
    assert {name for name, taken in takes.items() if taken == (True, False)} == drw_only
    for name, (drw, head) in takes.items():
        for lever, taken in (("drw", drw), ("head_epochs", head)):
            value = {lever: 0.5 if lever == "drw" else 1}
            own = replace(PLAIN, recipe=name, recipe_version=RECIPES[name].version)
            changed = replace(own, data=data_for(name, PLAIN.data), **value)
            if taken:
                check(changed)
            else:
                with pytest.raises(UsageFailure, match=f"'{lever}' is set to"):
                    check(changed)
