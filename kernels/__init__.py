"""The memory-bound operators of StyleGAN2: bias + activation, and FIR resampling.

Knows torch, and neither networks nor files. Importing this package compiles nothing.
"""

from __future__ import annotations

from kernels.backend import NativeUnavailable, backend
from kernels.bias_act import ACTIVATIONS, Activation, bias_act
from kernels.modulated_bias_act import modulated_bias_act
from kernels.native import identity
from kernels.upfirdn2d import setup_filter, upfirdn2d

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "NativeUnavailable",
    "backend",
    "bias_act",
    "identity",
    "modulated_bias_act",
    "setup_filter",
    "upfirdn2d",
]
