"""`--augment` of a run: its one name, its key, the tables that name it, and wrong names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import UsageFailure
from trainer import sweep
from trainer.asked import Asked
from trainer.plan import requested
from trainer.spec import RunSpec


def test_the_plain_policy_is_no_part_of_a_key() -> None:
    plain = RunSpec()
    assert plain.augment == "plain" and "augment" not in plain.identity()
    assert plain.arm == "none" and RunSpec(augment="plain").key == plain.key
    keys = {RunSpec(augment=name).key for name in ("cutout", "autoaugment", "randaugment-2-5")}
    assert len(keys | {plain.key}) == 4


def test_two_names_of_one_policy_are_one_run() -> None:
    one, other = RunSpec(augment="randaugment+cutout"), RunSpec(augment="randaugment-02-9+cutout")
    assert one == other and one.key == other.key
    assert one.identity()["augment"] == "randaugment-2-9+cutout"
    assert RunSpec.from_plain(one.plain()) == one
    asked = Asked(dataset="digits_lt", augment="randaugment")
    assert requested(asked) == requested(Asked(dataset="digits_lt", augment="randaugment-2-9"))
    assert requested(asked)["augment"] == "randaugment-2-9"
    assert requested(Asked(dataset="digits_lt", augment="plain")) == requested(Asked("digits_lt"))
    assert asked.words()[-2:] == ["--augment", "randaugment-2-9"]


def test_an_arm_is_named_with_its_policy() -> None:
    named = RunSpec(aug="mixup", augment="autoaugment+cutout", drw=0.8)
    assert named.arm == "mixup-drw-autoaugment+cutout"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"augment": "autoaugmnet"}, "'autoaugmnet' is no policy; did you mean 'autoaugment'"),
        ({"augment": "randaugment-9-9"}, "N is 1 to 8 and M 0 to 10"),
        ({"augment": "mixup"}, "'mixup' is no policy, but an arm: --aug mixup"),
        ({"augment": ""}, "'' is no policy"),
        ({"augment": None}, "is no policy"),
        ({"augment": 5}, "is no policy"),
        ({"aug": "cutout"}, "'cutout' is a policy of augmentation: --augment cutout"),
    ],
)
def test_wrong_names_are_refused_with_the_right_one(settings: Any, told: str) -> None:
    with pytest.raises(UsageFailure, match=told):
        RunSpec(**settings)


def test_a_sweep_has_a_run_for_each_policy() -> None:
    table = {"dataset": "digits_lt", "aug": "mixup", "augment": ["plain", "randaugment"]}
    items = sweep.expand({"runs": [table]}, "x.toml")
    assert [one.augment for one in items] == ["plain", "randaugment-2-9"]
    with pytest.raises(UsageFailure, match="'augment' must be str"):
        sweep.expand({"runs": [{**table, "augment": 3}]}, "x.toml")


def test_a_policy_reaches_the_run_and_every_place_that_names_it(
    trainer: Any, home: Path, tmp_path: Path
) -> None:
    words = "run --dataset digits_lt --epochs 1 --bn-refresh-batches 1 --augment autoaugment+cutout"
    code, out, err = trainer(*words.split(), "--dry-run")
    assert code == 0 and "arm none-autoaugment+cutout" in err
    assert "at 8x8 pixels, 1 channel(s), no effect of colour, equalise" in err
    assert "--augment autoaugment+cutout" in out
    code, out, err = trainer(*words.split())
    assert code == 0, err
    assert list(Path("runs").glob("digits_lt-ce-none-autoaugment+cutout-*/seed-0/result.json"))
    code, out, _ = trainer("report", "runs")
    assert code == 0
    for note in ("none-autoaugment+cutout", "*-autoaugment: ", "*cutout: "):
        assert note in out, note
    code, out, err = trainer("run", "--dataset", "digits_lt", "--augment", "cutou")
    assert code == 2 and "did you mean 'cutout'" in err
