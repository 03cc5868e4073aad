"""What a training goes on from: sound states of its own, and nothing that only looks like one."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import StopAfter, damage, tiny_plan

from stylegan_mix.checkpoint import Checkpoints
from stylegan_mix.errors import InvalidInput, Stopped
from stylegan_mix.generators.store import Published
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import loop
from stylegan_mix.training.plan import TrainPlan
from stylegan_mix.training.run import run_training
from stylegan_mix.training.saves import CHECKPOINT_KIND

REMEMBERING = {"path_weight": 2.0, "path_interval": 4, "lecam": 0.3, "more_ema": "3"}

_plan = functools.partial(tiny_plan, **REMEMBERING)


def _train(plan: TrainPlan) -> Published:
    with StopSignals() as stop:
        return run_training(plan, Session(stop))[0]


def _stop(plan: TrainPlan, steps: int) -> None:
    with pytest.raises(Stopped):
        run_training(plan, Session(StopAfter(steps)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a training that was stopped at steps 3 and 6, of 20."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_MIX_HOME", str(folder))
        for steps in (2, 2):
            _stop(_plan(), steps)
    return folder


@pytest.fixture
def plan(home: Path, trained: Path) -> TrainPlan:
    """The plan of a training that was stopped at steps 3 and 6, of 20."""
    shutil.copytree(trained, home)
    return _plan()


def _saved(plan: TrainPlan, place: str) -> list[Path]:
    return sorted((plan.folder / place).iterdir())


# --------------------------------------------------------------------- states that are damaged


def _bury_manifest(folder: Path) -> None:
    (folder / "MANIFEST.json").unlink()
    (folder / "MANIFEST.json").mkdir()


@pytest.mark.parametrize("how", [damage, _bury_manifest])
def test_where_no_checkpoint_is_sound_a_training_goes_on_from_the_kept_state(
    plan: TrainPlan, how: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in _saved(plan, "checkpoints"):
        how(folder)
    _stop(plan, 1)
    said = capsys.readouterr().err
    assert f"is damaged: taking what {plan.folder / 'kept'} has" in said
    assert "going on from 0.0 thousand images" in said
    # What is saved now counts, not the damaged ones of later steps.
    assert [path.name for path in _saved(plan, "checkpoints")] == ["step-000000002"]
    _train(plan)
    assert "going on from 0.0 thousand images" in capsys.readouterr().err
    lines = (plan.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [20]


@pytest.mark.parametrize("places", [("kept",), ("checkpoints", "kept")])
def test_where_nothing_is_sound_the_whole_training_has_to_be_moved_away(
    plan: TrainPlan, tmp_path: Path, places: tuple[str, ...]
) -> None:
    if "checkpoints" not in places:
        shutil.rmtree(plan.folder / "checkpoints")
    for place in places:
        for folder in _saved(plan, place):
            damage(folder)
    with pytest.raises(InvalidInput, match="no saved state in") as refused:
        _train(plan)
    assert refused.value.remedy == f"move {plan.folder} away to start again"
    plan.folder.rename(tmp_path / "away")
    assert _train(plan).card["kimg"] == 0.32


def test_a_training_that_diverges_names_a_kept_state_that_is_damaged(
    plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in _saved(plan, "kept"):
        damage(folder)
    monkeypatch.setattr(loop, "broken", lambda values: ["loss_g"] if "loss_g" in values else [])
    with pytest.raises(InvalidInput, match="no saved state in") as refused:
        _train(plan)
    assert refused.value.remedy == f"move {plan.folder} away to start again"


# --------------------------------------------------------------------- states of something else

Change = Callable[[Any, Any], Any]


def _forge(plan: TrainPlan, change: Change) -> None:
    """Changes the newest checkpoint, with sound hashes."""
    place = Checkpoints(plan.folder / "checkpoints", CHECKPOINT_KIND)
    found = place.latest()
    assert found is not None
    step, state, facts = found
    change(state, facts)
    place.save(step, state, facts)


def _moments(state: Any, number: int = 0, player: str = "generator") -> Any:
    return state[f"{player}_optimizer"]["state"][number]


NAN = float("nan")
G, D = "state/generator", "state/discriminator"
FORGED: list[tuple[Change, str]] = [
    # moments
    (lambda s, f: s["generator_optimizer"].clear(), f"{G}_optimizer/state is missing"),
    (
        lambda s, f: s["generator_optimizer"].update(state={}),
        rf"{G}_optimizer/state/synthesis\.b4\.const is missing; .* \(and 25 more\)$",
    ),
    (
        lambda s, f: s["discriminator_optimizer"]["state"].pop(0),
        rf"{D}_optimizer/state/b8\.fromrgb\.weight is missing$",
    ),
    (
        lambda s, f: s["generator_optimizer"]["state"].update({999: _moments(s)}),
        f"{G}_optimizer/state/999 is unknown$",
    ),
    (lambda s, f: _moments(s).pop("exp_avg"), r"_optimizer/state/\S+\.\w+/exp_avg is missing$"),
    (
        lambda s, f: _moments(s).update(exp_avg=_moments(s)["exp_avg"].double()),
        r"/exp_avg is float64 \[.*\], not float32 \[.*\]$",
    ),
    (
        lambda s, f: _moments(s).update(exp_avg_sq=_moments(s)["exp_avg_sq"][:1]),
        r"/exp_avg_sq is float32 \[1.*\], not float32 \[8.*\]$",
    ),
    (
        lambda s, f: _moments(s).update(step=torch.ones(1)),
        r"/step is float32 \[1\], not float32 \[\]$",
    ),
    # running statistics
    (lambda s, f: s.pop("running"), "state/running is missing$"),
    (lambda s, f: s.update(running=[1]), "state/running is a list, not names$"),
    (lambda s, f: s["running"].pop("path.mean"), r"state/running/path\.mean is missing$"),
    (lambda s, f: s["running"].pop("alarms.best"), r"state/running/alarms\.best is missing$"),
    (lambda s, f: s["running"].update(more=torch.ones(1)), "state/running/more is unknown$"),
    (
        lambda s, f: s["running"].update({"class.sign_sum": torch.ones(1)}),
        r"state/running/class\.sign_sum is float32 \[1\], not float32 \[10\]$",
    ),
    (lambda s, f: s["running"]["lecam.real"].fill_(NAN), r"running/lecam\.real is not finite$"),
    # weights
    (
        lambda s, f: s["average"].update({"mapping.w_avg": torch.zeros(8).double()}),
        r"state/average/mapping\.w_avg is float64 \[8\], not float32 \[8\]$",
    ),
    (lambda s, f: s["discriminator"].popitem(), rf"{D}/\S+ is missing$"),
    (lambda s, f: s["more"].pop(), "state/more/0 is missing$"),
    (lambda s, f: s["more"].append(s["average"]), "state/more/1 is unknown$"),
    # numbers
    (lambda s, f: s.update(notes=1), "state/notes is unknown$"),
    (lambda s, f: s.update(attempt=-1), "state/attempt is -1, not a whole number$"),
    (lambda s, f: s.update(attempt=True), "state/attempt is True, not a whole number$"),
    (lambda s, f: s.update(step=6.0), "state/step is a number, not a whole number$"),
    (lambda s, f: s.update(step="6"), "state/step is text, not a whole number$"),
    (lambda s, f: s.update(step=7), "state/step is 7$"),
    # what is logged next
    (lambda s, f: s.update(tick="often"), "state/tick is text, not names$"),
    (lambda s, f: s["tick"].update(sums=[]), "state/tick/sums is a list, not names$"),
    (lambda s, f: s["tick"]["sums"].update(loss_g=2), "sums/loss_g is a whole number, not float32"),
    (lambda s, f: s["tick"].update(counts={}), "state/tick/counts are not those of"),
    (lambda s, f: s["tick"]["counts"].update(loss_g=0), "state/tick/counts are not those of"),
    (lambda s, f: s["tick"].update(seconds=None), "state/tick/seconds is None, not a number$"),
    # facts
    (lambda s, f: f.update(numerics="those"), "facts/numerics is text, not a list$"),
    (lambda s, f: f.update(numerics=["those"]), "facts/numerics/0 is text, not names$"),
    (lambda s, f: f["numerics"][0].pop("torch"), "facts/numerics/0/torch is missing$"),
    (lambda s, f: f.update(kimg="much"), "facts/kimg is text, not a number$"),
]


@pytest.mark.parametrize(("change", "named"), FORGED, ids=[named for _, named in FORGED])
def test_a_checkpoint_that_is_none_of_this_training_is_refused_by_name(
    plan: TrainPlan, change: Change, named: str
) -> None:
    _forge(plan, change)
    with pytest.raises(InvalidInput, match=f"step 6 in .* not one of this training: .*{named}"):
        _train(plan)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"z_dim": 12}, rf"{G}/mapping\.fc0\.weight is float32 \[8, 20\], not float32 \[8, 16\]"),
        ({"channel_max": 4}, rf"{G}/synthesis\.b4\.const is .*\(and \d+ more\)$"),
        ({"lecam": 0.0}, r"state/running/lecam\.real is missing; state/running/lecam\.fake is mis"),
    ],
)
def test_a_checkpoint_of_another_plan_is_refused_by_name(
    plan: TrainPlan, changes: dict[str, Any], named: str
) -> None:
    other = _plan(**changes)
    _stop(other, 3)
    shutil.rmtree(plan.folder / "checkpoints")
    shutil.copytree(other.folder / "checkpoints", plan.folder / "checkpoints")
    with pytest.raises(InvalidInput, match=f"not one of this training: .*{named}"):
        _train(plan)


def test_the_settings_of_optimisers_are_those_of_the_plan(
    plan: TrainPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forge(state: Any, facts: Any) -> None:
        for player in ("generator", "discriminator"):
            for group in state[f"{player}_optimizer"]["param_groups"]:
                group.update(lr=12345.0, maximize=True, betas=[0.5, 0.5], params=[0])

    _forge(plan, forge)
    forged = _train(plan)
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "second"))
    assert _train(_plan()).hash == forged.hash


def test_a_training_saved_while_it_diverged_is_taken_back(plan: TrainPlan) -> None:
    def diverge(state: Any, facts: Any) -> None:
        next(iter(state["generator"].values())).fill_(NAN)
        state["running"]["path.mean"].fill_(NAN)

    _forge(plan, diverge)
    assert _train(plan).card["attempts"] == 2


# --------------------------------------------------------------------- the log


@pytest.mark.parametrize(
    "damaged",
    [b'{"step\261": 2}', b"[1]", b'{"step": "2"}', b"null", b'{"step": 2', b"[" * 100_000],
    ids=["bytes", "list", "text", "null", "torn", "deep"],
)
def test_log_lines_that_cannot_be_read_are_left_out_with_a_word(
    plan: TrainPlan, damaged: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    log = plan.folder / "metrics.jsonl"
    log.write_bytes(b'{"step": 1}\n' + damaged + b'\n{"step": 3}\n')
    _train(plan)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 3, 20]
    assert capsys.readouterr().err.count(f"left out 1 line(s) of {log} that cannot be read") == 1
