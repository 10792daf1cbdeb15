"""A GPU for machines that have none: tensors that compute on the CPU, and refuse what those of a GPU refuse.

What it finds: tensors of two devices in one operation, NumPy of a GPU's tensor, random generators of the wrong device,
results that end up on the wrong one. What it cannot find: kernels that do not exist, numbers that differ, memory. Some
operations of torch (attention, for one) go a way of their own on such tensors, which may leave them without values:
compare numbers only where they are known to arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

GPU = torch.device("meta")
"""The one kind of device that autograd serves as it serves the CPU, and on which no real tensor has values."""
CROSSING = {"aten::copy_", "aten::_to_copy"}
"""Operations that bring values from one device to another."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""They take indices from the CPU as well."""

FROM_DATA = ("tensor", "as_tensor", "asarray")


class RefusedByGpuError(RuntimeError):
    """What a GPU would not have done either. Never a TypeError: operators such as `+` keep these to themselves."""


@contextmanager
def simulated_gpu() -> Iterator[torch.device]:
    """While it lasts, the device is there. For one thread: meanwhile no other one may make tensors on real devices."""
    changed: dict[str, Any] = {name: _made_on_cpu(getattr(torch, name)) for name in FROM_DATA}
    changed["inference_mode"] = torch.no_grad  # which wrapped tensors do not know
    with patch.multiple(torch, **changed), _Mode():  # type: ignore[no-untyped-call]
        yield GPU


def _made_on_cpu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The values of Python's numbers first, then the device: of its own accord torch gives such a tensor no values."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(data, GpuTensor):
            return make(data, *args, device=device, **kwargs)
        tensor = make(data, *args, **kwargs)
        return tensor if device is None else tensor.to(device)

    return made


class GpuTensor(Tensor):
    """On the simulated GPU; its values are those of `held`, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> GpuTensor:
        """Wrap a tensor of the CPU."""
        made: GpuTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=GPU,
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held})"

    def tolist(self) -> Any:
        """Copied, as a GPU's."""
        return self.detach().held.tolist()  # type: ignore[attr-defined]

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """On the GPU as well."""
        return torch.tensor(data, **{"dtype": self.dtype, "device": GPU, **kwargs})

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as a GPU's."""
        if force:
            return self.detach().held.numpy()  # type: ignore[attr-defined]
        raise RefusedByGpuError("can't convert a GPU's tensor to numpy: use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Every operation on such tensors."""
        return _compute(func, args, kwargs or {})


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Also what makes tensors from nothing, or brings them here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """On the CPU; the result is on the GPU where the operation says so, or works on what is there."""
    name = func._schema.name
    tensors = list(_tensors((*args, *kwargs.values())))
    has_gpu = any(isinstance(one, GpuTensor) for one in tensors)
    if has_gpu:
        _refuse_mixing(name, tensors)
    to_gpu = _goes_to_gpu(name, tensors, kwargs.get("device"), has_gpu=has_gpu)
    generator = kwargs.get("generator")
    if to_gpu and generator is not None:
        raise RefusedByGpuError(f"expected a generator of the GPU, and this one is of the {generator.device}")
    result = func(*_each(_inner, args), **{key: _each(_inner, value) for key, value in kwargs.items()})
    if not to_gpu:
        return result
    if name == "aten::_to_copy" and any(result is _inner(one) for one in tensors):
        result = result.clone()
    result = _each(lambda one: GpuTensor(one) if type(one) is Tensor else one, result)
    if not (has_gpu and _returns_a_view(func)):
        return result
    return return_and_correct_aliasing(func, args, kwargs, result)  # type: ignore[no-untyped-call]


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for one in arguments:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from _tensors(one)


def _each(change: Callable[[Any], Any], values: Any) -> Any:
    """Of an operator's arguments or results, which are in lists and tuples at most; torch's own `tree_map`, for trees
    of any kind, takes several times as long.
    """
    if isinstance(values, (list, tuple)):
        return type(values)([_each(change, one) for one in values])
    return change(values)


@cache
def _returns_a_view(func: Any) -> bool:
    """Or one of its arguments."""
    return any(one.alias_info is not None for one in func._schema.returns)


def _goes_to_gpu(name: str, tensors: list[Tensor], device: Any, *, has_gpu: bool) -> bool:
    if name == "aten::copy_":  # into its first argument
        return isinstance(tensors[0], GpuTensor)
    return torch.device(device).type == GPU.type if device is not None else has_gpu


def _refuse_mixing(name: str, tensors: list[Tensor]) -> None:
    """Numbers without dimensions may come from the CPU, and so may indices."""
    if name in CROSSING:
        return
    strangers = [one for one in tensors if not isinstance(one, GpuTensor) and one.ndim > 0]
    if name in INDEXING and isinstance(tensors[0], GpuTensor):
        strangers = [one for one in strangers if one.dtype.is_floating_point]
    if strangers:
        raise RefusedByGpuError(f"expected all tensors of {name} on the same device, found a GPU and the CPU")


def _inner(one: Any) -> Any:
    if isinstance(one, GpuTensor):
        return one.held
    return torch.device("cpu") if isinstance(one, torch.device) else one
