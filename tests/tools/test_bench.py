"""The benchmark of the operators in miniature: that it runs, and that another project fits in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import NativeUnavailable, native

# The plain composition, as another project might write it; it has no epilogue.
PEER = """
from torch.nn import functional

def bias_act(x, b, *, act, clamp):
    y = functional.leaky_relu(x + b[None, :, None, None], 0.2) * 2**0.5
    return y.clamp(-clamp, clamp)
"""


def benchmark(repo_root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/bench/kernels.py", "--threads", "1", "--rounds", "1", *options],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )


def test_a_peer_is_timed_in_every_pass_that_it_has(tmp_path: Path, repo_root: Path) -> None:
    try:
        native.library("cpu")
    except NativeUnavailable as error:
        pytest.skip(f"no compiled operators here: {error}")
    peer, out = tmp_path / "peer.py", tmp_path / "out.json"
    peer.write_text(PEER)
    done = benchmark(
        repo_root,
        *("--shape", "1x16x4x4", "--operator", "bias_act", "epilogue", "--beside"),
        *("--peer", str(peer), "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    if sys.platform.startswith("linux") and "GLIBC_TUNABLES" not in os.environ:
        assert result["allocator"] == "glibc.malloc.tcache_count=0"
    timed = {(row["operator"], row["pass"]): row["times"] for row in result["rows"]}
    for name in ("forward", "backward", "double backward"):
        assert set(timed["bias_act", name]) == {"native", "peer"}
        assert all(one["ms"] > 0 for one in timed["bias_act", name].values())
        assert set(timed["epilogue", name]) == {"native"}
    assert out.with_suffix(".png").stat().st_size > 0


def test_a_peer_that_is_not_there_is_named(tmp_path: Path, repo_root: Path) -> None:
    done = benchmark(repo_root, "--peer", str(tmp_path / "absent.py"))
    assert done.returncode != 0
    assert "absent.py: no such Python file" in done.stderr


def test_what_fusing_could_win_is_a_share_of_the_generator(tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, "tools/bench/fused_blur.py", "--threads", "1", "--rounds", "1"),
            *("--channels", "8", "--batch", "1", "--out", str(out)),
        ],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    ms = {name: one["ms"] for name, one in row["times"].items()}
    saved = sum(ms[f"both {size}"] - ms[f"filter {size}"] for size in (8, 16, 32))
    assert row["share_saved_at_most"] == pytest.approx(saved / ms["generator"], abs=2e-4)
