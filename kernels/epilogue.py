"""The fused epilogue as operators of PyTorch: y = clamp(gain * act(x * d + noise * strength + b)).

`bias_act` is this operator without d and noise. Three operators are registered:
`kernels::epilogue`, its backward pass and the backward pass of that. Each has a fake kernel, so
that `torch.compile`, `make_fx` and double differentiation see nothing but operators. The formulas
stand in `csrc/abi.h`; shapes, layouts and the tensors kept for the backward pass stand here.
"""

from __future__ import annotations

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from kernels import abi, launch, registration
from kernels.layout import accumulation_dtype, dense, dense_like, planes, small

__all__ = ["apply"]

_PIECEWISE_LINEAR = tuple(abi.ACTS[name] for name in ("linear", "relu", "lrelu"))

_OPERANDS = "Tensor? d, Tensor? noise, Tensor? strength, Tensor? b"
_FACTS = "int dim, int act, float alpha, float gain, float clamp"
# d, noise, strength, b and dim, act, alpha, gain, clamp: taken by every operator after the images.
_Operands = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
_Facts = tuple[int, int, float, float, float]


def apply(
    x: Tensor,
    d: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Calls the registered operator with checked arguments; the small ones in any floating dtype.

    x, and the result, of any shape with C channels along `dim`; b [C] or None. With d [N,C], noise
    [N or 1,1,H,W] or strength (one element), each of which may be None, x is [N,C,H,W] and `dim` 1.
    """
    return _epilogue(
        x,
        small(d, x),
        small(noise, x),
        small(strength, x),
        small(b, x),
        dim % x.ndim if b is not None else 1,
        abi.ACTS[act],
        alpha,
        gain,
        -1.0 if clamp is None else clamp,
    )


def _described(x: Tensor, operands: _Operands, facts: _Facts, from_output: bool) -> abi.Epilogue:
    """Fills the structure of abi.h; it keeps alive the tensors that it points to."""
    d, noise, strength, b = (None if one is None else one.contiguous() for one in operands)
    dim, act, alpha, gain, clamp = facts
    if d is None and noise is None and b is None:
        last, n, c, p = False, 1, 1, x.numel()
    else:
        last, n, c, p = planes(x, dim, samples=d is not None or noise is not None)
    described = abi.Epilogue(
        dtype=abi.DTYPES[x.dtype],
        layout=int(last),
        act=act,
        from_output=from_output,
        n=n,
        c=c,
        p=p,
        noise_n=0 if noise is None else len(noise),
        alpha=alpha,
        gain=gain,
        clamp=clamp,
        d=launch.address(d),
        noise=launch.address(noise),
        strength=launch.address(strength),
        b=launch.address(b),
    )
    described.tensors = (d, noise, strength, b)
    return described


def _forward(x: Tensor, d: Any, noise: Any, strength: Any, b: Any, *facts: Any) -> Tensor:
    x = dense(x, facts[0])
    y = torch.empty_like(x)
    described = _described(x, (d, noise, strength, b), facts, False)
    with launch.calling(x) as call:
        call.library.kernels_epilogue(byref(described), x.data_ptr(), y.data_ptr(), byref(call.run))
    return y


def _sums(x: Tensor, operands: _Operands, wanted: list[bool]) -> list[Tensor]:
    """Makes empty gradients of d, strength and b; those not wanted have no element."""
    d, _, strength, b = operands
    places = zip((d, strength, b), wanted, strict=True)
    dtype = accumulation_dtype(x.dtype)
    return [
        x.new_empty(0 if one is None or not want else one.shape, dtype=dtype)
        for one, want in places
    ]


def _image(pattern: Tensor, wanted: bool) -> Tensor:
    return torch.empty_like(pattern) if wanted else pattern.new_empty(0)


def _backward_outputs(dy: Tensor, saved: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *operands, dim, _, _, _, _, _, wanted = rest
    saved = dense(saved, dim)
    return _image(saved, wanted[0]), *_sums(saved, tuple(operands), wanted[1:])


def _backward(dy: Tensor, saved: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    operands, facts, from_output, wanted = rest[:4], rest[4:9], rest[9], rest[10]
    saved = dense(saved, facts[0])
    dy = dense_like(dy, saved)
    outputs = _backward_outputs(dy, saved, *rest)
    described = _described(saved, operands, facts, from_output)
    dx, dd, dstrength, db = map(launch.wanted_address, outputs, wanted)
    gradients = abi.EpilogueBackward(
        x=saved.data_ptr(), dy=dy.data_ptr(), dx=dx, dd=dd, dstrength=dstrength, db=db
    )
    with launch.calling(saved) as call:
        size = call.library.kernels_epilogue_backward_workspace(byref(described), byref(gradients))
        call.reserve(size)
        call.library.kernels_epilogue_backward(byref(described), byref(gradients), byref(call.run))
    return outputs


def _double_backward_outputs(dy: Tensor, saved: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *operands, dim, _, _, _, _, _, _, _, _, _, wanted = rest
    saved = dense(saved, dim)
    images = _image(saved, wanted[0]), _image(saved, wanted[1])
    return *images, *_sums(saved, tuple(operands), wanted[2:])


def _double_backward(dy: Tensor, saved: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    operands, facts, from_output = rest[:4], rest[4:9], rest[9]
    gdx, gdd, gdstrength, gdb = rest[10:14]
    wanted = rest[14]
    saved = dense(saved, facts[0])
    dy = dense_like(dy, saved)
    gdx = None if gdx is None else dense_like(gdx, saved)
    sums = [None if one is None else one.contiguous() for one in (gdd, gdstrength, gdb)]
    outputs = _double_backward_outputs(dy, saved, *rest)
    described = _described(saved, operands, facts, from_output)
    gdy, gx, gd, gstrength, gb = map(launch.wanted_address, outputs, wanted)
    gradients = abi.EpilogueDoubleBackward(
        x=saved.data_ptr(),
        dy=dy.data_ptr(),
        gdx=launch.address(gdx),
        gdd=launch.address(sums[0]),
        gdstrength=launch.address(sums[1]),
        gdb=launch.address(sums[2]),
        gdy=gdy,
        gx=gx,
        gd=gd,
        gstrength=gstrength,
        gb=gb,
    )
    with launch.calling(saved) as call:
        size = call.library.kernels_epilogue_double_backward_workspace(
            byref(described), byref(gradients)
        )
        call.reserve(size)
        call.library.kernels_epilogue_double_backward(
            byref(described), byref(gradients), byref(call.run)
        )
    return outputs


# ------------------------------------------------------------------ fake kernels and autograd


def _forward_fake(x: Tensor, d: Any, noise: Any, strength: Any, b: Any, *facts: Any) -> Tensor:
    return torch.empty_like(dense(x, facts[0]))


def _reads_output(d: Tensor | None, facts: _Facts) -> bool:
    """Tells if the derivative can be read off y, so that x need not be kept (see abi.h)."""
    _, act, alpha, gain, _ = facts
    return d is None and act in _PIECEWISE_LINEAR and alpha >= 0 and gain > 0


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *operands = inputs[:5]
    ctx.facts = inputs[5:]
    ctx.from_output = _reads_output(operands[0], ctx.facts)
    ctx.save_for_backward(output if ctx.from_output else x, *operands)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    saved, *operands = ctx.saved_tensors
    if ctx.from_output:
        # Piecewise constant in y: nothing flows back to it, and autograd need not look.
        saved = saved.detach()
    x, d, _, strength, b = ctx.needs_input_grad[:5]
    wanted = [x, d, strength, b]
    gradients = _epilogue_backward(dy, saved, *operands, *ctx.facts, ctx.from_output, wanted)
    dx, dd, dstrength, db = _only(gradients, wanted)
    return dx, dd, None, dstrength, db, *[None] * 5


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.facts, ctx.from_output, ctx.wanted = inputs[6:11], inputs[11], inputs[12]
    ctx.save_for_backward(*inputs[:6])
    ctx.set_materialize_grads(False)


def _differentiate_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    dy, saved, *operands = ctx.saved_tensors
    gradients = _only(cotangents, ctx.wanted)
    needs_dy, needs_saved, needs_d, _, needs_strength, needs_b = ctx.needs_input_grad[:6]
    wanted = [needs_dy, needs_saved, needs_d, needs_strength, needs_b]
    found = _epilogue_double_backward(
        dy, saved, *operands, *ctx.facts, ctx.from_output, *gradients, wanted
    )
    gdy, gx, gd, gstrength, gb = _only(found, wanted)
    return gdy, gx, gd, None, gstrength, gb, *[None] * 7


def _only(values: Any, wanted: list[bool]) -> list[Tensor | None]:
    return [value if want else None for value, want in zip(values, wanted, strict=True)]


def _refuse_third_order(ctx: Any, *_: Tensor | None) -> None:
    raise NotImplementedError(
        "the compiled epilogue is differentiable twice; for a third derivative set "
        "KERNELS=reference"
    )


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    pass


_epilogue = registration.register(
    f"epilogue(Tensor x, {_OPERANDS}, {_FACTS}) -> Tensor",
    kernel=_forward,
    fake=_forward_fake,
    keep=_keep,
    differentiate=_differentiate,
)
_epilogue_backward = registration.register(
    f"epilogue_backward(Tensor dy, Tensor saved, {_OPERANDS}, {_FACTS}, bool from_output, "
    "bool[] wanted) -> (Tensor dx, Tensor dd, Tensor dstrength, Tensor db)",
    kernel=_backward,
    fake=_backward_outputs,
    keep=_keep_backward,
    differentiate=_differentiate_backward,
)
_epilogue_double_backward = registration.register(
    f"epilogue_double_backward(Tensor dy, Tensor saved, {_OPERANDS}, {_FACTS}, bool from_output, "
    "Tensor? gdx, Tensor? gdd, Tensor? gdstrength, Tensor? gdb, bool[] wanted) -> "
    "(Tensor gdy, Tensor gx, Tensor gd, Tensor gstrength, Tensor gb)",
    kernel=_double_backward,
    fake=_double_backward_outputs,
    keep=_keep_nothing,
    differentiate=_refuse_third_order,
)
