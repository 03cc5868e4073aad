"""Several processes that train one network: the rows, the losses and the network of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stylegan_mix import datasets
from stylegan_mix.errors import Failure, UsageFailure
from stylegan_mix.rng import Draws, torch_generator
from stylegan_mix.stopping import NEVER, StopEvent
from stylegan_mix.world import World
from trainer import models
from trainer.engine import processes
from trainer.engine.batch import Batch, Partners, Source
from trainer.engine.folder import Finished
from trainer.models import Outputs
from trainer.recipes.catalogue import RECIPES
from trainer.spec import DataSpec, RunSpec

PATIENCE = 600  # seconds after which a process hangs, on the slowest machine

# Sums of at most 2^13 terms in float64 are wrong by at most 2^-40. Eleven steps may amplify that,
# here by at most a thousand. A row too many, or a wrong weight, is seen from 1e-3 on.
TOLERANCE = 1000 * 2.0**-40

# A training in float64, in which the order of sums hardly matters.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
torch.Tensor.float = torch.Tensor.double
torch.set_default_dtype(torch.float64)
from trainer.models.resnet import ResNet
maps = ResNet.maps
ResNet.maps = lambda network, images: maps(network, images.double())
from stylegan_mix.errors import Stopped
from stylegan_mix.session import Session
from stylegan_mix.stopping import StopEvent
from stylegan_mix.world import joined
from trainer.engine import loop
from trainer.engine.run import run_recipe
from trainer.spec import RunSpec

specs, root, last = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
stop, steps, one_step = StopEvent(), 0, loop.one_step

def counted(*given):
    global steps
    steps += 1
    if steps == last and world.rank == world.size - 1:
        stop.set("request")
    return one_step(*given)

loop.one_step = counted
with joined("cpu") as world:
    for name, plain in specs.items():
        try:
            run_recipe(RunSpec.from_plain(plain), root / name, session=Session(stop), world=world)
        except Stopped as error:
            print(world.rank, error)
"""


def train(
    specs: dict[str, RunSpec], root: Path, repo_root: Path, *, number: int, last: int = -1
) -> str:
    """Trains runs in a number of processes, each run up to a step; returns what was printed."""
    plain = json.dumps({name: spec.plain() for name, spec in specs.items()})
    script = root.with_suffix(".py")
    script.write_text(SCRIPT)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    done = subprocess.run(
        [sys.executable, *(start if number > 1 else []), str(script), plain, str(root), str(last)],
        env={**os.environ, "PYTHONPATH": str(repo_root), "KERNELS": "reference"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def weights(folder: Path) -> dict[str, torch.Tensor]:
    stages = sorted((folder / "weights").iterdir())
    return {
        f"{stage.name}.{name}": value
        for stage in stages
        for name, value in Finished.load(stage).weights.items()
    }


def compare(one: Path, other: Path) -> None:
    """The networks, the losses of every epoch and the answers of two runs are the same."""
    found, expected = weights(one), weights(other)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        apart = (value - expected[name]).abs().max()
        assert apart <= TOLERANCE * max(1.0, float(expected[name].abs().max())), name
    records = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    first, second = (record["history"] for record in records)
    for event, wanted in zip(first, second, strict=True):
        for name in ("loss", "loss_real", "loss_bank"):
            one_loss, other_loss = event[name], wanted[name]
            assert (one_loss is None) == (other_loss is None)
            assert other_loss is None or one_loss == pytest.approx(other_loss, rel=TOLERANCE)
    kept = ("accuracy", "confusion", "config", "budget")
    for record in records:
        record["budget"] = {**record["budget"], "seconds": 0, "stages": None}
    assert [records[0][name] for name in kept] == [records[1][name] for name in kept]
    told = [record["diagnostics"]["teacher_disagreement"] for record in records]
    assert told[0] == told[1]


@pytest.fixture
def runs(bank: Any) -> dict[str, RunSpec]:
    """Runs whose batches do not divide by two, and whose losses look at more than their row."""
    data = datasets.load("digits_lt")
    split = DataSpec("digits_lt", imbalance=data.imbalance, profile=data.profile)
    spec = RunSpec(data=split, model="resnet8", epochs=1, batch=33, bn_refresh_batches=2)
    mixed = replace(spec, aug="hybrid", bank=bank, mix_bank_real=True, bank_schedule="falling")
    return {
        "noise": replace(mixed, recipe="gcl", epochs=2),
        "teacher": replace(mixed, recipe="one-hot", bank_weight=0.5),
        "memory": replace(spec, recipe="memory-kt", aug="mixup"),
        "two draws": replace(spec, recipe="h2t"),
    }


@pytest.mark.slow
def test_two_processes_train_as_one(
    runs: dict[str, RunSpec], home: Path, tmp_path: Path, repo_root: Path
) -> None:
    train(runs, tmp_path / "one", repo_root, number=1)
    train(runs, tmp_path / "two", repo_root, number=2)
    for name in runs:
        compare(tmp_path / "two" / name, tmp_path / "one" / name)
        record = json.loads((tmp_path / "two" / name / "result.json").read_text())
        assert record["environment"]["processes"] == 2


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(
    runs: dict[str, RunSpec], home: Path, tmp_path: Path, repo_root: Path
) -> None:
    """The stop is asked of the last process alone, and all take the same step as their last."""
    some = {"memory": runs["memory"]}
    train(some, tmp_path / "whole", repo_root, number=1)
    said = train(some, tmp_path / "moved", repo_root, number=2, last=6)
    assert said.count("'train', step 6 of 11") == 2
    assert "0 stopped (another process was asked to): stage" in said
    assert "1 stopped (request): stage" in said
    note = json.loads((tmp_path / "moved" / "memory" / "run.json").read_text())
    assert note["status"] == "stopped"
    said = train(some, tmp_path / "moved", repo_root, number=3, last=3)
    assert said.count("begun with other processes (2, now 3)") == 1
    said = train(some, tmp_path / "moved", repo_root, number=1)
    assert said.count("begun with other processes (3, now 1)") == 1
    compare(tmp_path / "moved" / "memory", tmp_path / "whole" / "memory")


# Commands in processes that torchrun started

BREAKS = """
import os, signal
from trainer.engine import loop
from trainer.engine.stage import StageRun

whole, steps = loop.row_losses, 0

def broken(*given):
    global steps
    steps += 1
    values = whole(*given)
    if os.environ["RANK"] == "1" and steps == 4:
        ACT
    return values

loop.row_losses = broken
train = StageRun.train
StageRun.train = lambda run, weights, label, seconds: train(run, weights, label, 0.0)  # every step
from trainer.cli import main
main()
"""
RUN = ("run", "--dataset", "digits_lt", "--device", "cpu", "--threads", "1", "--epochs", "2")


def launched(
    act: str, folder: Path, repo_root: Path, *words: str
) -> subprocess.CompletedProcess[str]:
    """A command in two processes, of which the second does something in its fourth step."""
    script = folder / "broken.py"
    script.write_text(BREAKS.replace("ACT", act))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*start, "--nproc-per-node", "2", str(script), *RUN, *words],
        env={**os.environ, "PYTHONPATH": str(repo_root), "KERNELS": "reference"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def notes(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("runs/*/seed-0/run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_run_goes_on(
    home: Path, tmp_path: Path, repo_root: Path
) -> None:
    done = launched("os.kill(os.getpid(), signal.SIGKILL)", tmp_path, repo_root)
    assert done.returncode == 1, done.stderr
    assert "process 0 of 2 no longer hears the others" in done.stderr
    assert notes(tmp_path)["status"] == "failed"
    (folder,) = tmp_path.glob("runs/*/seed-0")
    assert [path.name for path in (folder / "checkpoints").glob("step-*")]
    done = launched("pass", tmp_path, repo_root, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) >= 1  # one process prints the table
    assert notes(tmp_path)["status"] == "done"
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events] == [1, 2]
    again = launched("pass", tmp_path, repo_root)
    assert again.stderr.count("finished before") == 1


@pytest.mark.slow
def test_a_loss_that_is_no_number_in_one_process_ends_all_with_code_5(
    home: Path, tmp_path: Path, repo_root: Path
) -> None:
    done = launched("values = values * float('nan')", tmp_path, repo_root)
    assert done.stderr.count("the loss was not finite at step 3 of stage 'train'") == 1
    assert "exitcode  : 5" in done.stderr
    assert notes(tmp_path)["status"] == "diverged"


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_is_told_once(
    home: Path, tmp_path: Path, repo_root: Path
) -> None:
    done = launched("os.kill(os.getpid(), signal.SIGUSR1)", tmp_path, repo_root)
    assert done.stderr.count("stopped (") == 1
    assert "exitcode  : 75" in done.stderr
    assert "run the same command to go on" in done.stderr
    assert notes(tmp_path)["status"] == "stopped"


@pytest.mark.slow
def test_a_run_that_cannot_begin_is_told_once(home: Path, tmp_path: Path, repo_root: Path) -> None:
    """The folder of a run with other settings: only the first process looks."""
    folder = tmp_path / "runs" / "mine" / "seed-0"
    folder.mkdir(parents=True)
    spec = RunSpec(data=DataSpec("digits_lt"), model="resnet8", epochs=7)
    (folder / "run.json").write_text(json.dumps({"spec": spec.plain()}))
    done = launched("pass", tmp_path, repo_root, "--name", "mine")
    assert done.stderr.count("holds a run with other settings") == 1, done.stderr
    assert "no longer hears" not in done.stderr
    assert "exitcode  : 2" in done.stderr


# One process, that stands for each of several


def made_batch(counts: tuple[int, ...]) -> Batch:
    """A batch of sources with these numbers of rows; every row holds its place."""
    total, start, sources = sum(counts), 0, list[Source]()
    for number, count in enumerate(counts):
        sources.append(Source(f"s{number}", slice(start, start + count), mixed=number > 0))
        start += count
    places = torch.arange(total)
    last = torch.arange(counts[-1])
    return Batch(
        images=places[:, None, None, None].float(),
        label_a=places,
        label_b=places + 100,
        lam=places.float(),
        index=places + 200,
        index_b=places + 300,
        sources=tuple(sources),
        targets={sources[-1].name: last[:, None].float()},
        partners={sources[-1].name: Partners(last, last + 1, last.float())},
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("counts", [(8,), (7, 5), (4, 1), (6, 0, 3)])
def test_the_rows_of_all_processes_are_those_of_the_batch_source_by_source(
    size: int, counts: tuple[int, ...]
) -> None:
    whole = made_batch(counts)
    seen: dict[str, list[int]] = {source.name: [] for source in whole.sources}
    for rank in range(size):
        own = processes.own_rows(whole, World(rank, size))
        assert len(own.lam) == sum(one.rows.stop - one.rows.start for one in own.sources)
        for source in own.sources:
            rows, (theirs,) = source.rows, [s for s in whole.sources if s.name == source.name]
            assert replace(source, rows=theirs.rows, in_all=None) == theirs
            if size > 1:
                assert source.in_all == theirs.rows.stop - theirs.rows.start
                assert rows.stop > rows.start
            places = own.label_a[rows].tolist()
            seen[source.name] += places
            for name, more in (("label_b", 100), ("lam", 0), ("index", 200), ("index_b", 300)):
                assert getattr(own, name)[rows].tolist() == [place + more for place in places]
            assert own.images[rows].flatten().tolist() == places
            if source.name in whole.targets:
                within = [place - theirs.rows.start for place in places]
                assert own.targets[source.name].flatten().tolist() == within
                partners = own.partners[source.name]
                assert partners.label.tolist() == within
                assert partners.own.tolist() == within
                assert partners.index.tolist() == [one + 1 for one in within]
    for source in whole.sources:
        assert sorted(seen[source.name]) == list(range(source.rows.start, source.rows.stop))


def test_a_batch_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageFailure, match="a batch of 6 rows is too small for 4 processes"):
        processes.own_rows(made_batch((3, 3)), World(0, 4))


def test_noise_is_that_of_the_whole_batch_also_where_its_rows_do_not_divide() -> None:
    whole = Draws(torch_generator(0, "test")).normal(33, 2)
    for rank in range(2):
        draws = World(rank, 2).draws(torch_generator(0, "test")).of(33)
        assert torch.equal(draws.normal(17 - rank, 2), whole[rank::2])


def test_the_parts_of_a_mean_are_the_mean() -> None:
    batch, values = made_batch((3, 2)), torch.arange(5.0)
    parts = [
        processes.mean_over_all(
            values[processes.own_rows(batch, World(r, 2)).label_a], batch, world
        )
        for r in range(2)
        for world in (World(r, 2),)
    ]
    assert sum(parts) / 2 == pytest.approx(2.0)
    assert processes.mean_over_all(values, batch, World()) == values.mean()


def test_outputs_of_all_processes_come_in_the_order_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second of two processes; the first has one more row of each source."""
    batch = made_batch((5, 3))
    rows = torch.arange(8.0)[:, None]
    held = [rows[processes.own_rows(batch, World(rank, 2)).label_a] for rank in range(2)]
    gathered = [held[0], torch.cat([held[1], held[1][:2] * 0 - 1])]
    monkeypatch.setattr(World, "gather", lambda world, padded: gathered)
    out = processes.of_all(Outputs(held[1], held[1], {"more": held[1]}), batch, World(1, 2))
    assert torch.equal(out.features, rows)
    assert torch.equal(out.others["more"], rows)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_split_or_refused_with_the_reason(name: str) -> None:
    processes.require_splitting(RECIPES[name], World())
    try:
        processes.require_splitting(RECIPES[name], World(0, 2))
    except UsageFailure as error:
        assert f"recipe '{name}' cannot be trained by 2 processes: in stage '" in str(error)
        assert any(
            not stage.forward.splits or stage.objective.reads_batch or stage.views
            for stage in RECIPES[name].stages
        )


def test_a_recipe_that_mixes_features_of_the_whole_batch_is_refused() -> None:
    from trainer.engine.features import ManifoldMixup
    from trainer.objectives import CrossEntropy
    from trainer.recipes.stage import Recipe, Stage

    mixes = Stage("train", CrossEntropy(), rows="real", forward=ManifoldMixup())
    with pytest.raises(
        UsageFailure, match="'m' cannot be trained by 2 processes: in stage 'train'"
    ):
        processes.require_splitting(Recipe("m", "", (mixes,)), World(1, 2))


def test_a_batch_norm_that_passes_the_others_by_is_a_failure_by_name() -> None:
    model = models.build("resnet8", classes=3, channels=1)
    processes.follow_whole_batches(model, World())
    assert type(model.stem_norm) is torch.nn.BatchNorm2d
    processes.follow_whole_batches(model, World(0, 2))
    model.train()
    with pytest.raises(Failure, match="batch norm stem_norm was computed without the rows"):
        processes.require_followed(model)
    model.eval()
    processes.require_followed(model)


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_every_network_computes_its_norms_with_the_rows_of_all(name: str) -> None:
    """With the sums of one process. Rounding grows with depth, so a shallow one is compared."""
    model = models.build(name, classes=3, channels=1)
    models.initialise(model, 0)
    images = torch.randn((3, 1, 16, 16), generator=torch_generator(0, "test"))
    model.train()
    plain = model(images).logits
    processes.follow_whole_batches(model, World(0, 2))
    for part in model.modules():
        if hasattr(part, "followed"):
            part.world = World()
    of_all = model(images).logits
    processes.require_followed(model)
    if name == "resnet8":
        torch.testing.assert_close(of_all, plain, rtol=1e-3, atol=1e-3)
    model.eval()
    assert model(images).logits.isfinite().all()


def test_a_norm_of_another_kind_is_a_failure_by_name() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm3d(2))
    processes.follow_whole_batches(model, World())
    with pytest.raises(Failure, match="0 is BatchNorm3d, not known to several processes"):
        processes.follow_whole_batches(model, World(0, 2))


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm1d, torch.nn.BatchNorm2d])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_norm_alone_is_that_of_pytorch(momentum: float | None, kind: Any) -> None:
    """With the sums of one process: values, gradients and running statistics."""
    draws = torch_generator(0, "test")
    shape = (6, 3, 4, 4) if kind is torch.nn.BatchNorm2d else (6, 3)
    x = torch.randn(shape, generator=draws, dtype=torch.float64) * 3 + 1
    pull = torch.randn(x.shape, generator=draws, dtype=torch.float64)
    found = []
    for own in (False, True):
        norm = kind(3, momentum=momentum, dtype=torch.float64)
        torch.nn.init.normal_(norm.weight, generator=torch_generator(1, "test"))
        if own:
            processes.follow_whole_batches(norm, World(0, 2))
            norm.world = World()
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        for one in inputs:
            (norm(one) * pull).sum().backward()
        found.append([norm(x), inputs[0].grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for own, plain in zip(*found, strict=True):
        torch.testing.assert_close(own, plain)


def test_the_stop_of_another_process_is_told_as_such() -> None:
    assert str(processes.stop_of_all(NEVER, "step 3")) == (
        "stopped (another process was asked to): step 3"
    )
    stop = StopEvent()
    stop.set("SIGTERM")
    assert str(processes.stop_of_all(stop, "step 3")) == "stopped (SIGTERM): step 3"


def test_batches_have_no_field_that_is_left_whole() -> None:
    """A new field of a batch must be split too."""
    known = {"images", "label_a", "label_b", "lam", "index", "index_b", "sources"}
    assert {field.name for field in fields(Batch)} == known | {"views", "targets", "partners"}
