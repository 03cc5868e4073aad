"""Names in pictures: every script is legible, long names keep both ends, none look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from stylegan_mix.columns import aligned, width
from stylegan_mix.drawing import lettering
from stylegan_mix.drawing.lettering import LONGEST, face_of, font, legible
from stylegan_mix.drawing.sheet import Sheet, draw

NAMES = {
    "Latin": "Großer Käfer",
    "Greek": "γάτα",
    "Cyrillic": "кошка",
    "Arabic": "قطة",
    "Hebrew": "חתול",
    "Chinese": "猫",
    "Japanese": "ねこ",
    "Korean": "고양이",
    "Hindi": "बिल्ली",
    "Thai": "แมว",
    "picture": "🦑",
    "formula": "$x^2$",
}


@pytest.fixture
def few_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no font but those of matplotlib."""
    own = [one for one in font_manager.fontManager.ttflist if "mpl-data" in one.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    lettering._other_face.cache_clear()


def boxes(text: str) -> bool:
    """Tells if a letter is drawn as the box for letters that a font does not have."""
    usual = font(20, text)
    empty = usual.getmask("\U000f0000")
    return any(bytes(usual.getmask(letter)) == bytes(empty) for letter in text if letter != " ")


@pytest.mark.parametrize("script", NAMES)
def test_no_letter_of_a_name_is_an_empty_box(few_fonts: None, script: str) -> None:
    (name,) = legible([NAMES[script]])
    assert name.strip() and not boxes(name)


def test_names_of_the_usual_font_stay_as_they_are(few_fonts: None) -> None:
    usual = [NAMES[script] for script in ("Latin", "Greek", "Cyrillic", "Arabic", "formula")]
    assert legible(usual) == usual


def test_other_names_are_written_in_latin_letters(few_fonts: None) -> None:
    assert legible(["猫", "ねこ", "고양이"]) == ["Mao", "neko", "GoYangI"]


def test_two_names_never_look_the_same(few_fonts: None) -> None:
    alike = ["猫", "貓", "Mao", "a\nb", "a b"]
    found = legible(alike)
    assert len(set(found)) == len(alike)
    assert found[0].startswith("Mao (") and found[1].startswith("Mao (")
    # The digits are the name's own, whatever stands beside it.
    assert legible(["x", "貓", "猫"])[2] == found[0]


def test_a_name_that_stands_twice_is_written_the_same(few_fonts: None) -> None:
    assert legible(["cat", "dog", "cat"]) == ["cat", "dog", "cat"]
    first, other, again = legible(["猫", "貓", "猫"])
    assert first == again != other


def test_names_at_both_sides_of_a_sheet_do_not_look_the_same(
    few_fonts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    original = ImageDraw.ImageDraw.text

    def recorded(
        self: ImageDraw.ImageDraw, xy: object, text: str, *rest: object, **how: object
    ) -> None:
        drawn.append(text)
        original(self, xy, text, *rest, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    cell = np.zeros((8, 8, 3), np.uint8)
    draw(Sheet("猫 preview", "", ["猫", "cat"], ["貓", "cat"], ["1"], [[cell], [cell]]))
    left, right = (name for name in drawn if name.startswith("Mao ("))
    assert left != right
    assert drawn.count("cat") == 2
    assert "Mao preview" in drawn


def test_long_names_keep_their_ends_and_stay_different() -> None:
    species = [
        "Animalia_Chordata_Aves_Passeriformes_Corvidae_Corvus_corax",
        "Animalia_Chordata_Aves_Passeriformes_Corvidae_Corvus_corone",
        "Animalia_Chordata_Aves_Galliformes_Corvidae_Corvus_corax",
    ]
    found = legible(species)
    assert len(set(found)) == 3
    assert all(name.startswith("Animalia") and len(name) <= LONGEST for name in found)
    assert found[1].endswith("Corvus_corone")


@pytest.mark.parametrize("name", ["", " ", "\n", "\x1b[31m", "\u200d", "\U000f0000", "a\tb"])
def test_a_name_without_letters_is_still_something_to_read(name: str) -> None:
    (found,) = legible([name])
    assert found.strip() and found.isprintable() and not boxes(found)


def test_a_font_of_the_machine_is_used_where_it_has_the_letters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, place in (("moveTo", (0, 0)), ("lineTo", (0, 700)), ("lineTo", (700, 0))):
        getattr(pen, move)(place)
    pen.closePath()
    built = FontBuilder(1000, isTTF=True)
    built.setupGlyphOrder([".notdef", "cat"])
    built.setupCharacterMap({ord("猫"): "cat"})
    built.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    built.setupHorizontalMetrics({".notdef": (500, 0), "cat": (800, 0)})
    built.setupHorizontalHeader(ascent=800, descent=-200)
    built.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    built.setupOS2()
    built.setupPost()
    built.save(tmp_path / "cats.ttf")
    entry = font_manager.ttfFontProperty(
        font_manager.get_font(str(tmp_path / "cats.ttf"))  # as addfont does
    )
    fonts = [*font_manager.fontManager.ttflist, entry]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    lettering._other_face.cache_clear()
    face = face_of("猫")
    lettering._other_face.cache_clear()
    assert face is not None
    assert legible(["猫"]) == ["猫"]
    canvas = Image.new("L", (40, 40))
    ImageDraw.Draw(canvas).text((2, 2), "猫", fill=255, font=font(30, "猫"))
    assert np.asarray(canvas).any()


def test_a_column_is_as_wide_as_its_letters_on_a_terminal() -> None:
    assert [width(text) for text in ("abc", "猫", "e\u0301", "")] == [3, 2, 1, 0]
    lines = aligned([["猫", "1"], ["abc", "22"]], right=[1])
    assert lines == ["猫    1", "abc  22"]
