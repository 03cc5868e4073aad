"""The figures of tables: all images, all classes, shot groups; their order and their headings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_mix.errors import InvalidInput, UsageFailure
from trainer.reports import compare, figures, notes, records, schema, summary, tables
from trainer.reports.records import Result

Maker = Callable[..., dict[str, Any]]
COUNTS, TESTED = [150, 60, 5], [60, 30, 10]


@pytest.fixture
def uneven(record: Maker, with_classes: Maker) -> Maker:
    """A record of 60, 30 and 10 test images of its three classes, with `right` answers."""

    def make(aug: str = "none", right: tuple[int, ...] = (54, 15, 2), **settings: Any) -> Any:
        return with_classes(record(aug, **settings), COUNTS, TESTED, list(right))

    return make


def test_balanced_is_the_mean_over_classes_by_hand(uneven: Maker) -> None:
    """90, 50 and 20 percent of the classes are right, 71 of 100 images."""
    one = Result(uneven())
    assert one.accuracy("overall") == pytest.approx(71)
    assert one.accuracy("balanced") == pytest.approx(160 / 3)


def test_balanced_leaves_a_class_without_test_images_out(
    record: Maker, with_classes: Maker
) -> None:
    one = Result(with_classes(record(), COUNTS, [60, 30, 0], [54, 15, 0]))
    assert one.accuracy("balanced") == pytest.approx(70)
    assert figures.heading("balanced", [one]) == "balanced (2 classes)"
    assert "1 without any are left out of the mean" in figures.explained([one])


def test_balanced_stands_first_where_the_test_part_is_uneven(uneven: Maker, record: Maker) -> None:
    (table,) = tables.tables([Result(uneven())])
    head, (line,) = tables.cells(table)
    assert head[4:6] == ["balanced (3 classes)", "overall (images)"]
    assert line[4:6] == ["53.3", "71.0"]
    assert "10 to 60 test images, so balanced stands first" in "\n".join(table.notes())
    assert tables.plain([Result(uneven())])["tables"][0]["figures"][:2] == ["balanced", "overall"]
    (even,) = tables.tables([Result(record())])
    assert tables.cells(even)[0][4:6] == ["overall (images)", "balanced (10 classes)"]


def test_an_uneven_test_part_is_known_without_a_confusion_matrix(
    uneven: Maker, record: Maker
) -> None:
    assert Result({**uneven(), "confusion": None}).uneven
    assert not Result({**record(), "confusion": None}).uneven
    (table,) = tables.tables([Result({**uneven(), "confusion": None})])
    assert "different numbers of test images" in "\n".join(table.notes())


def test_every_rendering_has_the_mean_over_classes(uneven: Maker) -> None:
    found = [Result(uneven(seed=seed)) for seed in range(2)]
    for text in (
        tables.text_table(tables.tables(found)),
        tables.markdown_table(found),
        tables.seed_table(found),
        summary.text_summary(found, ["none"]),
    ):
        line = next(line for line in text.splitlines() if "balanced (3 classes)" in line)
        assert line.index("balanced") < line.index("overall")
        assert "53.3" in text
    (row,) = tables.plain(found)["tables"][0]["rows"]
    assert row["accuracy"]["balanced"]["mean"] == pytest.approx(160 / 3)


def test_shot_groups_are_columns_only_where_class_sizes_differ(
    record: Maker, with_classes: Maker
) -> None:
    equal = Result(with_classes(record(), [50] * 12, [10] * 12, [5] * 12))
    assert figures.shown([equal]) == ("overall", "balanced")
    assert "no shot groups" in "\n".join(notes.of([equal]))
    three_equal = Result(with_classes(record(), [50] * 3, [10] * 3, [5] * 3))
    assert figures.shown([three_equal]) == ("overall", "balanced")
    two_groups = Result(with_classes(record(), [300] * 11 + [5], [10] * 12, [5] * 12))
    assert figures.shown([two_groups]) == ("overall", "balanced", "many", "few")
    assert figures.heading("few", [two_groups]) == "few (1 class)"


# Verdicts


def test_balanced_decides_where_the_test_part_is_uneven(uneven: Maker) -> None:
    """B gains in all images and loses in the mean over classes."""
    a = [Result(uneven("none", (54 + seed, 15, 8), seed=seed)) for seed in range(3)]
    b = [Result(uneven("mixup", (58 + seed, 15, 2), seed=seed)) for seed in range(3)]
    found = compare.compare_runs(a, b)
    assert found.deciding.part == "balanced"
    assert found.verdict.startswith("none ce") and "is better than mixup ce" in found.verdict
    assert "+17.78 points balanced" in found.verdict
    assert "; overall +2.00 [" in found.verdict
    text = found.text()
    assert text.index("balanced (3 classes)") < text.index("overall (images)")
    plain = found.plain()
    assert plain["deciding"] == "balanced"
    assert plain["headings"]["balanced"] == "balanced (3 classes)"
    assert [one["part"] for one in plain["differences"][:2]] == ["balanced", "overall"]


def test_equivalence_is_told_of_both_figures(uneven: Maker) -> None:
    a = [Result(uneven("none", (54, 15, 3), seed=seed)) for seed in range(3)]
    b = [Result(uneven("mixup", (54, 15, 2), seed=seed)) for seed in range(3)]
    found = compare.compare_runs(a, b, level=0.9, margin=2.0)
    first, second = found.verdict.split("; ")
    assert first.startswith("not shown to be equivalent within 2 points: +3.33 points balanced")
    assert second.startswith("overall +1.00 [") and second.endswith(", equivalent")


# Other shot groups


def test_thresholds_put_classes_into_other_groups(uneven: Maker) -> None:
    (one,) = records.regrouped([Result(uneven())], "100,20")
    assert one.dataset["groups"]["few"] == [2] and one.accuracy("few") == pytest.approx(20)
    (one,) = records.regrouped([Result(uneven())], "50, 5")
    groups = one.dataset["groups"]
    assert (groups["many"], groups["medium"], groups["few"]) == ([0, 1], [2], [])
    assert one.accuracy("many") == pytest.approx(70) and one.accuracy("few") is None
    assert groups["rule"] == "train images: many > 50, medium 5 to 50, few < 5"
    assert schema.check(one.record, "it")


@pytest.mark.parametrize(("rule", "sizes"), [("1/0/2", (1, 0, 2)), ("index", (1, 1, 1))])
def test_ranks_put_classes_into_other_groups(
    uneven: Maker, rule: str, sizes: tuple[int, ...]
) -> None:
    (one,) = records.regrouped([Result(uneven())], rule)
    groups = one.dataset["groups"]
    assert tuple(len(groups[name]) for name in ("many", "medium", "few")) == sizes


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("20,100", "--groups 100,20"),
        ("3/4/3", "three sizes that add to 3, such as 1/1/1"),
        ("100", "write thresholds (--groups 100,20"),
        ("many", "write thresholds (--groups 100,20"),
        ("-1,5", "write thresholds"),
        ("1e3,5", "write thresholds"),
        ("", "write thresholds"),
    ],
)
def test_a_rule_that_fits_nothing_is_refused_with_one_that_does(
    uneven: Maker, rule: str, told: str
) -> None:
    with pytest.raises(UsageFailure) as error:
        records.regrouped([Result(uneven())], rule)
    assert told in f"{error.value} {error.value.remedy}"


def test_commands_take_other_groups(
    uneven: Maker, trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (aug, seed) in enumerate((a, s) for a in ("none", "mixup") for s in range(2)):
        records.write(tmp_path / "runs" / f"{number}.json", uneven(aug, seed=seed))
    code, out, _ = trainer("report", "--groups", "50,50", "--json")
    assert code == 0
    (table,) = json.loads(out)["tables"]
    assert table["groups"]["few"] == [2] and table["figures"][2:] == ["many", "few"]
    code, out, _ = trainer("compare", "none", "mixup", "--groups", "50,50", "--json")
    assert code == 0 and list(json.loads(out)["headings"])[2:] == ["many", "few"]
    (tmp_path / "page.md").write_text("<!-- block a: -->\n<!-- end of block a -->\n")
    into = ("--groups", "50,50", "--into", "page.md", "--block", "a")
    assert trainer("report", "runs", *into)[0] == 0
    assert "--groups 50,50 --into" in (tmp_path / "page.md").read_text()
    code, _, err = trainer("report", "--groups", "fifty")
    assert code == 2 and "no rule of shot groups" in err


# Records


def test_a_record_may_hold_the_mean_over_classes_and_it_must_be_right(uneven: Maker) -> None:
    one = uneven()
    assert schema.check(one, "it")
    one["accuracy"]["balanced"] = 160 / 3
    assert schema.check(one, "it")
    one["accuracy"]["balanced"] = 71.0
    with pytest.raises(InvalidInput, match=r"accuracy\.balanced is 71\.0"):
        schema.check(one, "it")
    one["accuracy"]["balanced"] = "53"
    with pytest.raises(InvalidInput, match=r"'accuracy\.balanced' must be a number from 0 to 100"):
        schema.check(one, "it")
