"""Files of other projects, written for tests: the publishers' own could not be had.

Their forms follow the publishers' own. Classes of foreign modules exist only while a file is
written, under the names that the format refers to.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

CANARY = "source-was-executed"
SOURCE = f"import pathlib\npathlib.Path({CANARY!r}).write_text('x')\n" + "# code\n" * 500

SMALL = {
    "c_dim": 0,
    "resolution": 8,
    "img_channels": 1,
    "G": {
        "z_dim": 4,
        "w_dim": 4,
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": {"channel_base": 32, "channel_max": 4, "conv_clamp": 256},
    },
}
"""Settings of a small published network without classes."""

BUFFERS = ("resample_filter", "noise_const", "w_avg")


# --------------------------------------------------------------------- network pickles


class Layer:
    """A layer as the persistence of the publication pickles it: one call with its description."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.name, self.state = name, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": self.name,
            "state": self.state,
        }
        call = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return call, (meta,), None


@contextmanager
def foreign_modules() -> Iterator[type]:
    """Registers the names that the pickles refer to; gives the class of plain attributes."""

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("nobody calls this")

    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    contents: dict[str, dict[str, Any]] = {
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": easy},
    }
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    for name, attributes in contents.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        sys.modules[name] = module
    try:
        yield easy
    finally:
        for name in contents:
            del sys.modules[name]


def layer(state: Mapping[str, np.ndarray], name: str, **attributes: Any) -> Layer:
    """A layer with the parameters, buffers and inner layers that dotted names describe."""
    own = {key: value for key, value in state.items() if "." not in key}
    inner: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state.items():
        first, dot, rest = key.partition(".")
        if dot:
            inner.setdefault(first, {})[rest] = value
    parameters = {
        key: torch.nn.Parameter(torch.from_numpy(value.copy()))
        for key, value in own.items()
        if key not in BUFFERS
    }
    buffers = {key: torch.from_numpy(own[key].copy()) for key in own if key in BUFFERS}
    return Layer(
        name,
        {
            "training": False,
            "_parameters": OrderedDict(parameters, nothing=None),
            "_buffers": OrderedDict(buffers),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_is_full_backward_hook": None,
            "_modules": OrderedDict((key, layer(part, "Layer")) for key, part in inner.items()),
            "act_gain": np.sqrt(np.float64(2)),
            "padding": [1, 1],
            **attributes,
        },
    )


def init_kwargs(meta: Mapping[str, Any], easy: type = dict, *, flat: bool = False) -> Any:
    """What the network of a golden file was constructed with; `flat` as StyleGAN3 does."""
    own = meta["G"]
    synthesis = {**own["synthesis_kwargs"], "num_fp16_res": 4}
    nested = (
        {**synthesis, "fused_modconv_default": "inference_only"}
        if flat
        else {"synthesis_kwargs": easy(synthesis)}
    )
    return easy(
        c_dim=meta["c_dim"],
        img_resolution=meta["resolution"],
        img_channels=meta["img_channels"],
        z_dim=own["z_dim"],
        w_dim=own["w_dim"],
        mapping_kwargs=easy(own["mapping_kwargs"]),
        **nested,
    )


def network_pickle(
    path: Path,
    state: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    *,
    flat: bool = False,
    protocol: int = 4,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a network pickle of the publication; `changes` are of the init arguments."""
    with foreign_modules() as easy:
        kwargs = init_kwargs(meta, easy, flat=flat)
        kwargs.update(changes or {})
        arguments = {"_init_args": (), "_init_kwargs": kwargs}
        average = layer(state, "Generator", **arguments)
        content = {
            "G": layer({"weight": np.ones((2, 2), np.float32)}, "Generator"),
            "D": layer({"weight": np.ones((2, 2), np.float32)}, "Discriminator"),
            "G_ema": average,
            "training_set_kwargs": easy(class_name="Folder", path="/data/x.zip", max_size=None),
            "augment_pipe": None,
        }
        path.write_bytes(pickle.dumps(content, protocol))
    return path


# --------------------------------------------------------------------- the PyTorch port


def port_state(golden: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A published unconditional state under the port's names, name by name."""
    found: dict[str, np.ndarray] = {}
    for name, value in golden.items():
        where, _, kind = name.rpartition(".")
        parts = where.split(".")
        if name == "mapping.w_avg":
            continue
        if parts[0] == "mapping":
            found[f"style.{int(parts[1].removeprefix('fc')) + 1}.{kind}"] = value
            continue
        step = int(np.log2(int(parts[1].removeprefix("b")))) - 3  # -1 is 4x4, 0 is 8x8
        if kind == "const":
            found["input.input"] = value[None]
            continue
        if len(parts) == 2:  # the filter of a block, that up-samples its image
            if step >= 0:
                found[f"to_rgbs.{step}.upsample.kernel"] = 4 * value
            continue
        if parts[2] == "torgb":
            theirs = "to_rgb1" if step < 0 else f"to_rgbs.{step}"
            renamed = {"weight": "conv.weight", "bias": "bias"}.get(kind)
            if parts[3:] == ["affine"]:
                found[f"{theirs}.conv.modulation.{kind}"] = value
            else:
                axes = value[None] if kind == "weight" else value.reshape(1, -1, 1, 1)
                found[f"{theirs}.{renamed}"] = axes
            continue
        number = 2 * step + int(parts[2].removeprefix("conv"))  # -1 is conv1
        theirs = "conv1" if step < 0 else f"convs.{number}"
        if parts[3:] == ["affine"]:
            found[f"{theirs}.conv.modulation.{kind}"] = value
        elif kind == "weight":
            found[f"{theirs}.conv.weight"] = value[None]
        elif kind == "bias":
            found[f"{theirs}.activate.bias"] = value
        elif kind == "noise_strength":
            found[f"{theirs}.noise.weight"] = value.reshape(1)
        elif kind == "noise_const":
            found[f"noises.noise_{number + 1 if step >= 0 else 0}"] = value[None, None]
        elif parts[2] == "conv0":
            found[f"{theirs}.conv.blur.kernel"] = 4 * value
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def port_content(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the port saves beside the averaged generator."""
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = torch.optim.Adam([weight], lr=0.002, betas=(0.0, 0.99))
    weight.sum().backward()
    optimizer.step()
    ordered = OrderedDict(state)
    ordered._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return {
        "g": {"weight": torch.ones(4)},
        "d": OrderedDict(weight=torch.ones(4)),
        "g_ema": ordered,
        "g_optim": optimizer.state_dict(),
        "d_optim": optimizer.state_dict(),
        "args": argparse.Namespace(size=16, latent=16, n_mlp=8, path="/data", lr=0.002),
        "ada_aug_p": 0.0,
    }


def port_file(path: Path, content: Any, *, legacy: bool = False) -> Path:
    """Writes it with `torch.save`, in today's format or in that before PyTorch 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


# --------------------------------------------------------------------- pickles by hand


def root(value: Any, protocol: int = 4) -> bytes:
    """The pickle of a network under the name that is looked for."""
    return pickle.dumps({"G_ema": value}, protocol)


def stored(numbers: np.ndarray, *, count: int | None = None) -> bytes:
    """The stream of a single storage; `count` is what it declares instead of what it has."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # storages with a type are deprecated
        storage = torch.from_numpy(numbers.reshape(-1).copy()).storage()
        torch.save(storage, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    if count is None:
        return content
    # The count stands behind the device: X\x03\x00\x00\x00cpu q\x03 K<count>.
    at = content.index(b"cpu") + 5
    assert content[at : at + 2] == b"K" + bytes([numbers.size])
    return content[:at] + b"J" + count.to_bytes(4, "little") + content[at + 2 :]
