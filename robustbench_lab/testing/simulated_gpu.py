"""A GPU for machines that have none: tensors that compute on the CPU, and refuse what those of a GPU refuse.

What it finds: tensors of two devices in one operation, NumPy of a GPU's tensor, random generators of the wrong device,
results that end up on the wrong one. What it cannot find: kernels that do not exist, numbers that differ, memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from robustbench_lab.errors import SkipCell

KIND = "simulated"
CROSSING = {"aten::copy_", "aten::_to_copy"}
"""Operations that bring values from one device to another."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""They take indices from the CPU as well."""


@contextmanager
def simulated_gpu() -> Iterator[torch.device]:
    """While it lasts, the device is there. Only in this thread.

    Raises SkipCell where this version of torch knows no backends in Python (before 2.10).
    """
    device = _device()
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor(..., device=...)` passes by here
    try:
        # Wrapped tensors know no inference mode.
        with patch.object(torch, "inference_mode", torch.no_grad), _Mode():  # type: ignore[no-untyped-call]
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)


@functools.cache
def _device() -> torch.device:
    """Made known to torch once in a process."""
    set_up = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if set_up is None:
        raise SkipCell(f"torch {torch.__version__} knows no backends in Python")
    set_up(rename=KIND)
    return torch.device(KIND, 0)


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
            device=_device(),
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held})"

    def tolist(self) -> Any:
        """Copied, as a GPU's."""
        return self.detach().held.tolist()  # type: ignore[attr-defined]

    def numpy(self, *, force: bool = False) -> Any:
        """Refused, as a GPU's."""
        if force:
            return self.detach().held.numpy()  # type: ignore[attr-defined]
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")

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
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    has_gpu = any(isinstance(one, GpuTensor) for one in tensors)
    if has_gpu:
        _refuse_mixing(name, tensors)
    to_gpu = _goes_to_gpu(name, tensors, kwargs.get("device"), has_gpu=has_gpu)
    generator = kwargs.get("generator")
    if to_gpu and generator is not None:
        raise RuntimeError(f"expected a generator of {KIND}, and this one is of {generator.device}")
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not to_gpu:
        return result
    if name == "aten::_to_copy" and any(result is _inner(one) for one in tensors):
        result = result.clone()
    result = tree_map(lambda one: GpuTensor(one) if type(one) is Tensor else one, result)
    if not has_gpu:
        return result
    return return_and_correct_aliasing(func, args, kwargs, result)  # type: ignore[no-untyped-call]


def _goes_to_gpu(name: str, tensors: list[Tensor], device: Any, *, has_gpu: bool) -> bool:
    if name == "aten::copy_":  # into its first argument
        return isinstance(tensors[0], GpuTensor)
    return torch.device(device).type == KIND if device is not None else has_gpu


def _refuse_mixing(name: str, tensors: list[Tensor]) -> None:
    """Numbers without dimensions may come from the CPU, and so may indices."""
    if name in CROSSING:
        return
    strangers = [one for one in tensors if not isinstance(one, GpuTensor) and one.ndim > 0]
    if name in INDEXING and isinstance(tensors[0], GpuTensor):
        strangers = [one for one in strangers if one.dtype.is_floating_point]
    if strangers:
        raise RuntimeError(f"expected all tensors of {name} on the same device, found {KIND}:0 and cpu")


def _inner(one: Any) -> Any:
    if isinstance(one, GpuTensor):
        return one.held
    return torch.device("cpu") if isinstance(one, torch.device) else one
