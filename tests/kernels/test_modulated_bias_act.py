"""What modulated_bias_act refuses; its values are in the table of test_operators.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels import modulated_bias_act

pytestmark = pytest.mark.usefixtures("implementation")

NOISE: dict[str, Any] = {"noise": torch.zeros(2, 1, 4, 4), "strength": torch.tensor(0.5)}
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tensor": ({"x": [1.0]}, TypeError, "`x` must be a floating-point tensor, got list"),
    "integers": ({"x": torch.zeros(2, 3, 4, 4).int()}, TypeError, "`x` .*got torch.int32 on cpu"),
    "axes": ({"x": torch.zeros(2, 3)}, ValueError, r"`x` must have .*H, W\], got \[2, 3\]"),
    "no scale": ({"d": None}, TypeError, "`d` must be a floating-point tensor .*got NoneType"),
    "scale type": ({"d": torch.ones(2, 3).int()}, TypeError, "`d` .*got torch.int32 on cpu"),
    "scale device": ({"d": torch.ones(2, 3, device="meta")}, TypeError, "`d` .*cpu.*is on meta"),
    "scale size": ({"d": torch.ones(3, 2)}, ValueError, r"`d` .*\[2, 3\].*got \[3, 2\]"),
    "bias size": ({"b": torch.zeros(4)}, ValueError, r"`b` .*\[3\] to match axis 1 .*got \[4\]"),
    "bias type": ({"b": torch.zeros(3).half()}, TypeError, "`b` .*float32 on cpu.*float16 on cpu"),
    "bias device": ({"b": torch.zeros(3, device="meta")}, TypeError, "`b` .*on cpu .*on meta"),
    "activation": ({"act": "gelu"}, ValueError, "`act` must be one of .*got 'gelu'"),
    "noise alone": ({"noise": NOISE["noise"]}, ValueError, "`noise` and `strength` come together"),
    "strength alone": ({"strength": NOISE["strength"]}, ValueError, "come together"),
    "noise type": ({**NOISE, "noise": 0.1}, TypeError, "`noise` .*got float"),
    "noise device": (
        {**NOISE, "noise": torch.zeros(2, 1, 4, 4, device="meta")},
        TypeError,
        "`noise` must be on cpu as `x`, but is on meta",
    ),
    "noise size": (
        {**NOISE, "noise": torch.zeros(3, 1, 4, 4)},
        ValueError,
        r"`noise` .*\[N or 1, 1, H, W\].*got \[3, 1, 4, 4\]",
    ),
    "noise gradient": (
        {**NOISE, "noise": torch.zeros(2, 1, 4, 4, requires_grad=True)},
        ValueError,
        "`noise` is a constant",
    ),
    "strength type": ({**NOISE, "strength": 0.5}, TypeError, "`strength` .*got float"),
    "strength device": (
        {**NOISE, "strength": torch.tensor(0.5, device="meta")},
        TypeError,
        r"`strength` must be on cpu .*is on meta; move it with \.to\('cpu'\)",
    ),
    "strength size": (
        {**NOISE, "strength": torch.ones(2)},
        ValueError,
        r"`strength` must have one element, got \[2\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_was_expected_and_what_came(name: str) -> None:
    change, kind, message = BAD[name]
    with pytest.raises(kind, match=f"^modulated_bias_act: .*{message}"):
        modulated_bias_act(**{"x": torch.zeros(2, 3, 4, 4), "d": torch.ones(2, 3), **change})
