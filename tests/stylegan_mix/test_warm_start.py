"""Warm starts: a training that begins with a published generator, and all that must fit for it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import TINY, StopAfter, damage, tiny_plan

from stylegan_mix import datasets
from stylegan_mix.banks.facts import check as check_bank
from stylegan_mix.banks.reader import open_bank
from stylegan_mix.errors import InvalidInput, Stopped, UsageFailure
from stylegan_mix.generators import card as cards
from stylegan_mix.generators import store as generator_store
from stylegan_mix.generators.store import Published
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopSignals
from stylegan_mix.training import run as runs
from stylegan_mix.training.plan import TrainPlan, plan_training
from stylegan_mix.training.run import run_training
from stylegan_mix.training.saves import Saves
from stylegan_mix.training.step import train_step
from stylegan_mix.training.step_inputs import begin
from stylegan_mix.training.warm_start import take_start

Run = Callable[..., tuple[int, str, str]]

SMALL = ("--batch", "16", "--channel-base", "64", "--channel-max", "8", "--device", "cpu")
TRAIN = ("train", "--dataset", "digits_lt", *SMALL)
CPU = torch.device("cpu")


def train(plan: TrainPlan, **more: Any) -> Published:
    with StopSignals() as stop:
        return run_training(plan, Session(stop), **more)[0]


def warm_plan(init: Published, kimg: float = 0.16, **changes: Any) -> TrainPlan:
    """A training of the digits that begins with a generator."""
    fresh, data = changes.pop("fresh_critic", False), changes.pop("data", None)
    return plan_training(
        data or datasets.load("digits_lt"),
        preset="tiny8",
        kimg=kimg,
        seed=0,
        device="cpu",
        command=f"stylegan-mix train --init {init.hash}",
        changes={**TINY, **changes},
        init=init,
        fresh_critic=fresh,
    )


@pytest.fixture
def first(home: Path) -> Published:
    """A published generator with its discriminator."""
    return train(tiny_plan(kimg=0.32), keep_critic=True)


# --------------------------------------------------------------------- beginning


def test_networks_and_averages_begin_with_the_published_weights(first: Published) -> None:
    plan = warm_plan(first, more_ema="5")
    assert plan.init is not None
    state, _ = begin(plan.preset, plan.dataset, seed=0, device=CPU)
    take_start(state, plan.init)
    expected = generator_store.network(first).state_dict()
    for network in (state.generator, state.average, *state.more):
        assert all(torch.equal(value, expected[name]) for name, value in network.named_parameters())
    found = Saves(tiny_plan().folder).newest(print)
    assert found is not None
    critic = found[1][1]["discriminator"]
    for name, value in state.discriminator.state_dict().items():
        assert torch.equal(value, critic[name]), name
    assert not state.generator_optimizer.state


def test_the_average_remembers_the_images_before_and_is_not_the_first_step_s(
    first: Published,
) -> None:
    plan = warm_plan(first, lr_warmup=0.0)
    assert plan.init is not None
    state, game = begin(plan.preset, plan.dataset, seed=0, device=CPU)
    take_start(state, plan.init)
    before = [weight.clone() for weight in state.average.parameters()]
    game = dataclasses.replace(game, seen_before=320_000)
    train_step(state, game)
    # 16 images of a half-life of 10,000: the ramp allows 16,000.
    moved = [
        ((new - old).norm() / (live - old).norm()).detach()
        for new, old, live in zip(
            state.average.parameters(), before, state.generator.parameters(), strict=True
        )
        if not torch.equal(live, old)
    ]
    assert float(torch.stack(moved).median()) == pytest.approx(1 - 0.5 ** (16 / 10_000), rel=0.1)


def test_the_images_before_reach_the_training(
    first: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylegan_mix.training import loop

    seen: list[int] = []
    real = loop.train_step

    def noted(state: Any, game: Any, player: Any) -> Any:
        seen.append(game.seen_before)
        return real(state, game, player)

    monkeypatch.setattr(loop, "train_step", noted)
    train(warm_plan(first))
    assert seen == [320] * 10


def test_the_learning_rate_rises_unless_it_is_told_not_to(first: Published) -> None:
    assert warm_plan(first).preset.lr_warmup == 2.0
    assert warm_plan(first, lr_warmup=0.0).preset.lr_warmup == 0.0
    assert tiny_plan().preset.lr_warmup == 0.0


def test_a_warm_training_stopped_anywhere_gives_the_same_generator(first: Published) -> None:
    plan = warm_plan(first, kimg=0.24)
    whole = train(plan)
    again = warm_plan(first, kimg=0.24, lr=0.0024)
    other = train(again)
    assert other.hash != whole.hash
    shutil.rmtree(plan.folder)
    shutil.rmtree(whole.folder)
    for steps in (3, 4):
        with pytest.raises(Stopped, match="thousand images"):
            run_training(plan, Session(StopAfter(steps)))
    assert train(plan).hash == whole.hash


# --------------------------------------------------------------------- the key and the card


def test_the_key_names_the_start_and_its_discriminator(first: Published) -> None:
    cold = tiny_plan(lr_warmup=2.0)
    warm, without = warm_plan(first), warm_plan(first, fresh_critic=True)
    assert len({cold.key, warm.key, without.key}) == 3
    assert "init" not in cold.spec()
    assert warm.spec()["init"]["generator"] == first.hash
    assert without.spec()["init"]["critic"] is None


def test_cards_count_all_images_of_their_line(first: Published) -> None:
    second = train(warm_plan(first), keep_critic=True)
    third = train(warm_plan(second, kimg=0.08))
    assert second.card["init"]["kimg"] == 0.32
    assert second.card["lineage_kimg"] == pytest.approx(0.48)
    assert third.card["kimg"] == 0.08
    assert third.card["init"]["generator"] == second.hash
    assert third.card["lineage_kimg"] == pytest.approx(0.56)
    text = (third.folder / "GENERATOR_CARD.md").read_text()
    assert f"It began with the weights of generator `{second.hash[:12]}` and its disc" in text
    assert "after\n0.48 thousand images: 0.56 thousand in all" in text
    assert "and on nothing else" in text
    assert "It began" not in (first.folder / "GENERATOR_CARD.md").read_text()
    # It has seen the images of its split alone, so it is found by it.
    assert third.hash in {one.hash for one in generator_store.find(split_id=third.card["split_id"])}


def test_a_start_of_another_split_is_told_and_never_taken_by_itself(first: Published) -> None:
    other = datasets.load("digits_lt", imbalance=5.0)
    plan = warm_plan(first, data=other)
    warning = next(line for line in plan.warnings if "another split" in line)
    assert first.card["split_id"][:12] in warning
    second = train(plan)
    assert second.others == [{"dataset": "digits_lt", "split_id": first.card["split_id"]}]
    assert generator_store.find(split_id=other.split_id) == []
    assert train(plan) == second, "its own training finds it"
    text = (second.folder / "GENERATOR_CARD.md").read_text()
    assert "It has seen other images, too" in text
    assert "on nothing else" not in text
    # What was seen stays seen, further down the line.
    third = train(warm_plan(second, kimg=0.08, data=other))
    assert third.others == second.others


def test_banks_of_a_start_of_another_split_say_so_and_are_only_written_by_name(
    first: Published, run: Run
) -> None:
    second = train(warm_plan(first, data=datasets.load("digits_lt", imbalance=5.0)))
    asked = ("generate", "--dataset", "digits_lt", "--imbalance", "5", "--n", "64")
    code, _, err = run(*asked, "--no-train")
    assert (code, "no finished generator" in err) == (3, True), err
    code, out, err = run(*asked, "--generator", second.hash, "--json")
    assert code == 0, err
    assert "warning: it began with weights that were trained on images of another split" in err
    folder = Path(json.loads(out)["folder"])
    bank = open_bank(folder)
    assert bank.facts["generator_others"] == second.others
    assert (
        "began with weights that were trained on other images"
        in (folder / "BANK_CARD.md").read_text()
    )
    with pytest.raises(ValueError, match="'dataset'"):
        check_bank({**bank.facts, "generator_others": [{"dataset": 3}]})
    code, _, err = run("generate", "--dataset", "digits_lt", "--n", "64", "--json")
    assert code == 0, err
    assert "another split" not in err


def test_cards_with_a_false_start_are_refused(first: Published) -> None:
    sound = {"generator": "a" * 64, "critic": None, "kimg": 1.0}
    cards.check({**first.card, "init": sound, "lineage_kimg": 2.0})
    wrong: list[dict[str, Any]] = [
        {"init": sound},
        {"init": {**sound, "generator": 3}, "lineage_kimg": 2.0},
        {"init": {**sound, "others": "all"}, "lineage_kimg": 2.0},
        {"init": {**sound, "others": ["x"]}, "lineage_kimg": 2.0},
        {"init": {**sound, "others": [{"dataset": 1, "split_id": None}]}, "lineage_kimg": 2.0},
        {"init": [], "lineage_kimg": 2.0},
    ]
    for one in wrong:
        with pytest.raises((ValueError, KeyError)):
            cards.check({**first.card, **one})


# --------------------------------------------------------------------- what must fit


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"w_dim": 16}, "w_dim is 8, not 16"),
        ({"mapping_layers": 3}, "mapping_layers is 2, not 3"),
        ({"channel_max": 16, "channel_base": 128}, r"pixels is \[8, 8\], not \[16, 16\]"),
        ({"label_weight": 1.0}, "label_weight is 0.4, not 1.0"),
        ({"utlo_resolution": 4}, "utlo_resolution is 0, not 4"),
        ({"transition_end": 1.0}, "transitional conditioning is False, not True"),
    ],
)
def test_another_network_is_refused_and_the_differences_named(
    first: Published, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInput, match=named) as end:
        warm_plan(first, **changes)
    assert f"generators show {first.hash[:12]}" in str(end.value.remedy)


def test_another_number_of_classes_is_refused(first: Published) -> None:
    digits = datasets.load("digits_lt")
    keep = digits.train.labels < 9
    part = datasets.Part(digits.train.images[keep], digits.train.labels[keep])
    fewer = dataclasses.replace(digits, train=part, classes=digits.classes[:9])
    with pytest.raises(InvalidInput, match="the number of classes is 10, not 9"):
        warm_plan(first, data=fewer)


def test_another_discriminator_is_refused_and_a_fresh_one_taken(first: Published) -> None:
    with pytest.raises(InvalidInput, match=r"b4\.conv\.bias is \[8\], not \[4\]") as end:
        warm_plan(first, critic_channels=0.5)
    assert "--fresh-critic" in str(end.value.remedy)
    plan = warm_plan(first, critic_channels=0.5, fresh_critic=True)
    assert any("with a fresh discriminator" in line for line in plan.warnings)
    train(plan)


def test_a_grown_generator_is_an_ordinary_start_and_a_growing_one_none(home: Path) -> None:
    growing = train(tiny_plan(grow_start=0.08, grow_end=0.4), keep_critic=True)
    with pytest.raises(InvalidInput, match="its last block has not grown in yet"):
        warm_plan(growing)
    grown = train(tiny_plan(grow_start=0.08, grow_end=0.16), keep_critic=True)
    plan = warm_plan(grown)
    assert plan.init is not None
    assert plan.init.critic
    train(plan)
    with pytest.raises(UsageFailure, match="--init begins with a network of full size"):
        warm_plan(grown, grow_end=0.1)


def test_a_start_that_was_damaged_is_refused_before_anything_runs(first: Published) -> None:
    damage(first.folder / "critic")
    with pytest.raises(InvalidInput, match="critic"):
        warm_plan(first)
    damage(first.folder)
    with pytest.raises(InvalidInput):
        warm_plan(first, fresh_critic=True)


def test_the_discriminator_of_another_generator_is_refused(first: Published) -> None:
    other = train(tiny_plan(kimg=0.32, lr=0.001), keep_critic=True)
    shutil.rmtree(first.folder / "critic")
    shutil.copytree(other.folder / "critic", first.folder / "critic")
    with pytest.raises(InvalidInput, match="is the discriminator of another generator"):
        warm_plan(first)


# --------------------------------------------------------------------- keeping a discriminator


def test_a_discriminator_is_only_kept_where_it_is_asked_for_and_can_be_added_later(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tiny_plan())
    assert not plain.has_critic
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train_on_plan", None)
        assert train(tiny_plan()) == plain
    both = train(tiny_plan(), keep_critic=True)
    assert both.hash == plain.hash
    assert both.has_critic
    found = generator_store.critic(both)
    assert found is not None
    assert len(found[1]) == 64


# --------------------------------------------------------------------- as a command


def test_the_command_goes_from_one_training_to_the_next(home: Path, run: Run) -> None:
    code, out, err = run(*TRAIN, "--kimg", "0.16", "--keep-critic", "--json")
    assert code == 0, err
    name = json.loads(out)["generator"]
    begun = (*TRAIN, "--kimg", "0.08", "--init", name[:10])
    code, out, err = run(*begun, "--dry-run", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["init.generator"], told["init.kimg"]) == (name, 0.16)
    assert f"starts from generator {name[:12]}, 0.16 thousand images, with its discriminator" in err
    code, out, err = run(*begun, "--json", "--fresh-critic")
    assert code == 0, err
    assert "with a fresh discriminator" in err
    card = generator_store.load(json.loads(out)["generator"]).card
    assert f"--init {name} --fresh-critic" in card["command"]
    assert cards.command(card) == card["command"]
    code, out, err = run(*begun, "--publish")
    assert (code, out) == (3, "")
    assert "no step of training" in err


def test_a_file_of_a_generator_is_a_start_and_comes_into_the_store(
    home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(*TRAIN, "--kimg", "0.16", "--json")
    assert code == 0, err
    name = json.loads(out)["generator"]
    assert run("export-generator", name, "one.safetensors")[0] == 0
    monkeypatch.setenv("STYLEGAN_MIX_HOME", str(tmp_path / "elsewhere"))
    begun = (*TRAIN, "--kimg", "0.08", "--init", "one.safetensors")
    code, _, err = run(*begun, "--dry-run")
    assert (code, "a dry run writes nothing" in err) == (2, True), err
    assert generator_store.find() == []
    code, out, err = run(*begun, "--json")
    assert code == 0, err
    card = generator_store.load(json.loads(out)["generator"]).card
    assert card["init"]["generator"] == name
    assert f"--init {name}" in card["command"]
    assert "others" not in card["init"]
    assert run(*begun, "--dry-run")[0] == 0


def test_the_command_refuses_what_it_cannot_begin_with(home: Path, run: Run) -> None:
    code, _, err = run(*TRAIN, "--init", "abc")
    assert (code, "no generator 'abc'" in err) == (3, True), err
    Path("bad.safetensors").write_bytes(b"weights")
    code, _, err = run(*TRAIN, "--init", "bad.safetensors")
    assert (code, "bad.safetensors is refused" in err) == (3, True), err
    Path("network.pkl").write_bytes(b"weights")
    code, _, err = run(*TRAIN, "--init", "network.pkl")
    assert (code, "import-generator network.pkl takes it over" in err) == (2, True), err
    code, _, err = run(*TRAIN, "--fresh-critic")
    assert (code, "add --init HASH" in err) == (2, True), err


def test_an_early_generator_can_bring_its_discriminator(home: Path) -> None:
    with pytest.raises(Stopped):
        run_training(tiny_plan(), Session(StopAfter(6)))
    published = runs.publish_reached(tiny_plan(), lambda kimg: "x", keep_critic=True)[0]
    assert published.has_critic
