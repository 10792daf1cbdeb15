"""Weights from a user's own file: only tensors are read, never pickled code.

torch is imported inside the functions, so that a factory module may import this one cheaply.
"""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile, ZipFile, is_zipfile

from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import existing_file, listed

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

MatchBy = Literal["name", "order"]
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts commonly keep the state_dict."""
PARALLEL_PREFIX = "module."
"""What `nn.DataParallel` puts before every name."""
BATCH_COUNTER = "num_batches_tracked"
"""Not used in evaluation, and absent from files of old versions."""


@dataclass(frozen=True)
class _Checkpoint:
    tensors: dict[str, Tensor]
    unwrapping: str
    """What was taken off to get at the tensors, for errors."""
    versions: Mapping[str, Any] | None = None
    """What `Module.state_dict` notes beside the tensors: some modules read files of their older versions by it."""


def load_state_dict(path: str, entry: str | None = None) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a state_dict that `torch.save` wrote, on the CPU.

    A checkpoint's `state_dict`, `model_state_dict`, `model` or `net` entry is taken out, and the prefix `module.` off.
    entry: of a file that holds several checkpoints, the one that is meant. Raises UsageError.
    """
    return _read_checkpoint(path, entry).tensors


def apply_weights(model: nn.Module, path: str, source: str, by: MatchBy = "name") -> None:
    """Load the file into the model: every tensor of the one must be in the other.

    by: `name`; or `order`, for a file whose tensors come in the model's order under other names, checked by shape.
    source: what errors call the model. Raises UsageError.
    """
    checkpoint = _read_checkpoint(path)
    ordered = not path.endswith(".safetensors")
    if by == "order" and not ordered:
        raise UsageError(f"weights '{path}': a .safetensors file keeps no order; weights_by='order' cannot use it")
    target, tensors = model.state_dict(), checkpoint.tensors
    problem = name_problem(target, tensors) if by == "name" else _order_problem(target, tensors)
    if problem and by == "name" and _knows_older_names(model, _noted(tensors, checkpoint.versions)):
        return
    if problem:
        if by == "name" and ordered and not _order_problem(target, tensors):
            problem += "; the shapes agree in order, so weights_by='order' may be right"
        raise UsageError(f"weights '{path}'{checkpoint.unwrapping} do not fit {source}: {problem}")
    versions = checkpoint.versions or target._metadata  # type: ignore[attr-defined]
    if by == "order":
        tensors = dict(zip(_compared(target), _compared(tensors).values(), strict=True))
        versions = target._metadata  # type: ignore[attr-defined]
    model.load_state_dict(_noted(tensors, versions), strict=False)


def require_weights(source: str, *, weights: str | None, pretrained: bool, random_weights: bool) -> None:
    """UsageError unless exactly one says where the weights come from: random ones are never evaluated unasked."""
    given = (weights is not None) + pretrained + random_weights
    if given == 0:
        raise UsageError(
            f"{source} has no weights: add weights='file.safetensors', pretrained=True (downloads them) "
            "or random_weights=True"
        )
    if given > 1:
        raise UsageError(f"{source}: weights, pretrained and random_weights exclude each other; give one")


@contextmanager
def only_tensors() -> Iterator[None]:
    """Within, whatever a library reads with `torch.load` is tensors only, as if it asked for `weights_only=True`."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# ---------------------------------------------------------------- reading


def _read_checkpoint(path: str, entry: str | None = None) -> _Checkpoint:
    file = existing_file(path, "weights")
    stored = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    if entry is not None and isinstance(stored, Mapping):
        stored = stored.get(entry, stored)
    return _unwrapped(stored, file)


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise UsageError(f"weights '{file}': not a readable .safetensors file ({error})") from error


def _read_torch(file: Path) -> Any:
    import torch

    save = "save the tensors alone, torch.save(model.state_dict(), 'weights.pth')"
    if _is_torchscript(file):
        raise UsageError(f"weights '{file}': this is a TorchScript archive; load it in Python and {save}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise UsageError(
                f"weights '{file}': this pickles Python objects ({found[1]}), which is never run; {save}"
            ) from error
        raise UsageError(f"weights '{file}': not a file that torch.save wrote; {save}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"weights '{file}': damaged, or not a file that torch.save wrote; {save}") from error


def _is_torchscript(file: Path) -> bool:
    if not is_zipfile(file):
        return False
    try:
        with ZipFile(file) as archive:
            return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
    except BadZipFile:
        return False


def _unwrapped(stored: Any, file: Path) -> _Checkpoint:
    import torch

    taken = []
    if isinstance(stored, Mapping):
        for key in WRAPPERS:
            if isinstance(stored.get(key), Mapping):
                stored = stored[key]
                taken.append(f"its entry '{key}'")
                break
    if not isinstance(stored, Mapping) or not stored:
        raise UsageError(f"weights '{file}': holds something of type {type(stored).__name__}, not a state_dict")
    other = [str(name) for name, value in stored.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise UsageError(f"weights '{file}': entries that are no tensors ({listed(other)}); save model.state_dict()")
    names = [str(name) for name in stored]
    versions: Mapping[str, Any] | None = getattr(stored, "_metadata", None)
    if all(name.startswith(PARALLEL_PREFIX) for name in names):
        names = [name.removeprefix(PARALLEL_PREFIX) for name in names]
        versions = versions and _inside_of_parallel(versions)
        taken.append(f"the prefix '{PARALLEL_PREFIX}' left off")
    tensors = dict(zip(names, stored.values(), strict=True))
    return _Checkpoint(tensors, f" ({', '.join(taken)})" if taken else "", versions)


def _inside_of_parallel(versions: Mapping[str, Any]) -> dict[str, Any]:
    """Versions by the names of modules, without the one that stands for all GPUs."""
    within = ((f"{name}.", value) for name, value in versions.items())
    inside = ((name.removeprefix(PARALLEL_PREFIX), value) for name, value in within if name.startswith(PARALLEL_PREFIX))
    return {name.removesuffix("."): value for name, value in inside}


def _noted(tensors: Mapping[str, Tensor], versions: Mapping[str, Any] | None) -> Mapping[str, Tensor]:
    """The tensors with the versions of their modules, as `Module.load_state_dict` looks for them."""
    state = OrderedDict(tensors)
    if versions is not None:
        state._metadata = versions  # type: ignore[attr-defined]
    return state


# ---------------------------------------------------------------- comparing


def _compared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in _without_counters(tensors)}


def _without_counters(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(BATCH_COUNTER)]


def name_problem(target: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """What keeps the tensors from being loaded into a model with the state_dict `target` by name, or None."""
    wanted, given = _compared(target), _compared(tensors)
    differing = [
        f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    findings = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": differing,
    }
    return "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in findings.items() if names) or None


def _knows_older_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the model has taken all of them, by its own rules for files of its older versions."""
    try:
        left = model.load_state_dict(tensors, strict=False)
    except RuntimeError:  # another shape
        return False
    return not _without_counters(left.missing_keys) and not _without_counters(left.unexpected_keys)


def _order_problem(target: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str | None:
    """What keeps the tensors from being loaded in order, or None."""
    wanted, given = _compared(target), _compared(tensors)
    if len(wanted) != len(given):
        return f"{len(given)} tensors in the file, {len(wanted)} in the model"
    for (name, tensor), (other, replacement) in zip(wanted.items(), given.items(), strict=True):
        if tensor.shape != replacement.shape:
            return f"in order, {other} {list(replacement.shape)} meets {name} {list(tensor.shape)}"
    return None
