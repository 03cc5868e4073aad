"""Result records: what is refused, what is found, what a committed one keeps."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stylegan_mix.errors import InvalidInput, UsageFailure
from trainer.reports import records, schema

Maker = Callable[..., dict[str, Any]]


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted path; DELETE takes the field away."""
    other = copy.deepcopy(record)
    *outer, last = path.split(".")
    inner = other
    for name in outer:
        inner = inner[name]
    if value is DELETE:
        del inner[last]
    else:
        inner[last] = value
    return other


DELETE = object()


def test_a_sound_record_passes_and_reads_back_as_written(record: Maker, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    records.write(path, record("hybrid"))
    assert records.read(path).record == record("hybrid")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("seed", DELETE, "'seed' is missing"),
        ("seed", -1, "'seed' must be a whole number from 0, got -1"),
        ("seed", True, "'seed' must be a whole number"),
        ("accuracy.overall", 101.0, "a number from 0 to 100"),
        ("accuracy.overall", float("nan"), "a number from 0 to 100"),
        ("accuracy.few", "67", "a number from 0 to 100 or null"),
        ("accuracy.few", 67.0, "accuracy.few is 67.0, its classes' mean is 67.567"),
        ("accuracy.few", None, "accuracy.few is None"),
        ("dataset.split_id", "abc", "a SHA-256 in hex"),
        ("dataset.counts", [1, 2], "10 classes, but 'dataset.counts' has 2 entries"),
        ("dataset.train_images", 999, "counts add to 341"),
        ("dataset.groups.few", [7, 8], "must hold each of 10 classes once"),
        ("dataset.groups.few", [7, 8, 8], "must hold each of 10 classes once"),
        ("confusion", [[740]], "must be 10 by 10"),
        ("recipe", "kd", "'recipe' is 'kd', but the configuration says 'ce'"),
        ("arm", "hybrid-pixel", "'arm' is 'hybrid-pixel', but the configuration says 'hybrid'"),
        ("bank", None, "do not agree on whether there is a bank"),
        ("bank.content_sha256", "0" * 64, "'bank.content_sha256'"),
        ("config.lr", 0.0, "no configuration of a run"),
        ("budget.lr", 0.2, "'budget.lr' is 0.2, but the configuration says 0.1"),
        ("method", {"name": "ce", "stages": []}, "'method.version' is missing"),
        (
            "method",
            {"name": "ce", "version": 2, "stages": []},
            "'method.version' is 2, but the configuration says 1",
        ),
        (
            "method",
            {"name": "kd", "version": 1, "stages": []},
            "'method.name' is 'kd', but the configuration says 'ce'",
        ),
        ("dataset.test_counts", [74] * 9, "10 classes, but 'dataset.test_counts' has 9 entries"),
        ("dataset.test_counts", [74] * 9 + [75], "test_counts add to 741, not to 740 images"),
        ("dataset.test_counts", [75, 73] + [74] * 8, "do not add to 'dataset.test_counts'"),
        ("dataset.test_counts", [148, 0] + [74] * 8, "class 1 has an accuracy without images"),
        ("dataset.test_counts", [74.0] * 10, "a whole number from 0"),
        ("extra", 1, "no field 'extra' is known"),
        ("schema", "trainer-result/2", "this version reads 'trainer-result/1'"),
    ],
)
def test_an_unsound_record_is_refused_by_name(
    record: Maker, path: str, value: Any, told: str
) -> None:
    with pytest.raises(InvalidInput) as error:
        schema.check(changed(record("hybrid"), path, value), "here.json")
    assert told in str(error.value)
    assert "here.json" in str(error.value)


def test_all_problems_are_listed_together(record: Maker) -> None:
    broken = changed(changed(record(), "seed", -1), "model", 5)
    with pytest.raises(InvalidInput) as error:
        schema.check(broken, "x")
    assert "'seed'" in str(error.value) and "'model'" in str(error.value)


def test_a_confusion_matrix_that_says_otherwise_is_refused(record: Maker) -> None:
    broken = record()
    broken["confusion"][9][9] += 1
    broken["confusion"][9][0] -= 1
    with pytest.raises(InvalidInput, match=r"accuracy.per_class\[9\]"):
        schema.check(broken, "x")


def test_a_group_without_tested_classes_has_no_mean() -> None:
    groups = {"many": [0], "medium": [1], "few": []}
    assert schema.group_means(groups, [50.0, None]) == {"many": 50.0, "medium": None, "few": None}


def test_results_are_found_in_run_folders_and_among_other_files(
    record: Maker, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "one" / "seed-0"
    records.write(run / "result.json", record(seed=0))
    for name in ("run.json", "env.json"):
        (run / name).write_text("{}")
    records.write(tmp_path / "runs" / "committed.json", record(seed=1))
    (tmp_path / "runs" / "bench.json").write_text('{"schema": "something else"}')
    assert [one.seed for one in records.collect([tmp_path / "runs"])] == [0, 1]


def test_unfinished_runs_are_left_out_and_said(
    record: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.write(tmp_path / "a" / "result.json", record())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{}")
    assert len(records.collect([tmp_path])) == 1
    assert "1 unfinished run(s)" in capsys.readouterr().err


def test_the_same_run_twice_counts_once(record: Maker, tmp_path: Path) -> None:
    records.write(tmp_path / "a.json", record())
    records.write(tmp_path / "b.json", record())
    assert len(records.collect([tmp_path])) == 1


def test_the_same_run_with_other_numbers_is_refused(record: Maker, tmp_path: Path) -> None:
    records.write(tmp_path / "a.json", record())
    records.write(tmp_path / "b.json", record(right=(74,) * 10))
    with pytest.raises(InvalidInput, match="a.json and .*b.json are the same run"):
        records.collect([tmp_path])


def test_a_committed_copy_of_a_run_is_the_run(record: Maker, tmp_path: Path) -> None:
    """Rounded numbers are not other numbers."""
    records.write(tmp_path / "a.json", record("hybrid"))
    records.write(tmp_path / "b.json", records.small(record("hybrid")))
    assert len(records.collect([tmp_path])) == 1


def test_a_path_that_is_not_there_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no"):
        records.collect([tmp_path / "nowhere"])


def test_a_damaged_result_is_refused_and_not_passed_over(record: Maker, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"schema": "trainer-result/1"')
    with pytest.raises(InvalidInput, match="result.json") as refused:
        records.collect([tmp_path])
    there, aside = tmp_path / "result.json", tmp_path / "result.damaged"
    assert f"mv {there} {aside} " in str(refused.value.remedy)
    there.rename(aside)
    assert records.collect([tmp_path]) == []


def test_a_small_record_is_sound_small_and_of_the_same_key(record: Maker) -> None:
    whole = record("hybrid", epochs=400)
    kept = records.small(whole)
    schema.check(kept, "small")
    assert len(json.dumps(kept)) < 20_000 < len(json.dumps(whole))
    assert records.Result(kept).key == records.Result(whole).key
    assert kept["history"][-1]["epoch"] == 400
    assert "/banks" not in json.dumps(kept)


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert records.read_events(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("line", ['{"st', "5", "nonsense"])
def test_a_torn_line_elsewhere_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InvalidInput, match="line 2"):
        records.read_events(path)


def data_of(record: dict[str, Any], **changes: str) -> Any:
    """The ids of a record's data set, as those of a loaded one."""
    names = ("name", "split_id", "test_id")
    return SimpleNamespace(**{name: record["dataset"][name] for name in names} | changes)


def test_a_folder_with_another_run_names_what_differs(record: Maker, tmp_path: Path) -> None:
    wanted = records.Result(record(lr=0.05)).spec
    records.write(tmp_path / "result.json", record())
    with pytest.raises(UsageFailure, match="lr: 0.1 there, 0.05 here"):
        records.finished(tmp_path, wanted, data_of(record()))


def test_a_finished_folder_gives_its_result_and_an_empty_one_none(
    record: Maker, tmp_path: Path
) -> None:
    spec = records.Result(record()).spec
    data = data_of(record())
    assert records.finished(tmp_path, spec, data) is None
    records.write(tmp_path / "result.json", record())
    found = records.finished(tmp_path, spec, data)
    assert found is not None and found.record == record()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"split_id": "1" * 64}, "training split {split_id} in the run, 111111111111 now"),
        ({"test_id": "2" * 64}, "test part {test_id} in the run, 222222222222 now"),
    ],
)
def test_a_finished_run_on_other_images_is_not_the_run_asked_for(
    record: Maker, tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    one = record()
    records.write(tmp_path / "result.json", one)
    with pytest.raises(InvalidInput) as error:
        records.finished(tmp_path, records.Result(one).spec, data_of(one, **changed))
    ids = {name: one["dataset"][name][:12] for name in ("split_id", "test_id")}
    assert told.format(**ids) in str(error.value)
    assert error.value.remedy is not None and "--name or --out" in error.value.remedy


def test_runs_on_other_test_images_are_two_runs(record: Maker, tmp_path: Path) -> None:
    one, other = record(), record(right=(70,) * 10)
    other["dataset"] = {**other["dataset"], "test_id": "2" * 64}
    for name, content in (("one", one), ("other", other)):
        records.write(tmp_path / name / "result.json", content)
    assert len(records.collect([tmp_path])) == 2
