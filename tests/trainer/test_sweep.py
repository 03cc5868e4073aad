"""Sweeps: grids become runs, what is there is skipped, what is run is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix import datasets
from stylegan_mix.errors import Diverged, InvalidInput, UsageFailure
from trainer import sweep
from trainer.plan import Asked, decide
from trainer.reports import records
from trainer.reports.records import Result

Maker = Callable[..., dict[str, Any]]
TINY = """
[base]
dataset = "digits_lt"
epochs = 1
bn-refresh-batches = 1

[[runs]]
aug = ["none", "mixup"]
"""


def grid(text: str, tmp_path: Path) -> list[Asked]:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return sweep.load(path)


def test_lists_span_a_grid_and_seeds_stand_together(tmp_path: Path) -> None:
    found = grid(
        """
        [base]
        dataset = "digits_lt"
        seeds = [0, 4]
        [[runs]]
        aug = ["none", "mixup"]
        recipe = ["ce", "crt"]
        [[runs]]
        aug = "hybrid"
        bank = "unmixed"
        seeds = 1
        """,
        tmp_path,
    )
    assert [(one.aug, one.recipe, one.seed) for one in found] == [
        *[("none", "ce", 0), ("none", "ce", 4), ("none", "crt", 0), ("none", "crt", 4)],
        *[("mixup", "ce", 0), ("mixup", "ce", 4), ("mixup", "crt", 0), ("mixup", "crt", 4)],
        ("hybrid", None, 0),
    ]
    assert found[-1].bank == "unmixed"
    assert found[-1].command() == "trainer run --dataset digits_lt --aug hybrid --bank unmixed"


def test_a_setting_is_left_out_for_the_arms_and_recipes_that_do_not_read_it(
    tmp_path: Path,
) -> None:
    found = grid(
        """
        [base]
        dataset = "digits_lt"
        alpha = 0.5
        bank = "w"
        [[runs]]
        aug = ["none", "mixup", "bank"]
        bank-weight = [1.0, 2.0]
        [[runs]]
        recipe = ["kd", "patched-one-hot"]
        aug = "mixup"
        alpha = 1.0
        views = [4, 8]
        """,
        tmp_path,
    )
    first, second = found[:4], found[4:]
    assert [(one.aug, one.alpha, one.bank, one.bank_weight) for one in first] == [
        ("none", None, None, None),
        ("mixup", 0.5, None, None),
        ("bank", None, "w", 1.0),
        ("bank", None, "w", 2.0),
    ]
    assert [(one.recipe, one.alpha, one.views) for one in second] == [
        ("kd", 1.0, None),
        ("patched-one-hot", 1.0, 4),
        ("patched-one-hot", 1.0, 8),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[runs]]\ndataset = "x"\nviews = 4', "number 1: no run there reads 'views'"),
        ('[base]\nbank = "w"\n[[runs]]\ndataset = "x"', "[base]: no run there reads 'bank'"),
        ('[[runs]]\ndatset = "x"', "no option 'datset'; did you mean 'dataset'?"),
        ('[bas]\n[[runs]]\ndataset = "x"', "no entry 'bas'; did you mean 'base'?"),
        ('[[runs]]\ndataset = "x"\nepochs = "many"', "'epochs' must be int, got str 'many'"),
        ('[[runs]]\ndataset = "x"\nepochs = [1, 2.5]', "'epochs' must be int, got float"),
        ('[[runs]]\naug = "none"', "'dataset' is missing"),
        ('[[runs]]\ndataset = "x"\nseed = 3', "'seed' is the sweep's own business"),
        ('[[runs]]\ndataset = "x"\nname = "a"', "'name' is the sweep's own business"),
        ('[[runs]]\ndataset = "x"\nseeds = 0', "'seeds' must be a number or a list"),
        ('[[runs]]\ndataset = "x"\nseeds = [0, -1]', "'seeds' must be a number or a list"),
        ('[[runs]]\ndataset = "x"\n[[runs]]\ndataset = "x"', "stands there twice"),
        ('[[runs]]\ndataset = "x"\n[[runs]]\ndataset = "x"\nsplit_seed = 0', "stands there twice"),
        ('[base]\ndataset = "x"', "at least one table [[runs]]"),
        ("runs = [5]", "is not a table"),
        ("a = 1\na = 2", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageFailure) as error:
        grid(text, tmp_path)
    assert told in str(error.value) and "grid.toml" in str(error.value)


def test_a_missing_or_binary_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageFailure, match="cannot read"):
        sweep.load(tmp_path / "nowhere.toml")
    with pytest.raises(UsageFailure, match="cannot read"):
        sweep.load(tmp_path)
    (tmp_path / "noise.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageFailure, match="is not TOML"):
        sweep.load(tmp_path / "noise.toml")


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TINY.replace("\n", "\r\n").encode())
    assert [one.aug for one in sweep.load(path)] == ["none", "mixup"]


def test_a_file_of_a_gibibyte_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(TINY)
    os.truncate(path, 1 << 30)
    with pytest.raises(UsageFailure, match=r"grid\.toml"):
        sweep.load(path)


def committed(record: Maker, asked: Asked, **dataset: Any) -> Result:
    """A made-up result of the run that is asked for, on the split that there is."""
    plan = decide(asked)
    one = record(plan.spec.aug, seed=asked.seed)
    one["config"] = plan.spec.plain()
    one["model"], one["recipe"] = plan.spec.model, plan.spec.recipe
    one["budget"] = {**one["budget"], "epochs": plan.spec.epochs}
    ids = {"split_id": plan.data.split_id, "test_id": plan.data.test_id}
    one["dataset"] = {**one["dataset"], **ids, **dataset}
    return Result(one)


def test_a_result_of_the_same_configuration_and_seed_is_skipped(home: Path, record: Maker) -> None:
    asked = [Asked(dataset="digits_lt", epochs=3, seed=seed) for seed in (0, 1)]
    known = [committed(record, asked[0])]
    found, missing = sweep.settle(asked, known, out="runs")
    assert found.found is known[0] and found.plan is None
    assert missing.found is None and missing.plan is not None


@pytest.mark.parametrize("other", [{"lr": 0.05}, {"epochs": 4}, {"aug": "mixup"}, {"seed": 1}])
def test_a_result_of_another_configuration_is_not(home: Path, record: Maker, other: Any) -> None:
    known = [committed(record, Asked(dataset="digits_lt", epochs=3))]
    asked = Asked(**{"dataset": "digits_lt", "epochs": 3, **other})
    assert sweep.settle([asked], known, out="runs")[0].found is None


def test_without_its_bank_a_result_of_a_smaller_set_counts_with_its_smaller_batch(
    home: Path, record: Maker
) -> None:
    one = record("hybrid", batch=40)
    asked = Asked(dataset="digits_lt", aug="hybrid", model="resnet8", epochs=12, imbalance=20.0)
    for images, counts in ((40, True), (500, False)):
        one["dataset"] = {**one["dataset"], "train_images": images}
        settled = partial(sweep.settle, [asked], [Result(one)], out="runs")
        if counts:
            assert settled()[0].found is not None
        else:
            with pytest.raises(InvalidInput, match="no bank"):
                settled()


def test_a_result_of_another_split_is_not(home: Path, record: Maker) -> None:
    asked = Asked(dataset="digits_lt", epochs=3)
    known = [committed(record, asked, split_id="0" * 64)]
    assert sweep.settle([asked], known, out="runs")[0].found is None


def test_without_its_bank_a_result_of_the_same_settings_counts(home: Path, record: Maker) -> None:
    """A fresh clone has the results but not the banks that they were made with."""
    known = [Result(record("hybrid", space=space)) for space in ("none", "w")]
    asked = Asked(dataset="digits_lt", aug="hybrid", model="resnet8", epochs=12)
    (found,) = sweep.settle([asked], known, out="runs")
    assert found.found is known[1] and "there is no bank" in found.why
    control = Asked(**{**vars(asked), "bank": "unmixed"})
    assert sweep.settle([control], known, out="runs")[0].found is known[0]


@pytest.mark.parametrize(
    "other", [{"lr": 0.05}, {"bank": "pixel"}, {"seed": 1}, {"imbalance": 10.0}, {"alpha": 0.5}]
)
def test_without_its_bank_other_settings_do_not_count(
    home: Path, record: Maker, other: Any
) -> None:
    settings = {"dataset": "digits_lt", "aug": "hybrid", "model": "resnet8", "epochs": 12}
    with pytest.raises(InvalidInput, match="there is no bank"):
        sweep.settle([Asked(**{**settings, **other})], [Result(record("hybrid"))], out="runs")


def test_without_its_bank_a_result_of_an_earlier_loop_counts_where_it_trains_alike(
    home: Path, record: Maker
) -> None:
    for settings, counts in (({"epochs": 20}, True), ({"epochs": 12}, False)):
        one = record("hybrid", **settings)
        del one["config"]["loop_version"]
        asked = Asked(dataset="digits_lt", aug="hybrid", model="resnet8", **settings)
        if counts:
            assert sweep.settle([asked], [Result(one)], out="runs")[0].found
        else:
            with pytest.raises(InvalidInput, match="there is no bank"):
                sweep.settle([asked], [Result(one)], out="runs")


def test_with_another_bank_than_the_results_it_is_run_again(bank: Any, record: Maker) -> None:
    bank("w")
    asked = Asked(dataset="digits_lt", aug="hybrid", model="resnet8", epochs=12)
    assert sweep.settle([asked], [Result(record("hybrid"))], out="runs")[0].found is None


def test_a_kept_result_is_small_sound_and_named_by_what_it_is(
    record: Maker, tmp_path: Path
) -> None:
    one = Result(record("hybrid", space="pixel", epochs=300))
    path = sweep.keep(one, tmp_path)
    assert path.name == f"digits_lt-ce-hybrid-pixel-resnet8-{one.key}-seed0.json"
    assert path.stat().st_size < 20_000
    assert records.read(path).key == one.key


def test_commands_are_printed_without_running(home: Path, tmp_path: Path, trainer: Any) -> None:
    (tmp_path / "grid.toml").write_text(TINY)
    code, out, _ = trainer("sweep", "grid.toml", "--print-commands")
    assert code == 0
    assert out.splitlines()[-1] == (
        "trainer run --dataset digits_lt --aug mixup --epochs 1 --bn-refresh-batches 1"
    )
    assert not (tmp_path / "runs").exists()
    code, out, _ = trainer("sweep", "grid.toml", "--print-commands", "--out", "my runs")
    assert code == 0 and all(line.endswith(" --out 'my runs'") for line in out.splitlines())


def test_a_sweep_in_several_processes_of_torchrun_is_refused(
    home: Path, tmp_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid.toml").write_text(TINY)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    code, _, err = trainer("sweep", "grid.toml")
    assert code == 2 and "torchrun started several" in err and "--print-commands" in err


def test_a_kept_result_goes_through_a_link_with_its_name(
    record: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    one = Result(record("none"), tmp_path / "result.json")
    target, link = tmp_path / "elsewhere.json", tmp_path / sweep.file_name(one)
    link.symlink_to(target.name)
    assert sweep.keep(one, tmp_path) == link
    assert link.is_symlink()
    assert records.read(target).seed == one.seed


def test_a_sweep_runs_keeps_and_then_skips(home: Path, tmp_path: Path, trainer: Any) -> None:
    (tmp_path / "grid.toml").write_text(TINY)
    code, out, _ = trainer("sweep", "grid.toml", "--results", "kept", "--dry-run")
    assert code == 0 and out.count("to run") == 2
    code, out, err = trainer("sweep", "grid.toml", "--results", "kept")
    assert code == 0 and out.count("trainer run") == 2 and err.count("kept: ") == 2
    kept = records.collect([Path("kept")])
    assert {one.arm for one in kept} == {"none", "mixup"}
    assert {one.dataset["split_id"] for one in kept} == {datasets.load("digits_lt").split_id}
    before = sorted(Path("runs").rglob("result.json"))
    for path in before:
        path.unlink()
    code, out, err = trainer("sweep", "grid.toml", "--results", "kept", "--json")
    assert code == 0 and "2 have a result" in err
    assert all(run["overall"] is not None for run in json.loads(out)["runs"])
    assert not sorted(Path("runs").rglob("result.json"))


def test_a_stopped_sweep_ends_with_75_and_goes_on(
    home: Path, tmp_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import execute

    (tmp_path / "grid.toml").write_text(TINY)
    done: list[str] = []
    carried_out = execute.execute

    def stopping(plan: Any, session: Any, how: Any) -> Any:
        found = carried_out(plan, session, how)
        done.append(plan.spec.arm)
        if len(done) == 1:
            session.stop._deadline = 0.0
        return found

    monkeypatch.setattr(execute, "execute", stopping)
    words = ("sweep", "grid.toml", "--results", "kept", "--workers", "1")
    code, _, err = trainer(*words, "--minutes", "60")
    assert code == 75 and "run the same command to go on" in err
    assert len(records.collect([Path("kept")])) == 1
    code, _, err = trainer(*words)
    assert code == 0 and "1 have a result" in err
    assert len(done) == 2


_HOLDER = """
import sys, time
from pathlib import Path
from stylegan_mix import store
lock, other = map(Path, sys.argv[1:])
with store.locked(lock):
    print("held", flush=True)
    while not other.exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_run_that_another_process_has_is_left_for_the_end(
    home: Path, tmp_path: Path, trainer: Any, repo_root: Path, workers: str
) -> None:
    """The other process goes, without a result, once the next run is finished."""
    first, second = grid(TINY, tmp_path)
    lock, other = decide(first).lock(0), decide(second).folder(0) / records.RESULT_FILE
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lock), str(other)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        code, _, err = trainer("sweep", "grid.toml", "--results", "kept", "--workers", workers)
        holder.kill()
    assert code == 0, err
    assert "; the others first" in err
    kept = [line for line in err.splitlines() if line.startswith("kept: ")]
    assert ["mixup" in line for line in kept] == [True, False]
    assert len(records.collect([Path("kept")])) == 2


_SWEEP = """
import sys
from pathlib import Path
from trainer.engine import run
stages = run._stage_after_stage
def noted(work, *words):
    with open("trained", "a") as file:
        file.write(f"{work.folder.path}\\n")
    return stages(work, *words)
run._stage_after_stage = noted
from trainer.cli import main
main()
"""


def test_two_sweeps_of_one_file_share_its_runs_and_end_with_one_table(
    home: Path, tmp_path: Path, repo_root: Path
) -> None:
    grid(TINY.replace('"mixup"]', '"mixup"]\nseeds = 2'), tmp_path)
    words = ("sweep", "grid.toml", "--workers", "1")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _SWEEP, *words, "--results", f"kept{number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repo_root)},
        )
        for number in range(2)
    ]
    told = [one.communicate(timeout=600) for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert told[0][0].count("trainer run") == 4
    trained = Path("trained").read_text().splitlines()
    assert (len(trained), len(set(trained))) == (4, 4)
    names = [sorted(path.name for path in Path(f"kept{one}").iterdir()) for one in range(2)]
    assert names[0] == names[1]


def test_a_run_that_fails_is_said_and_the_others_are_run(
    home: Path, tmp_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.engine import run
    from trainer.engine.run import run_recipe

    (tmp_path / "grid.toml").write_text(TINY)

    def failing(spec: Any, *arguments: Any, **named: Any) -> Any:
        if spec.aug == "none":
            raise Diverged("the loss was not finite")
        return run_recipe(spec, *arguments, **named)

    monkeypatch.setattr(run, "run_recipe", failing)
    code, _, err = trainer("sweep", "grid.toml", "--results", "kept", "--workers", "1")
    assert code == 5
    _, _, told = err.partition("1 of 2 runs failed:\n")
    run = "trainer run --dataset digits_lt --aug none --model resnet8 --epochs 1"
    assert told.startswith(
        f"  {run} --bn-refresh-batches 1\n    exit code 5: the loss was not finite\n"
    )
    assert [one.arm for one in records.collect([Path("kept")])] == ["mixup"]


def test_a_full_disk_under_the_results_is_told_before_the_first_run(
    home: Path, tmp_path: Path, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    file = tmp_path / "sweep.toml"
    file.write_text('[[runs]]\ndataset = "digits_lt"\nepochs = 1\n')
    code, _, err = trainer("sweep", str(file), "--results", "kept")
    assert code == 4
    assert "/kept needs" in err
    assert "choose another folder with --results" in err
    assert not Path("runs").exists()
