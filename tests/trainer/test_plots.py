"""Pictures of a report: from 3 to 1,000 classes, any names, curves of one point."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from stylegan_mix.drawing.colours import GROUP_COLOURS
from trainer.reports import page, plots, tables
from trainer.reports.records import Result
from trainer.reports.tables import Table

Maker = Callable[..., dict[str, Any]]
SCRIPTS = ["кошка", "猫", "قطة", "बिल्ली", "แมว", "고양이", "γάτα", "Käfer", "$x$", "<b>&"]


@pytest.fixture
def table(record: Maker, with_classes: Maker) -> Callable[..., Table]:
    """A table of two arms and two seeds over so many classes of an uneven test part."""

    def make(classes: int, names: list[str] | None = None, **settings: Any) -> Table:
        counts = [max(400 // (index + 1), 1) for index in range(classes)]
        tested = [4 + index % 3 for index in range(classes)]
        found = []
        for aug in ("none", "hybrid"):
            for seed in range(2):
                one = record(aug, seed=seed, **settings)
                one = with_classes(one, counts, tested, [2 + seed] * classes)
                one["dataset"]["classes"] = names or [f"a_species_{c}" for c in range(classes)]
                found.append(Result(one))
        (made,) = tables.tables(found)
        return made

    return make


def overlapping(figure: Figure) -> list[str]:
    """Lists labels of an axis that overlap the one before them, or leave the picture."""
    figure.draw_without_rendering()
    found = []
    for labels in (figure.axes[0].get_yticklabels(), figure.axes[0].get_xticklabels()):
        shown = [label for label in labels if label.get_text()]
        boxes = [label.get_window_extent() for label in shown]
        found += [
            label.get_text()
            for label, box, before in zip(shown[1:], boxes[1:], boxes, strict=False)
            if box.overlaps(before)
        ]
        found += [
            label.get_text()
            for label, box in zip(shown, boxes, strict=True)
            if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1
        ]
    return found


@pytest.mark.parametrize("classes", [3, 10, 18, 40, 41, 100, 1000])
def test_labels_do_not_overlap_with_few_classes_and_with_many(
    table: Callable[..., Table], classes: int
) -> None:
    made = table(classes, [f"Copepods_with_eggs_and_a_long_name_{c}" for c in range(classes)])
    assert overlapping(plots.class_bars(made)) == []
    matrix = plots.confusion(made.rows[0])
    assert matrix is not None and overlapping(matrix) == []


def test_a_bar_of_many_classes_is_the_mean_over_them(table: Callable[..., Table]) -> None:
    made = table(1000)
    axes = plots.class_bars(made).axes[0]
    first = next(one for one in axes.containers if isinstance(one, BarContainer))
    assert len(first) < 30
    assert all(30 < bar.get_width() < 60 for bar in first)
    assert "1,000 classes, put together by training images" in axes.get_title(loc="left")


def test_names_of_every_script_are_drawn_without_a_missing_letter(
    table: Callable[..., Table],
) -> None:
    """matplotlib warns of a letter that it draws as a box, and a warning fails a test."""
    made = table(10, SCRIPTS)
    plots.png(plots.class_bars(made))
    plots.png(plots.confusion(made.rows[0]))
    assert "is 猫" in page.html([made]) or "猫" in plots.svg(plots.class_bars(made))


def test_a_class_without_test_images_is_named_so(record: Maker, with_classes: Maker) -> None:
    one = with_classes(record(), [9, 5, 2], [4, 0, 4], [3, 0, 1])
    (made,) = tables.tables([Result(one)])
    texts = [text.get_text() for text in plots.class_bars(made).axes[0].texts]
    assert texts.count("no test image") == 1


def test_groups_are_marked_in_their_colours_only_where_class_sizes_differ(
    record: Maker, with_classes: Maker
) -> None:
    one = with_classes(record(), [50, 9, 3], [4, 4, 4], [3, 2, 1])
    other = with_classes(record(), [5, 5, 5], [4, 4, 4], [3, 2, 1])
    for result, colours in ((one, set(GROUP_COLOURS.values())), (other, set())):
        (made,) = tables.tables([Result(result)])
        marks = [line for line in plots.class_bars(made).axes[0].lines if line.get_linewidth() == 3]
        assert {mark.get_color() for mark in marks} == colours


def test_a_curve_of_one_point_is_a_number(table: Callable[..., Table], tmp_path: Path) -> None:
    made = table(3, epochs=1)
    assert plots.curves(made) is None
    told = plots.single_points(made)
    assert len(told) == 2 and told[0].startswith("none: scored at epoch 1 alone, overall ")
    assert told[0] in page.html([made])
    plots.of_run(made.rows[0].results[0], tmp_path)
    assert not (tmp_path / "curve.png").exists()
    assert plots.single_points(table(3, epochs=2)) == []


def test_curves_show_the_leading_figure_where_every_epoch_has_it(
    table: Callable[..., Table],
) -> None:
    made = table(3)
    figure = plots.curves(made)
    assert figure is not None and figure.axes[0].get_ylabel().endswith(", overall")
    for result in made.results:
        for event in result.record["history"]:
            event["balanced"] = event["accuracy"] / 2
    figure = plots.curves(made)
    assert figure is not None and figure.axes[0].get_ylabel().endswith(", balanced")
    drawn = figure.axes[0].lines[0].get_ydata()
    assert drawn[-1] == pytest.approx(made.results[0].record["history"][-1]["accuracy"] / 2)


def test_a_picture_of_one_run_speaks_of_no_spread(record: Maker) -> None:
    (one,) = tables.tables([Result(record())])
    (each,) = tables.tables([Result(record()), Result(record("hybrid"))])
    (several,) = tables.tables([Result(record(seed=seed)) for seed in range(2)])
    for made, told in ((one, "(one run)"), (each, "(one run each)"), (several, "seeds")):
        for draw in (plots.class_bars, plots.curves):
            figure = draw(made)
            assert figure is not None
            title = figure.axes[0].get_title(loc="left")
            assert told in title
            spread = "band" in title or "deviation" in title
            assert spread == (made is several)
    assert not plots.curves(one).axes[0].collections  # type: ignore[union-attr]


def test_an_accuracy_of_0_is_marked_and_a_missing_one_is_told(
    record: Maker, with_classes: Maker
) -> None:
    one = with_classes(record(), [10, 5, 2], [4, 0, 4], [4, 0, 0])
    (made,) = tables.tables([Result(one)])
    axes = plots.class_bars(made).axes[0]
    marks = [
        lines.get_segments()[0] for lines in axes.collections if hasattr(lines, "get_segments")
    ]
    assert [(segment[:, 0].tolist(), round(segment[:, 1].mean())) for segment in marks] == [
        ([0.0, 0.0], 2)
    ]
    told = [text for text in axes.texts if text.get_text() == "no test image"]
    assert [text.get_position()[1] for text in told] == [1]


def test_long_names_stay_inside_titles_and_legends(record: Maker) -> None:
    found = []
    for number in range(2):
        other = record("hybrid", recipe="patched-one-hot", seed=0, alpha=0.25 * number + 0.5)
        for part in (other["bank"], other["config"]["bank"]):
            part.update(key=f"{number}" * 64, content_sha256=f"{number + 5}" * 64)
        other["bank"].update(
            policy="fill balance pairs probe unmixed 0.25 lam window:0.25,0.75", n=9
        )
        found.append(Result(other))
    found.append(Result(record("hybrid", recipe="patched-one-hot", bank_share=0.125)))
    (made,) = tables.tables(found)
    for figure in (plots.class_bars(made), plots.curves(made), plots.confusion(made.rows[0])):
        assert figure is not None
        figure.draw_without_rendering()
        titles = [axes._left_title for axes in figure.axes]
        shown = [*titles, *(text for one in figure.legends for text in one.get_texts())]
        for text in shown:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text.get_text()


def test_all_tables_of_a_page_have_its_width(table: Callable[..., Table]) -> None:
    text = page.html([table(3), table(10)])
    (rule,) = re.findall(r"^table \{[^}]*\}", text, re.MULTILINE)
    assert "width: 100%" in rule
