"""A device that is not there: tensors hold their values on the CPU, say that they are `elsewhere`, and refuse to mix.

What a GPU would refuse, this refuses, in the same words: an operation on tensors of two devices, unless torch allows it
(single CPU numbers beside pointwise operations, CPU indices, copies), and numpy's view of what is not on the CPU. So a
forgotten `.to(device)` is found without a GPU. Importing this registers the device for the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "elsewhere"


class _Backend(_DummyBackendModule):
    """What torch asks of `torch.elsewhere`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """As on a GPU."""
        return [torch.bfloat16, torch.float16, torch.float32]


_setup_privateuseone_for_python_backend(NAME, _Backend())
DEVICE = torch.device(NAME, 0)

aten = torch.ops.aten
# Moves between devices, and what takes indices of the CPU.
_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten._unsafe_index_put.default,
}
# Not pointwise by torch's own tags, and yet they take one number of the CPU.
_WITH_NUMBERS = {
    aten.fill_.Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
    aten.index_fill.int_Tensor,
    aten.index_fill_.int_Tensor,
}


class Elsewhere(Tensor):
    """A tensor of that device.

    Attributes:
        here: its values, on the CPU; views of each other share memory there.
    """

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        """Say that these values are elsewhere."""
        assert not isinstance(here, Elsewhere)
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=DEVICE,
        )
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """Say what it is; values are not looked at, as this is for messages."""
        return f"Elsewhere({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        """Return the values, as a GPU's tensor does; torch's own method refuses subclasses."""
        return self.here.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be kept in a file as the CPU's values, as `map_location` would read them."""
        return self.here.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation on the CPU where a GPU would run it, and refuse it where that would."""
        kwargs = dict(kwargs or {})
        # In inference mode operations come whole that are made of others; those are what a GPU has.
        if (whole := function.decompose(*args, **kwargs)) is not NotImplemented:
            return whole
        check(function, args, kwargs)
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        # A view of a parameter is no inference tensor, so none of ours is.
        with torch.inference_mode(False), torch.no_grad():
            out = function(*unwrapped(args), **unwrapped(kwargs))
            if function._schema.is_mutable:
                return _written(function, args, kwargs, out)
            if asked is not None and torch.device(asked).type == "cpu":
                return out
            return tree_map_only(Tensor, Elsewhere, out)


def unwrapped(tree: Any) -> Any:
    """Return arguments with the values of their tensors."""
    return tree_map_only(Elsewhere, lambda tensor: tensor.here, tree)


def _written(function: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Any:
    """Return what an operation gives that writes into its arguments: these arguments themselves."""
    results = out if isinstance(out, tuple | list) else () if out is None else (out,)
    given = [
        value if isinstance(value, Tensor) else None
        for argument, value in zip(function._schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    given += [
        kwargs[argument.name]
        for argument in function._schema.arguments[len(args) :]
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name in kwargs
    ]
    for tensor in given:
        if isinstance(tensor, Elsewhere) and (
            tensor.shape != tensor.here.shape or tensor.stride() != tensor.here.stride()
        ):
            raise NotImplementedError(f"{function} changes the shape of a tensor that it writes into.")
    own = {id(unwrapped(one)): one for one in given if one is not None}
    made = tuple(own.get(id(one), one) for one in results)
    return made if isinstance(out, tuple | list) else made[0] if made else None


def check(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Raise `RuntimeError` where an operation mixes devices as no GPU would let it."""
    if function in _COPIES:
        return
    first = args[0] if args else None
    if function in _INDEXED:
        away = isinstance(first, Elsewhere)
        indices = [index for index in args[1] if isinstance(index, Tensor)]
        if not away and any(isinstance(index, Elsewhere) for index in indices):
            raise RuntimeError(
                f"{function}: indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        rest = [first, *args[2:3]]
    else:
        rest = [first, *args[1:], *kwargs.values()]
    tensors = [one for one in tree_flatten(rest)[0] if isinstance(one, Tensor)]
    if not any(isinstance(one, Elsewhere) for one in tensors):
        return
    numbers = torch.Tag.pointwise in function.tags or function in _WITH_NUMBERS or function in _INDEXED
    for one in tensors:
        if isinstance(one, Elsewhere):
            continue
        written = one is first and function._schema.is_mutable
        if one.dim() or not numbers or written:
            raise RuntimeError(
                f"{function}: Expected all tensors to be on the same device, but found at least two devices, "
                f"{DEVICE} and cpu! (shape {tuple(one.shape)})"
            )


def _empty(size: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return Elsewhere(torch.empty(size, dtype=dtype))


def _empty_strided(
    size: Sequence[int], stride: Sequence[int], *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    (target.here if isinstance(target, Elsewhere) else target).copy_(unwrapped(source))
    return target


def _made_here(operation: Any) -> Callable[..., Tensor]:
    """Return what makes a tensor on the CPU and says that it is elsewhere."""

    def kernel(*args: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return Elsewhere(operation(*args, dtype=dtype))

    return kernel


# What makes a tensor from nothing; every other operation has one of these among its arguments. torch's own ways to make
# a sequence resize an empty tensor, which can't be told to one that holds its values somewhere.
_KERNELS = torch.library.Library("aten", "IMPL")
for _name, _operation in (
    ("arange", aten.arange.default),
    ("arange.start", aten.arange.start),
    ("arange.start_step", aten.arange.start_step),
    ("linspace", aten.linspace.default),
    ("eye", aten.eye.default),
    ("randperm", aten.randperm.default),
):
    _KERNELS.impl(_name, _made_here(_operation), "PrivateUse1")
_KERNELS.impl("empty.memory_format", _empty, "PrivateUse1")
_KERNELS.impl("empty_strided", _empty_strided, "PrivateUse1")
_KERNELS.impl("_copy_from", _copy_from, "PrivateUse1")
