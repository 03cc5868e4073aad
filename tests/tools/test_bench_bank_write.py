"""The benchmark of `generate` in miniature: that it runs, and what its file says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_it_compares_a_bank_with_the_bare_network(repo_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bank-write.json"
    words = ("--side", "8", "--channels", "8", "--rows", "100", "--rounds", "2", "--threads", "1")
    done = subprocess.run(
        [sys.executable, "tools/bench/bank_write.py", *words, "--device", "cpu", "--out", str(out)],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    found = json.loads(out.read_text())
    assert found["schema"] == "bench-bank-write/1"
    (row,) = found["rows"]
    assert row["share"]["forward"] == 1
    assert row["images_s"].keys() == {"forward", "blocks", "bank"}
    assert row["images_s"]["bank"] < row["images_s"]["blocks"]
