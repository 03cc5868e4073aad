"""Averages with numbers that are not finite are never published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_training import tiny_plan

from stylegan_mix.errors import Diverged
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import publication
from stylegan_mix.training.run import run_training


@pytest.mark.parametrize("which", ["main", "further"])
@pytest.mark.parametrize(
    ("name", "value"), [("mapping.w_avg", "nan"), ("synthesis.b4.const", "inf")]
)
def test_an_average_that_is_not_finite_ends_the_training_with_code_5(
    home: Path, monkeypatch: pytest.MonkeyPatch, which: str, name: str, value: str
) -> None:
    publish_all = publication.publish_all

    def poisoned(plan: Any, trained: Any, session: Session, **more: Any) -> Any:
        average = trained.state.average if which == "main" else trained.state.more[0]
        own = average.state_dict()
        own[next(one for one in own if one.endswith(name.split(".")[-1]))].view(-1)[0] = float(
            value
        )
        return publish_all(plan, trained, session, **more)

    monkeypatch.setattr(publication, "publish_all", poisoned)
    plan = tiny_plan(kimg=0.032, more_ema="0.001")
    with (
        StopSignals() as stop,
        pytest.raises(Diverged, match="not finite, in .*published") as error,
    ):
        run_training(plan, Session(stop))
    assert error.value.code == 5
    assert not list(home.glob("generators/*"))
