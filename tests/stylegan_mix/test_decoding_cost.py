"""The cost of a bank or a report: told from few rows and steps, however long a block takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stylegan_mix.banks import cost as bank_cost
from stylegan_mix.banks.write import Decoder
from stylegan_mix.estimates import Form, Span
from stylegan_mix.metrics import cost as metrics_cost
from stylegan_mix.metrics.plan import Asked, decide


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> list[list[Form]]:
    """The forms of every measurement, none of which is made: each takes a second."""
    seen: list[list[Form]] = []

    def measured(forms: list[Form]) -> Span:
        seen.append(list(forms))
        return Span(1.0, 1.0)

    monkeypatch.setattr(bank_cost, "measured", measured)
    monkeypatch.setattr(metrics_cost, "measured", measured)
    return seen


def test_a_bank_is_timed_from_one_row_to_a_block(
    forms: list[list[Form]], toy: Any, ask: Callable[..., Any]
) -> None:
    found = bank_cost.block_seconds(Decoder(toy, ask(n=1000)))
    assert found.low == 1.0 < found.high < 2.0
    assert [form.work for form in forms[0]] == [1, 4, 16, 64]
    for form in forms[0]:
        form.prepare()()
    assert toy.batches == [1, 4, 16, 64]


def test_a_report_is_timed_from_one_row_and_one_step_on(
    forms: list[list[Form]], generator: Any
) -> None:
    plan = decide(Asked(n=200, seeds=2))
    found = metrics_cost.estimate(plan, torch.device("cpu"))
    rows, steps = forms
    assert [form.work for form in rows] == [1, 4, 16, 64]
    assert [form.work for form in steps] == [1, 4, 11, 1200]
    # Two times four blocks of samples, and all steps at once.
    assert found["seconds"].low == pytest.approx(8 + 1)
    for measured in forms:
        measured[0].prepare()()
