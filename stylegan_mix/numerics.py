"""The numerics class: everything, beside a request, that decides the last bit of a number.

torch is imported when a class is requested, so that keys can be read without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from stylegan_mix.errors import MissingEnvironment, UsageFailure

__all__ = ["Numerics", "numerics_class", "operators_on"]


@dataclass(frozen=True)
class Numerics:
    """Everything, beside the request, that decides the last bit of a pixel.

    `device` family ("cpu" with its instruction set, or "cuda-sm90"), `compute` dtype of the
    convolutions, `operators` of `kernels`, versions of `torch` and `numpy`.
    """

    device: str
    compute: str
    operators: str
    torch: str
    numpy: str

    def spec(self) -> dict[str, str]:
        """Lists the declared values."""
        return asdict(self)


def numerics_class(device: str, precision: str) -> Numerics:
    """Determines the numerics class of this process, on `device` in `precision`."""
    import torch

    if device.startswith("cuda"):
        # Random numbers of large tensors, and algorithms, depend on the number of multiprocessors.
        gpu = torch.cuda.get_device_properties(torch.device(device))
        family = f"cuda-sm{gpu.major}{gpu.minor}-{gpu.multi_processor_count}"
    else:
        family = f"cpu-{torch.backends.cpu.get_cpu_capability()}"
    return Numerics(family, precision, operators_on(device), str(torch.__version__), np.__version__)


def operators_on(device: str) -> str:
    """Names the operators: "reference", or the compiled ones by instruction set and digest.

    Equal names compute equal bits. `MissingEnvironment` (exit code 4) if KERNELS asks for compiled
    ones and there are none, `UsageFailure` (2) for an unknown value of it.
    """
    from kernels import NativeUnavailable, identity

    try:
        return identity(device)
    except NativeUnavailable as error:
        raise MissingEnvironment(str(error)) from error
    except ValueError as error:
        raise UsageFailure(str(error)) from error
