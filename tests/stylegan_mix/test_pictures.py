"""Pictures of a generator: which classes, which latents, which distances, and the same bytes."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_mix import rng
from stylegan_mix.drawing.sheet import Sheet, draw
from stylegan_mix.errors import InvalidInput
from stylegan_mix.generators.class_grid import shown_classes, watched_classes
from stylegan_mix.latents import centres
from stylegan_mix.latents.plan import BLOCK
from stylegan_mix.metrics.samples import drawn, redrawn
from stylegan_mix.networks import to_uint8
from stylegan_mix.pictures import history, log_words
from stylegan_mix.pictures.choice import chosen, head_to_tail, pairs
from stylegan_mix.pictures.curves import curves
from stylegan_mix.pictures.curves import drawn as plotted
from stylegan_mix.pictures.nearest import Judged, neighbours, picked
from stylegan_mix.pictures.strips import strip, strips
from stylegan_mix.pictures.truncation import LATENTS, PSIS, sweeps
from stylegan_mix.pictures.viewer import Subject


@pytest.fixture
def subject(published: Any, toy: Any) -> Subject:
    """The toy, to be shown with seed 5."""
    return Subject(published, toy, 5)


# --------------------------------------------------------------------- centres


def test_the_mean_of_a_class_is_that_of_its_mapped_latents(toy: Any) -> None:
    found = centres.class_mean(toy, 2, seed=3, n=1500)
    blocks = [
        rng.stream(3, "centres.z", block).standard_normal((count, 4), np.float32)
        for block, count in enumerate((1000, 500))
    ]
    z = torch.from_numpy(np.concatenate(blocks))
    w = toy.mapping(z, torch.full((1500,), 2))
    assert found.shape == (2, 4)
    torch.testing.assert_close(found, w.mean(dim=0).expand(2, 4), rtol=0, atol=1e-6)


def test_a_centre_is_the_mean_shrunk_by_its_number_of_images(toy: Any) -> None:
    counts = [30, 10, 3]
    found = centres.class_centres(toy, counts, seed=1, n=200, k=10)
    towards = torch.full((2, 4), 0.25)
    assert found.shape == (3, 2, 4)
    for label, count in enumerate(counts):
        mean = centres.class_mean(toy, label, seed=1, n=200)
        expected = towards + count / (count + 10) * (mean - towards)
        torch.testing.assert_close(found[label], expected)
    plain = centres.class_centres(toy, counts, seed=1, n=200, k=0)
    # The toy's class c adds c / 4 to w, and all classes are mapped from the same z.
    torch.testing.assert_close(plain[2] - plain[0], torch.full((2, 4), 0.5))
    assert (found - towards).abs().sum() < (plain - towards).abs().sum()


def test_half_way_is_where_its_constant_says(toy: Any) -> None:
    mean, towards = torch.ones(2, 4), torch.zeros(2, 4)
    assert centres.shrunk(mean, towards, int(centres.HALF_WAY)).unique().tolist() == [0.5]


def test_truncation_goes_from_the_centre_to_w() -> None:
    ws, centre = torch.rand(3, 2, 4), torch.rand(3, 2, 4)
    assert torch.equal(centres.truncate(ws, 1, centre), ws)
    assert torch.equal(centres.truncate(ws, 0, centre), centre)
    torch.testing.assert_close(centres.truncate(ws, 0.25, centre), centre + 0.25 * (ws - centre))
    assert torch.equal(centres.truncate(ws, 0, centre[0])[2], centre[0])


def test_truncation_towards_the_global_centre_is_the_generators_own(toy: Any) -> None:
    ws = toy.ws(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    towards = toy.centre()
    torch.testing.assert_close(centres.truncate(ws, 0.5, towards), toy.truncate(ws, 0.5))


# --------------------------------------------------------------------- choice


def test_classes_stand_from_head_to_tail() -> None:
    assert head_to_tail([3, 9, 3, 50]) == [3, 1, 0, 2]
    assert shown_classes([3, 9, 3, 50]) == [3, 1, 0, 2]
    assert shown_classes(range(100), most=3) == [99, 49, 0]


def test_of_many_classes_a_hundred_and_those_shown_are_watched() -> None:
    assert watched_classes([3, 9, 3, 50]) == [0, 1, 2, 3]
    counts = list(range(1000, 0, -1))
    watched = watched_classes(counts)
    assert set(shown_classes(counts)) < set(watched)
    assert 100 <= len(watched) <= 120
    assert max(after - before for before, after in pairwise([0, *watched, 999])) <= 11


def test_few_classes_are_all_shown_and_of_many_those_that_are_named() -> None:
    names = [f"c{number}" for number in range(12)]
    few = chosen(names[:10], range(10, 0, -1))
    assert (few.labels, few.text) == (tuple(range(10)), "all classes, from head to tail")
    many = chosen(names, range(12, 0, -1))
    assert many.labels == (0, 1, 2, 5, 6, 7, 8, 9, 10, 11)
    assert many.text == (
        "10 of 12 classes (head: c0, c1, c2; middle: c5, c6, c7; tail: c8, c9, c10, c11)"
    )


def test_pairs_are_of_every_kind_and_none_stands_twice() -> None:
    assert pairs([5, 4, 3, 2, 1, 0]) == {
        "head and tail": [(0, 5), (1, 4)],
        "tail and tail": [(5, 4), (4, 3)],
        "head and head": [(0, 1), (1, 2)],
    }
    assert pairs([1, 9]) == {"head and tail": [(1, 0)]}
    assert pairs([7]) == {}
    for classes in range(2, 7):
        found = [frozenset(pair) for kind in pairs(range(classes)).values() for pair in kind]
        assert len(set(found)) == len(found)
        assert all(len(pair) == 2 for pair in found)


# --------------------------------------------------------------------- sweeps and strips


def opened(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def test_sweeps_have_a_row_a_class_and_end_at_the_centre_and_the_sample(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[Sheet] = []
    monkeypatch.setattr(
        "stylegan_mix.pictures.truncation.draw", lambda sheet: sheets.append(sheet) or draw(sheet)
    )
    found = sweeps(subject)
    assert [one.file for one in found] == ["truncation-class.png", "truncation-global.png"]
    own = sheets[0]
    assert list(own.left) == ["ant", "bee", "cat"]
    assert list(own.columns) == [f"{psi:g}" for psi in PSIS] * LATENTS
    assert own.right == ["30 (s 0.60)", "10 (s 0.33)", "3 (s 0.13)"]
    for sheet in sheets:
        for row, label in zip(sheet.cells, range(3), strict=True):
            # At psi 0 the latents are one image, at psi 1 the unmoved sample.
            assert np.array_equal(row[0], row[len(PSIS)])
            ws = subject.network.ws(subject.z("truncation", 1), torch.tensor([label]))
            assert np.array_equal(row[-1], subject.decoded(ws)[0])
            assert not np.array_equal(row[-1], row[len(PSIS) - 1])
    firsts = [[row[0] for row in sheet.cells] for sheet in sheets]
    assert np.array_equal(firsts[1][0], firsts[1][2])
    assert not np.array_equal(firsts[0][0], firsts[0][2])
    centre = centres.class_centres(subject.network, subject.counts, seed=5)
    assert np.array_equal(firsts[0][1], subject.decoded(centre[1][None])[0])
    for word in ("seed 5", "10,000", "n / (n + 20)", "all classes"):
        assert word in found[0].caption


def test_strips_end_in_the_unmixed_images_of_their_classes(subject: Subject) -> None:
    images = strip(subject, (0, 2), 4)
    assert images.shape == (11, 4, 4, 1)
    z = torch.from_numpy(rng.stream(5, "preview.z", 4).standard_normal((2, 1, 4), np.float32)[0])
    for place, label in ((0, 0), (-1, 2)):
        ws = subject.network.ws(z, torch.tensor([label]))
        expected = to_uint8(subject.network.synthesis(ws, noise="const", draws=rng.Draws()))
        assert np.array_equal(images[place], expected.numpy()[0])
    assert not np.array_equal(images[0], images[-1])


def test_strips_name_their_classes_and_one_class_has_none(
    subject: Subject, card: dict[str, Any]
) -> None:
    found = strips(subject)
    assert found is not None
    for words in ("head and tail: ant to cat", "tail and tail: cat to bee", "head and head: ant"):
        assert words in found.caption
    # Three rows of 4 pixels enlarged to 72, with gaps, below 50 + 20 + 30 pixels of text.
    assert found.size[1] == 50 + 20 + 30 + 3 * 76 + 12
    card["classes"], card["counts"] = ["ant"], [3]
    assert strips(subject) is None


def test_pictures_are_the_same_bytes_again_and_others_with_another_seed(
    subject: Subject, published: Any, toy: Any
) -> None:
    first, again = [*sweeps(subject), strips(subject)], [*sweeps(subject), strips(subject)]
    other = Subject(published, toy, 6)
    changed = [*sweeps(other), strips(other)]
    for one, same, different in zip(first, again, changed, strict=True):
        assert one is not None and same is not None and different is not None
        assert one.data == same.data != different.data
        assert Image.open(io.BytesIO(one.data)).size == one.size


def test_a_generator_that_draws_no_numbers_is_refused(subject: Subject, toy: Any) -> None:
    toy.weight.data.fill_(torch.nan)
    with pytest.raises(InvalidInput, match="not finite"):
        strip(subject, (0, 1), 0)


def test_captions_and_wider_gaps_have_their_place() -> None:
    image = np.full((72, 72, 3), 200, np.uint8)
    plain = Sheet("t", "n", ["a"], None, ["1", "2"], [[image, image]])
    grouped = Sheet("t", "n", ["a"], None, ["1", "2"], [[image, image]], group=1)
    told = Sheet("t", "n", ["a"], None, ["1", "2"], [[image, image]], captions=[["x", "y"]])
    sizes = [draw(sheet).size for sheet in (plain, grouped, told)]
    assert sizes[1] == (sizes[0][0] + 14, sizes[0][1])
    assert sizes[2] == (sizes[0][0], sizes[0][1] + 20)
    below = np.array(draw(told))[-32:, :, 0]
    assert (below < 200).any()


# --------------------------------------------------------------------- neighbours


def test_neighbours_are_those_of_a_plain_search() -> None:
    draws = np.random.default_rng(0)
    samples, images = draws.integers(0, 255, (6, 4, 4, 1)), draws.integers(0, 255, (9, 4, 4, 1))
    images[7] = samples[2]
    found = neighbours(samples, images)
    table = [[np.linalg.norm(a - b) for b in images.astype(float)] for a in samples.astype(float)]
    assert found.index.tolist() == np.argmin(table, axis=1).tolist()
    np.testing.assert_allclose(found.distance, np.min(table, axis=1), atol=1e-9)
    among = [
        min(np.linalg.norm(a - b) for j, b in enumerate(images.astype(float)) if j != i)
        for i, a in enumerate(images.astype(float))
    ]
    np.testing.assert_allclose(found.reals, among)
    assert found.ratio(2) == 0.0
    assert found.ratio(0) == pytest.approx(min(table[0]) / np.median(among))


def test_a_single_image_has_no_distance_to_another() -> None:
    found = neighbours(np.zeros((2, 3)), np.ones((1, 3)))
    assert (len(found.reals), found.ratio(0)) == (0, None)
    assert found.distance.tolist() == [pytest.approx(np.sqrt(3))] * 2


def test_samples_are_picked_by_the_rank_of_their_distance() -> None:
    labels = np.array([0] * 3 + [1] * 9)
    distance = np.array([9, 9, 9, 4, 0, 8, 2, 6, 1, 7, 3, 5.0])
    assert distance[picked(Judged(0, labels, distance), 1)].tolist() == [0, 2, 4, 6]
    assert len(picked(Judged(0, labels, distance), 2)) == 0


def test_rows_drawn_again_are_the_samples_of_the_report(toy: Any) -> None:
    labels = np.repeat(np.arange(3), 50)
    whole = drawn(toy, labels, seed=3, truncation=0.7).images
    rows = np.array([149, 0, BLOCK - 1, BLOCK, 70])
    again = redrawn(toy, labels, rows, seed=3, truncation=0.7)
    assert np.array_equal(again, whole[rows])


# --------------------------------------------------------------------- curves


LINES = [
    {
        "step": step,
        "kimg": 10.0 * step,
        "loss_g": 1.0 / step,
        "loss_d": 2.0 / step,
        "r1": 0.1,
        "seconds": 3.0,
        "ada.p.many": 0.1 * step,
        "ada.p.few": 0.2 * step,
        "sign": {"real": 0.5, "few": {"x": 1}},
        "diversity": [0.9, None, 0.5 + step],
        "spectral": [1.0, 2.0],
        "alarms": ["a word"],
        "on": True,
    }
    for step in (1, 2, 3)
]


def test_every_series_of_a_log_has_its_panel() -> None:
    found = {one.title: one for one in history.panels(LINES, ["ant", "bee", "cat"])}
    assert {title: list(one.series) for title, one in found.items()} == {
        "loss": ["loss_g", "loss_d"],
        "r1": ["r1"],
        "seconds": ["seconds"],
        "ada.p": ["ada.p.many", "ada.p.few"],
        "sign.real": ["sign.real"],
        "sign.few.x": ["sign.few.x"],
        "diversity": ["ant", "cat"],
        "spectral": ["0", "1"],
    }
    assert [title for title, one in found.items() if one.by_class] == ["diversity"]
    assert found["loss"].series["loss_d"].tolist() == [2.0, 1.0, 2.0 / 3]


def test_a_series_that_begins_late_has_gaps() -> None:
    lines = [{"kimg": 1.0, "a": 1.0}, {"kimg": 2.0, "a": float("nan"), "b": 5}]
    found = {one.title: one for one in history.panels(lines, [])}
    np.testing.assert_array_equal(found["b"].series["b"], [np.nan, 5.0])
    np.testing.assert_array_equal(found["a"].series["a"], [1.0, np.nan])


def test_a_log_is_read_up_to_the_budget_and_without_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    texts = [json.dumps(line) for line in LINES]
    path.write_text("\n".join([texts[2], texts[0], "[1]", "", '{"step": 4', texts[1], '{"a": 1}']))
    assert [line["kimg"] for line in history.read(path, kimg=20.0)] == [10.0, 20.0]
    assert len(history.read(path, kimg=99.0)) == 3


def test_the_log_is_found_by_the_key_of_the_training(home: Path) -> None:
    assert history.find_log(None) is None
    assert history.find_log("ab" * 32) is None
    place = home / "training" / ("ab" * 32) / "metrics.jsonl"
    place.parent.mkdir(parents=True)
    place.write_text("")
    assert history.find_log("ab" * 32) == place


def test_curves_are_drawn_the_same_again() -> None:
    names = [f"class ${number}$" for number in range(3)]
    first, again = (curves(LINES, names, [3, 2, 1], "seed 0") for _ in range(2))
    assert first is not None and again is not None
    assert first.data == again.data
    assert "3 lines to 30 thousand images" in first.caption
    assert curves([{"kimg": 1.0}], names, [3, 2, 1], "") is None


def test_of_many_classes_some_are_named_beside_their_curves() -> None:
    names = [f"class {number}" for number in range(30)]
    lines = [{"kimg": kimg, "diversity": [0.5] * 30} for kimg in (1.0, 2.0)]
    figure = plotted(history.panels(lines, names), np.array([1.0, 2.0]), names)
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert (len(told), told[0], told[-1]) == (10, "class 0", "class 29")
    assert len(figure.axes[0].lines) == 30


def test_a_log_of_one_line_is_written_as_numbers() -> None:
    line = {"kimg": 4.0, "loss_g": 1.25, "loss_d": 0.5, "diversity": [0.25, 0.75, float("nan")]}
    names = ["a", "b", "c"]
    figure = plotted(history.panels([line], names), np.array([4.0]), names)
    told = {axes.get_title(loc="left"): axes.texts[0].get_text() for axes in figure.axes}
    when = "\nafter 4 thousand images"
    assert told[f"Logistic losses{when}"].split("\n") == ["generator: 1.25", "discriminator: 0.5"]
    diversity = f"Diversity of samples: 1 as real images, 0 one picture{when}"
    assert told[diversity].split("\n") == ["a: 0.25", "b: 0.75"]
    assert not any(axes.lines for axes in figure.axes)
    many = [f"class {number}" for number in range(30)]
    line = {"kimg": 4.0, "diversity": [number / 10 for number in range(30)]}
    figure = plotted(history.panels([line], many), np.array([4.0]), many)
    assert figure.axes[0].texts[0].get_text() == "30 classes, 0 to 2.9"


DIGITS = [str(digit) for digit in range(10)]


def test_every_panel_of_a_real_log_is_in_words_with_units(home: Path) -> None:
    from tiny_training import tiny_plan

    from stylegan_mix.training.run import run_training

    changes = {"path_weight": 2.0, "path_interval": 2, "augment": "ada", "ada_groups": "shot"}
    rare = {"twins": 0.01, "gsr": 0.5, "precision": "float16"}
    plan = tiny_plan(0.064, **changes, **rare)
    run_training(plan)
    found = history.panels(history.read(plan.folder / "metrics.jsonl", kimg=1.0), DIGITS)
    for panel in found:
        words = log_words.words_for(panel.title, len(panel.series))
        assert words in log_words.WORDS.values() or panel.title == "ada_p", panel.title
        told = [words.title, words.unit, *(words.name(one) for one in panel.series)]
        assert not any("_" in text for text in told), told
    figure = plotted(found, np.array([0.064]), DIGITS)
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("few shot: " in text for text in shown)


def test_an_unknown_series_keeps_its_name_without_underscores() -> None:
    words = log_words.words_for("new_number", 1)
    assert (words.title, words.unit, words.name("new_number")) == (
        "new number",
        "value",
        "new number",
    )


def test_curves_have_units_on_both_axes() -> None:
    names = ["ant", "bee", "cat"]
    figure = plotted(history.panels(LINES, names), np.array([10.0, 20.0, 30.0]), names)
    for axes in figure.axes:
        assert axes.get_xlabel() == "thousand images shown, repeats included"
        assert axes.get_ylabel()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "generator",
        "discriminator",
    ]
