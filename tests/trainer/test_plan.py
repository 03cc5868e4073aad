"""What `trainer run` decides for those who say little, and what it refuses."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix import datasets, store
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import InvalidInput, UsageFailure
from stylegan_mix.latents.spaces import SPACES, Space
from trainer import plan
from trainer.differences import differing, flat
from trainer.engine.arms import ARMS
from trainer.inputs import Inputs
from trainer.plan import Asked, decide, expected
from trainer.recipes.catalogue import RECIPES
from trainer.settings import check

Banks = Callable[..., str]


def test_without_a_bank_the_built_in_digits_are_taken(home: Path) -> None:
    plan = decide(Asked())
    assert plan.spec.data.name == "digits_lt"
    assert plan.why[0] == "data set digits_lt: there is no bank yet, and it is built in"
    assert (plan.spec.model, plan.spec.aug, plan.spec.recipe) == ("resnet8", "none", "ce")


def test_the_data_set_is_that_of_the_newest_bank_whatever_the_arm(bank: Banks) -> None:
    bank(name="old")
    bank(name="new", imbalance=10.0, split_seed=3)
    for aug in ("none", "mixup", "hybrid"):
        plan = decide(Asked(aug=aug))
        assert (plan.spec.data.imbalance, plan.spec.data.split_seed) == (10.0, 3)
        assert "that of the newest bank" in plan.why[0]


def test_what_is_said_wins_over_the_newest_bank(bank: Banks) -> None:
    bank(imbalance=10.0, split_seed=3)
    assert decide(Asked(dataset="digits_lt")).spec.data.imbalance == 20.0
    assert decide(Asked(dataset="digits_lt")).spec.data.split_seed == 0
    kept = decide(Asked(split_seed=0)).spec.data
    assert (kept.imbalance, kept.split_seed) == (10.0, 0)


def test_class_sizes_as_they_are_and_a_factor_leave_each_other_behind(bank: Banks) -> None:
    bank(imbalance=10.0)
    data = decide(Asked(profile="natural")).spec.data
    assert (data.imbalance, data.profile) == (None, "natural")
    bank(imbalance=None, profile="natural", name="newer")
    data = decide(Asked(imbalance=7.0)).spec.data
    assert (data.imbalance, data.profile) == (7.0, "exp")


def test_a_named_data_set_without_a_split_seed_is_the_run_of_seed_0(home: Path) -> None:
    plain = decide(Asked(dataset="digits_lt"))
    assert plain.spec == decide(Asked(dataset="digits_lt", split_seed=0)).spec
    assert plain.spec.data.split_seed == 0


def test_the_default_bank_is_the_newest_that_is_no_control(bank: Banks) -> None:
    bank("w", name="old")
    wanted = bank("z", name="new")
    bank("none", name="newer")
    bank("pixel", name="newest")
    plan = decide(Asked(aug="hybrid"))
    assert plan.spec.bank is not None and plan.spec.bank.key == wanted
    assert plan.spec.arm == "hybrid"
    assert "the newest of a mixing space for this split; controls are taken only by name" in str(
        plan.why
    )


@pytest.mark.parametrize("older", [(), ("none",)])
def test_no_control_is_spoken_of_where_none_was_passed_over(
    bank: Banks, older: tuple[str, ...]
) -> None:
    for space in older:
        bank(space)
    key = bank("w", name="newest")
    plan = decide(Asked(aug="hybrid"))
    assert plan.why[1] == f"bank {key[:12]}: the newest for this split (64 rows, space w)"


def test_the_default_bank_is_of_the_split_of_the_run(bank: Banks) -> None:
    wanted = bank(name="ours")
    bank(name="theirs", split_seed=5)
    plan = decide(Asked(dataset="digits_lt", aug="bank"))
    assert plan.spec.bank is not None and plan.spec.bank.key == wanted


def test_a_space_from_outside_is_a_word_and_its_control_an_arm(
    bank: Banks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for space in (Space("w+", "one code a layer"), Space("hard", "w_a or w_b", control="switched")):
        monkeypatch.setitem(SPACES, space.name, space)
    method, control = (bank("w+"), "hybrid"), (bank("hard"), "hybrid-switched")
    wanted = {None: method, "w+": method, "hard": control, "switched": control}
    for word, (key, arm) in wanted.items():
        spec = decide(Asked(dataset="digits_lt", aug="hybrid", bank=word)).spec
        assert spec.bank is not None
        assert (spec.bank.key, spec.arm) == (key, arm)


@pytest.mark.parametrize(
    ("word", "space", "arm"),
    [
        ("unmixed", "none", "hybrid-unmixed"),
        ("none", "none", "hybrid-unmixed"),
        ("pixel", "pixel", "hybrid-pixel"),
        ("w", "w", "hybrid"),
    ],
)
def test_a_space_means_its_newest_bank(bank: Banks, word: str, space: str, arm: str) -> None:
    bank(space, name="older")
    wanted = bank(space, name="newer")
    bank("z", name="newest")
    plan = decide(Asked(dataset="digits_lt", aug="hybrid", bank=word))
    assert plan.spec.bank is not None and plan.spec.bank.key == wanted
    assert plan.spec.arm == arm
    assert f"the newest of space '{space}' for this split" in plan.why[1]


def test_a_bank_is_found_by_key_beginning_and_path(bank: Banks, home: Path) -> None:
    bank(name="other")
    key = bank(name="wanted")
    for reference in (key, key[:10], str(home / "banks" / key)):
        plan = decide(Asked(aug="bank", bank=reference))
        assert plan.spec.bank is not None and plan.spec.bank.key == key


@pytest.mark.parametrize("imported", [False, True])
def test_a_split_that_is_only_declared_is_called_so(bank: Banks, imported: bool) -> None:
    bank(imported=imported)
    said = "; its generator was imported, and only declared to be of this split" in str(
        decide(Asked(dataset="digits_lt", aug="hybrid")).why
    )
    assert said == imported


@pytest.mark.parametrize("imported", [False, True])
def test_the_record_says_whether_a_split_is_only_declared(bank: Banks, imported: bool) -> None:
    from trainer.engine import record

    opened = open_bank(store.home() / "banks" / bank(imported=imported))
    said = record._bank(Inputs(datasets.load("digits_lt"), opened, {}))
    assert said is not None
    assert said.get("split") == ("declared" if imported else None)


@pytest.mark.parametrize("aug", ["bank", "hybrid"])
def test_no_bank_is_error_3_with_the_command_that_makes_one(home: Path, aug: str) -> None:
    with pytest.raises(InvalidInput) as error:
        decide(Asked(aug=aug, imbalance=10.0, dataset="digits_lt"))
    assert error.value.remedy is not None
    assert "stylegan-mix generate --dataset digits_lt --imbalance 10 --n" in error.value.remedy


def test_only_controls_is_error_3_too(bank: Banks) -> None:
    bank("none")
    with pytest.raises(InvalidInput, match="there is no bank for digits_lt"):
        decide(Asked(aug="hybrid"))


def test_a_missing_control_names_the_space_in_the_command(bank: Banks) -> None:
    bank("w")
    with pytest.raises(InvalidInput) as error:
        decide(Asked(aug="hybrid", bank="unmixed"))
    assert error.value.remedy is not None
    assert error.value.remedy.splitlines()[0].endswith("--space none")


def test_a_bank_of_another_split_is_refused_with_both_ids(bank: Banks) -> None:
    """The leak guard: its generator may have seen what this split holds out."""
    key = bank(split_seed=5)
    ours = datasets.load("digits_lt").split_id[:12]
    theirs = datasets.load("digits_lt", split_seed=5).split_id[:12]
    assert ours != theirs
    with pytest.raises(InvalidInput) as error:
        decide(Asked(dataset="digits_lt", aug="hybrid", bank=key))
    assert ours in str(error.value) and theirs in str(error.value)
    # The command on the bank's card would make this very bank again.
    assert "--split-seed of this run" in str(error.value.remedy)
    assert "--split-seed 5" not in str(error.value.remedy)


def test_cutting_validation_images_out_makes_the_bank_another_splits(bank: Banks) -> None:
    """The generator has seen the images that are now held out."""
    bank()
    with pytest.raises(InvalidInput, match="there is no bank") as error:
        decide(Asked(dataset="digits_lt", aug="hybrid", val_per_class=1))
    # No command makes such a bank, so none may be named.
    assert "leave out --val-per-class" in str(error.value.remedy)
    assert "generate --dataset" not in str(error.value.remedy)


def test_a_bank_without_an_arm_that_reads_it_is_refused(bank: Banks) -> None:
    with pytest.raises(UsageFailure, match="--aug mixup reads no bank"):
        decide(Asked(aug="mixup", bank="w"))


def test_everything_wrong_is_said_at_once(home: Path) -> None:
    with pytest.raises(UsageFailure) as error:
        decide(Asked(aug="hybird", epochs=0, lr=float("nan")))
    for told in ("did you mean 'hybrid'", "epochs must be", "lr must be"):
        assert told in str(error.value)


def test_seeds_are_counted_from_the_first_and_have_folders_of_their_own(home: Path) -> None:
    plan = decide(Asked(seed=2, seeds=3, out="there"))
    assert plan.seeds == (2, 3, 4)
    folders = [plan.folder(seed) for seed in plan.seeds]
    assert len({folder.parent for folder in folders}) == 1
    assert [folder.name for folder in folders] == ["seed-2", "seed-3", "seed-4"]
    assert folders[0].parts[0] == "there"
    assert decide(Asked(name="mine")).folder(0) == Path("runs/mine/seed-0")


def test_zero_seeds_are_refused(home: Path) -> None:
    with pytest.raises(UsageFailure, match="--seeds must be at least 1"):
        decide(Asked(seeds=0))


@pytest.mark.parametrize("name", ["", ".", "../x", "a/../../x", "/x", "a\nb", "a/" + "ü" * 128])
def test_a_name_stays_below_the_folder_of_runs(home: Path, name: str) -> None:
    with pytest.raises(UsageFailure, match="--name must name a folder below --out"):
        decide(Asked(name=name))


def typed(command: str) -> Asked:
    """What the command line's own parser reads in a command."""
    from trainer.commands.run import asked_for, run

    words = shlex.split(command)
    assert words[:2] == ["trainer", "run"]
    return asked_for(run.make_context("run", words[2:]).params)


def test_another_version_of_a_recipe_is_another_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = decide(Asked(dataset="digits_lt", recipe="kd"))
    monkeypatch.setitem(RECIPES, "kd", replace(RECIPES["kd"], version=2))
    after = decide(Asked(dataset="digits_lt", recipe="kd"))
    assert (before.spec.recipe_version, after.spec.recipe_version) == (1, 2)
    assert after.folder(0) != before.folder(0)
    assert expected(after.asked)["recipe_version"] == 2


def test_another_version_of_an_arm_is_another_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(dataset="digits_lt", aug="mixup")
    before = decide(asked)
    assert "aug_version" not in before.spec.identity() and "aug_version" not in before.request
    monkeypatch.setitem(ARMS, "mixup", replace(ARMS["mixup"], version=2))
    after = decide(asked)
    assert (before.spec.aug_version, after.spec.aug_version) == (1, 2)
    assert after.spec.identity() == {**before.spec.identity(), "aug_version": 2}
    assert after.folder(0) != before.folder(0)
    assert expected(asked)["aug_version"] == after.request["aug_version"] == 2
    assert after.spec.versions["aug_version"] == 2
    with pytest.raises(UsageFailure, match="arm 'mixup' is at version 2, but .* version 1"):
        check(before.spec)
    assert decide(Asked(dataset="digits_lt")).spec.aug_version == 1


def test_an_arm_can_have_a_default_of_its_own(home: Path) -> None:
    plans = {
        (aug, alpha): decide(Asked(dataset="digits_lt", aug=aug, alpha=alpha))
        for aug in ("mixup", "unimix")
        for alpha in (None, 1.0)
    }
    assert {key: plan.spec.alpha for key, plan in plans.items()} == {
        ("mixup", None): 1.0,
        ("mixup", 1.0): 1.0,
        ("unimix", None): 0.8,
        ("unimix", 1.0): 1.0,
    }
    assert expected(plans["unimix", None].asked)["alpha"] == 0.8
    assert plans["unimix", None].sources({})["alpha"] == "default of --aug unimix"
    assert plans["unimix", 1.0].sources({"alpha": "flag"})["alpha"] == "flag"
    assert plans["mixup", None].sources({})["alpha"] == "default"


@pytest.mark.parametrize("space", [None, "unmixed"])
def test_the_command_of_a_run_asks_for_the_same_run(bank: Banks, space: str | None) -> None:
    """Even when another bank and split have become the newest."""
    split: dict[str, Any] = {"imbalance": 10.123456789, "split_seed": 3}
    for kind in ("w", "none"):
        bank(kind, **split)
    asked = replace(typed("trainer run"), aug="hybrid", bank=space, lr=1 / 30, seeds=3, flip=False)
    plan = decide(asked)
    assert plan.spec.data.split_seed == 3
    for kind in ("w", "none"):
        bank(kind, name="newer", **split)
        bank(kind, name="newest", split_seed=5)
    assert decide(asked).spec != plan.spec
    assert decide(typed(plan.command(2))).spec == plan.of_seed(2)


def test_a_bank_that_was_named_stands_in_the_command_as_it_was_named(
    bank: Banks, home: Path
) -> None:
    """A path may lie outside the store, where no key finds it."""
    path = str((home / "banks" / bank()).rename("a copy"))
    assert typed(decide(Asked(aug="bank", bank=path)).command(0)).bank == path


def test_sources_tell_flags_defaults_and_the_newest_bank_apart(bank: Banks) -> None:
    bank(imbalance=10.0)
    plan = decide(Asked(aug="hybrid", lr=0.05, epochs=7))
    options = dict.fromkeys(Asked.__annotations__, "default")
    found = plan.sources({**options, "aug": "flag", "lr": "file", "epochs": "flag"})
    assert set(found) == set(flat(plan.spec.plain()))
    assert (found["aug"], found["lr"], found["epochs"]) == ("flag", "file", "flag")
    assert (found["data.name"], found["data.imbalance"]) == ("newest bank", "newest bank")
    assert (found["bank.key"], found["model"]) == ("newest bank", "default of digits_lt")
    assert found["momentum"] == "default"


def test_sources_name_no_newest_bank_that_decided_nothing(bank: Banks) -> None:
    options = dict.fromkeys(Asked.__annotations__, "default")
    found = decide(Asked()).sources(options)
    assert (found["data.name"], found["data.split_seed"]) == ("default", "default")
    key = bank(split_seed=3)
    found = decide(Asked(aug="bank", bank=key)).sources({**options, "bank": "flag"})
    assert (found["data.name"], found["data.split_seed"]) == ("named bank", "named bank")


def test_expected_settings_are_those_of_the_decided_run(bank: Banks) -> None:
    bank()
    asked = Asked(dataset="digits_lt", aug="hybrid", epochs=9, imbalance=20.0, flip=True)
    actual: dict[str, Any] = flat(decide(asked).spec.plain())
    assert (
        expected(asked).items()
        <= {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in actual.items()
        }.items()
    )


def test_where_no_split_seed_is_said_seed_0_is_expected() -> None:
    assert expected(Asked(dataset="digits_lt"))["data.split_seed"] == 0
    assert expected(Asked(dataset="digits_lt", split_seed=3))["data.split_seed"] == 3


def test_tables_of_files_are_typed_and_their_names_checked() -> None:
    assert Asked.from_table({"bank-share": 1, "lr": 1e-4}, "x").bank_share == 1.0
    for table, told in (
        ({"lrr": 1.0}, "did you mean 'lr'"),
        ({"lr": "fast"}, "'lr' must be float, got str 'fast'"),
        ({"epochs": True}, "'epochs' must be int, got bool"),
        ({"epochs": 1.5}, "'epochs' must be int, got float"),
        ({"flip": 1}, "'flip' must be bool"),
    ):
        with pytest.raises(UsageFailure) as error:
            Asked.from_table(table, "sweep.toml")
        assert told in str(error.value) and "sweep.toml" in str(error.value)


def test_differing_names_nested_settings() -> None:
    one = {"lr": 0.1, "data": {"name": "a", "seed": 0}, "bank": None}
    other = {"lr": 0.1, "data": {"name": "b", "seed": 0}, "bank": {"n": 5}}
    assert differing(one, other, names=("here", "there")) == [
        "bank: None here, absent there",
        "bank.n: absent here, 5 there",
        "data.name: a here, b there",
    ]


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        (Asked(recipe="balanced-softmx"), "did you mean 'balanced-softmax'"),
        (Asked(model="resnet23"), "did you mean 'resnet"),
        (Asked(recipe="kd", teacher_model="resent8"), "did you mean 'resnet8'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_misspelt_recipe_or_model_is_refused_before_any_data_are_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked, nearest: str
) -> None:
    def load(*names: str, **split: Any) -> None:
        pytest.fail(f"{names} were loaded")

    monkeypatch.setattr(datasets, "load", load)
    with pytest.raises(UsageFailure, match=nearest):
        decide(asked)


@pytest.mark.parametrize(
    ("images", "asked", "batch"),
    [(128, None, 128), (127, None, 127), (40, None, 40), (40, 64, 40), (40, 16, 16)],
)
def test_a_set_smaller_than_the_batch_trains_with_a_smaller_one_and_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, images: int, asked: int | None, batch: int
) -> None:
    data = datasets.load("digits_lt")
    few = datasets.Part(data.train.images[:images], data.train.labels[:images])
    monkeypatch.setattr(plan, "_loaded", lambda *_, **__: replace(data, train=few))
    decided = decide(Asked(dataset="digits_lt", batch=asked))
    assert decided.spec.batch == batch
    told = [line for line in decided.why if line.startswith("batch")]
    wanted = asked or 128
    expected = [f"batch {batch}, not {wanted}: the training part has {images} images"]
    assert told == (expected if batch < wanted else [])


def test_a_single_training_image_makes_no_batch(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm needs two; a dry run says so before anything is begun."""
    data = datasets.load("digits_lt")
    one = datasets.Part(data.train.images[:1], data.train.labels[:1])
    monkeypatch.setattr(plan, "_loaded", lambda *_, **__: replace(data, train=one))
    with pytest.raises(UsageFailure, match="a batch of 2 is larger than the 1 training images"):
        decide(Asked(dataset="digits_lt"))


def test_a_batch_that_cannot_be_is_refused_whatever_the_set(home: Path) -> None:
    for batch in (0, 1, -3):
        with pytest.raises(UsageFailure, match="batch"):
            decide(Asked(dataset="digits_lt", batch=batch))
