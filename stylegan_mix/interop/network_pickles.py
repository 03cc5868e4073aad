"""Network pickles of the StyleGAN2-ADA and StyleGAN3 publications in PyTorch, read as data.

Such a file is a pickled dictionary of networks. Every layer is one call, which would execute the
Python source in its argument and then set the attributes that come with it. Here the call returns
the attributes alone. Parameters lie in nested streams, one for each storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stylegan_mix.errors import InvalidInput
from stylegan_mix.interop.nvlabs import generator_settings
from stylegan_mix.interop.torch_files import TENSORS, Tensor, storage_maker
from stylegan_mix.pickles import (
    Budget,
    Names,
    OddArguments,
    called_with_nothing,
    instead_of,
    taken,
)
from stylegan_mix.showing import shown

__all__ = ["NETWORK", "TAKEN", "admitted", "settings_and_state"]

NETWORK = "G_ema"
"""The generator whose weights are the moving average."""
TAKEN = (NETWORK,)

# Most layers, parameters and buffers, counted each time they are reached; characters of a name.
_MOST_NAMED, _LONGEST_NAME = 10_000, 1_000
_GROUPS = ("_parameters", "_buffers", "_modules")
# Settings that change nothing but speed.
_NUMERICS = ("fused_modconv_default", "num_fp16_res")


@dataclass(frozen=True, slots=True)
class _Module:
    """A network or a layer: the name of its class, and its attributes."""

    name: str
    attributes: dict[Any, Any]


def admitted(budget: Budget) -> Names:
    """Lists the names that a network pickle may refer to."""
    return {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _module,
        ("torch.storage", "_load_from_bytes"): storage_maker(budget),
        ("dnnlib.util", "EasyDict"): called_with_nothing(dict),
        ("dnnlib.tflib.network", "Network"): _tensorflow,
        **TENSORS,
    }


def _module(arguments: tuple[Any, ...]) -> _Module:
    """Replaces `_reconstruct_persistent_obj`, which would execute the source in its argument."""
    (meta,) = taken(arguments, dict)
    name, attributes = meta.get("class_name"), meta.get("state")
    if meta.get("type") != "class" or type(name) is not str or type(attributes) is not dict:
        raise OddArguments("no description of a class and its state")
    return _Module(shown(name), attributes)


def _tensorflow(_: tuple[Any, ...]) -> Any:
    raise InvalidInput(
        "it is a network pickle of the TensorFlow publications, another format",
        remedy="convert it with the converter that came with the PyTorch publication (it runs the "
        "file: only for files you trust), then import the .pkl that this writes",
    )


def settings_and_state(root: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Finds the generator in the pickle: our keyword arguments, and state by published names."""
    if type(root) is not dict or type(root.get(NETWORK)) is not _Module:
        raise InvalidInput(f"it has no network under '{NETWORK}', but {instead_of(root, NETWORK)}")
    module: _Module = root[NETWORK]
    state = _state(module)
    if any(name.startswith("synthesis.input.") for name in state):
        raise InvalidInput(
            "it is a StyleGAN3 generator (synthesis.input), which has other layers",
            remedy="StyleGAN2 generators are read, those of the StyleGAN3 publication included",
        )
    return generator_settings(_published_settings(module.attributes)), state


def _state(network: _Module) -> dict[str, Tensor]:
    """Collects parameters and buffers of a network and of its inner layers, by dotted name."""
    state: dict[str, Tensor] = {}
    waiting, named = [("", network)], 0
    while waiting:
        prefix, module = waiting.pop()
        parameters, buffers, modules = (_group(module, group) for group in _GROUPS)
        named += len(parameters) + len(buffers) + len(modules)
        longest = max(map(len, [*parameters, *buffers, *modules]), default=0)
        if named > _MOST_NAMED or len(prefix) + longest > _LONGEST_NAME:
            raise InvalidInput(
                f"it has more than {_MOST_NAMED:,} layers and tensors, or an endless chain or name"
            )
        for name, tensor in {**parameters, **buffers}.items():
            if type(tensor) is Tensor:
                state[f"{prefix}{name}"] = tensor
            elif tensor is not None:
                raise InvalidInput(f"its '{shown(prefix + name)}' is no tensor")
        for name, inner in modules.items():
            if type(inner) is not _Module:
                raise InvalidInput(f"its '{shown(prefix + name)}' is no layer of the publications")
            waiting.append((f"{prefix}{name}.", inner))
    return state


def _group(module: _Module, group: str) -> dict[str, Any]:
    found = module.attributes.get(group, {})
    if type(found) is not dict or not all(type(name) is str for name in found):
        raise InvalidInput(f"its {module.name} has no named {group}")
    return found


def _published_settings(attributes: dict[Any, Any]) -> dict[str, Any]:
    """Makes the `meta` of `nvlabs` from the arguments that the network was constructed with.

    The arguments of the synthesis network stand under a name of their own, or beside the others.
    """
    given = attributes.get("_init_kwargs")
    if type(given) is not dict or attributes.get("_init_args"):
        raise InvalidInput(f"its {NETWORK} does not say by name how it was constructed")
    own = dict(given)
    try:
        meta = {
            "c_dim": own.pop("c_dim"),
            "resolution": own.pop("img_resolution"),
            "img_channels": own.pop("img_channels"),
        }
    except KeyError as error:
        raise InvalidInput(f"its {NETWORK} was constructed without {error}") from error
    mapping, synthesis = own.pop("mapping_kwargs", {}), own.pop("synthesis_kwargs", {})
    if type(mapping) is not dict or type(synthesis) is not dict:
        raise InvalidInput(f"its {NETWORK} was constructed with settings that have no names")
    widths = {name: own.pop(name) for name in ("z_dim", "w_dim") if name in own}
    synthesis = {
        name: value for name, value in {**synthesis, **own}.items() if name not in _NUMERICS
    }
    return {**meta, "G": {**widths, "mapping_kwargs": mapping, "synthesis_kwargs": synthesis}}
