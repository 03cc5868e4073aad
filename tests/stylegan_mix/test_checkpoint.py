"""Checkpoints: the same bytes back, and the one before when the newest is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import damage

from stylegan_mix import arrays, checkpoint
from stylegan_mix.errors import InvalidInput


def _trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def test_modules_and_optimisers_come_back_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = _trained()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "list": [1, 2.5, None],
    }
    checkpoint.save(tmp_path / "c", state, kind="run", facts={"epoch": 3})
    loaded, facts = checkpoint.load(tmp_path / "c", kind="run")
    assert facts == {"epoch": 3}
    assert loaded["list"] == [1, 2.5, None]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded["model"][name], tensor)
    _, other_optimizer = _trained()
    other_optimizer.load_state_dict(loaded["optimizer"])
    for one, two in zip(
        optimizer.state_dict()["state"].values(),
        other_optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert torch.equal(one["exp_avg_sq"], two["exp_avg_sq"])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(2.5, dtype=torch.bfloat16),
        torch.ones(2, 3, dtype=torch.float16),
        torch.tensor([True, False]),
        torch.zeros(0, 4),
        torch.arange(6).view(2, 3).t(),
    ],
    ids=["bfloat16", "float16", "bool", "empty", "transposed"],
)
def test_every_dtype_and_shape(tmp_path: Path, tensor: torch.Tensor) -> None:
    checkpoint.save(tmp_path / "c", {"t": tensor}, kind="run", facts={})
    loaded = checkpoint.load(tmp_path / "c", kind="run")[0]["t"]
    assert loaded.dtype == tensor.dtype
    assert torch.equal(loaded, tensor)


def test_two_are_kept_and_a_damaged_one_gives_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", "run")
    assert checkpoints.latest() is None
    for step in (1, 2, 3):
        checkpoints.save(step, {"t": torch.full((9,), float(step))}, {})
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "step-000000002",
        "step-000000003",
    ]
    damage(tmp_path / "c" / "step-000000003")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 2
    assert "step-000000003" in capsys.readouterr().err
    damage(tmp_path / "c" / "step-000000002")
    with pytest.raises(InvalidInput, match="every checkpoint"):
        checkpoints.latest()


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", "run")
    checkpoints.save(1, {"t": torch.zeros(9)}, {})
    damage(tmp_path / "c" / "step-000000001")
    checkpoints.save(1, {"t": torch.ones(9)}, {})
    found = checkpoints.latest()
    assert found is not None
    assert torch.equal(found[1]["t"], torch.ones(9))


def test_what_lies_ahead_of_the_step_that_is_saved_goes(tmp_path: Path) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", "run")
    for step in (1, 8, 9):
        checkpoints.save(step, {"t": torch.zeros(9)}, {})
    for step in (8, 9):
        damage(tmp_path / "c" / f"step-00000000{step}")
    for step, left in ((2, [2]), (3, [2, 3]), (4, [3, 4])):
        checkpoints.save(step, {"t": torch.ones(9)}, {})
        there = sorted(int(path.name[-1]) for path in (tmp_path / "c").iterdir())
        assert there == left


def test_a_forged_tree_of_names_is_no_checkpoint(tmp_path: Path) -> None:
    for number, tree in enumerate(
        [
            {"$tensor": ["t", "float32", [7]]},
            {"$tensor": ["t", "float32", [9], 1]},
            {"$tensor": ["t", ["float32"], [9]]},
            {"$names": [1]},
            {"$names": {"t": {}}},
        ]
    ):
        folder = tmp_path / f"{number}"
        facts = {"state": tree, "facts": {}}
        arrays.write(folder, {"t": np.zeros(9, np.float32)}, kind="run", facts=facts)
        with pytest.raises(InvalidInput, match="is not a checkpoint of kind 'run'"):
            checkpoint.load(folder, kind="run")


def test_a_checkpoint_of_the_same_step_stays_until_another_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", "run")
    checkpoints.save(1, {"t": torch.zeros(9)}, {})

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(1, {"t": torch.ones(9)}, {})
    found = checkpoints.latest()
    assert found is not None
    assert torch.equal(found[1]["t"], torch.zeros(9))


def test_the_hash_of_weights_sees_values_names_and_types() -> None:
    state = {"a": torch.zeros(3)}
    base = checkpoint.weights_sha256(state)
    assert checkpoint.weights_sha256({"a": torch.zeros(3)}) == base
    assert checkpoint.weights_sha256({"b": torch.zeros(3)}) != base
    assert checkpoint.weights_sha256({"a": torch.tensor([0.0, 0.0, 1e-40])}) != base
