"""Which operators of `kernels` the networks run on, for keys, cards and errors."""

from __future__ import annotations

from kernels import NativeUnavailable, identity
from stylegan_mix.errors import MissingEnvironment, UsageFailure

__all__ = ["operators_on"]


def operators_on(device: str) -> str:
    """ "reference", or the compiled ones by instruction set and digest: equal where bits are.

    `MissingEnvironment` (exit code 4) if KERNELS asks for compiled ones and there are none,
    `UsageFailure` (2) for an unknown value of it.
    """
    try:
        return identity(device)
    except NativeUnavailable as error:
        raise MissingEnvironment(str(error)) from error
    except ValueError as error:
        raise UsageFailure(str(error)) from error
