"""The benchmark of a classifier's step in miniature: that its variants do what they are called."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from trainer.spec import RunSpec

SPEC = RunSpec(model="resnet8", batch=4)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/bench/classifier.py, which changes the path when it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("KERNELS", "reference")
    return importlib.import_module("tools.bench.classifier")


def test_every_variant_runs_and_the_ratios_are_those_of_the_seconds(bench: ModuleType) -> None:
    seconds = bench.alternated(bench.variants(SPEC, 8), rounds=1)
    assert tuple(seconds) == bench.VARIANTS
    row = bench.summary(seconds, SPEC.batch)
    ratio = seconds["published"]["wall"] / seconds["ours"]["wall"]
    assert row["ratios_wall"]["ours over published"] == pytest.approx(ratio, abs=0.01)
    text = bench.table({"rows": [{"threads": 1, **row}, {"threads": 2, **row}]})
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:]] == [
        *("1, wall", "1, cpu"),
        "2, wall",
    ]


def test_the_convolutions_are_those_of_a_step(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    convolve = torch.nn.functional.conv2d
    call = bench.convolutions(SPEC, 8)
    monkeypatch.setattr(
        bench.functional,
        "conv2d",
        lambda x, *rest: seen.append(tuple(x.shape)) or convolve(x, *rest),
    )
    call()
    assert seen == [
        *((4, 3, 8, 8), (4, 16, 8, 8), (4, 16, 8, 8)),
        *((4, 16, 8, 8), (4, 32, 4, 4), (4, 32, 4, 4), (4, 64, 2, 2)),
    ]


def test_one_image_is_cropped_flipped_and_normalised(bench: ModuleType) -> None:
    """As an image of the padded one, or of its mirror image."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(1, 256, (8, 8, 3), dtype=np.uint8)
    half = torch.full((3, 1, 1), 0.5)
    planes = torch.from_numpy(np.pad(pixels, ((1, 1), (1, 1), (0, 0)))).permute(2, 0, 1) / 255
    crops = planes.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).reshape(9, 3, 8, 8)
    known = torch.cat([crops, crops.flip(3)])
    found = set()
    for _ in range(100):
        one = bench.one_image(pixels, draws, half, half) * 0.5 + 0.5
        (place,) = torch.nonzero((known - one).abs().amax((1, 2, 3)) < 1e-6)[:, 0].tolist()
        found.add(place)
    assert len(found) == 18


def test_the_table_of_the_page_is_that_of_the_file(bench: ModuleType, repo_root: Path) -> None:
    file = repo_root / "tools" / "results" / "classifier" / "steps-cpu.json"
    printed = bench.table(json.loads(file.read_text()))
    assert printed in (repo_root / "trainer" / "README.md").read_text()
