"""The cost of a run: on any machine it is told without a step that takes minutes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stylegan_mix import datasets, process
from stylegan_mix.estimates import Form, Span
from stylegan_mix.progress import Silent
from stylegan_mix.session import Session
from trainer.engine import cost, run
from trainer.spec import DataSpec, RunSpec

SPEC = RunSpec(data=DataSpec(imbalance=20.0, profile="exp"), model="resnet8", epochs=2)


def test_steps_are_timed_from_few_images_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Form] = []

    def measured(forms: list[Form]) -> Span:
        seen.extend(forms)
        return Span(1.0, 1.0)

    monkeypatch.setattr(cost, "measured", measured)
    data = datasets.load("digits_lt")
    found = cost.estimate(SPEC, data, "cpu")
    assert [form.work for form in seen] == [2, 8, 32, 128]
    assert found["seconds"].low < 1.2 * found["steps"] < found["seconds"].high
    seen[0].prepare()()


@pytest.mark.parametrize("batch", [2, 3, 5, 100])
def test_the_last_form_is_the_step_itself(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(cost, "measured", lambda forms: Span(forms[-1].work, forms[0].work))
    spec = RunSpec(data=SPEC.data, model="resnet8", batch=batch)
    found = cost.step_seconds(spec, datasets.load("digits_lt"), torch.device("cpu"))
    assert found.low == pytest.approx(batch * cost.LEAST_MORE)
    assert found.high >= 2


def test_further_views_are_rows_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two views beside the image make three passes of the network."""
    monkeypatch.setattr(cost, "measured", lambda forms: Span(forms[-1].work, forms[0].work))
    spec = RunSpec(data=SPEC.data, recipe="bcl", model="resnet8", batch=10)
    found = cost.step_seconds(spec, datasets.load("digits_lt"), torch.device("cpu"))
    assert found.low == pytest.approx(3 * 10 * cost.LEAST_MORE)


@pytest.mark.parametrize("native", [True, False, None])
def test_a_slow_format_is_told_before_the_first_step(
    home: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, native: bool | None
) -> None:
    told: list[str] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            told.append(text)

    def begun(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "computes_natively", lambda precision: native)
    monkeypatch.setattr(run, "_stage_after_stage", begun)
    spec = RunSpec(data=SPEC.data, model="resnet8", precision="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        run.run_recipe(spec, tmp_path / "run", session=Session(reporter=Told()))
    warned = [line for line in told if "no instructions for bfloat16" in line]
    assert len(warned) == (native is False)
