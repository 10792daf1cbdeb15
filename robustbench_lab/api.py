"""The Python interface: evaluate a model at hand in one call, through the same pipeline as `rbl run`."""

from __future__ import annotations

import copy
import inspect
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, DatasetSpec, ModelSpec, Samples
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.hookspecs import hookimpl
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.plugin_tools.quick_gradients import class_of
from robustbench_lab.ranking.leaderboard import Leaderboard
from robustbench_lab.records import CellRecord
from robustbench_lab.sample_trees import take

if TYPE_CHECKING:
    import pandas as pd

IN_MEMORY = "in-memory"
TASKS = ("classification", "detection", "forecasting", "segmentation")
"""What a model at hand may be for; the data decides."""
OPEN = Bounds(-math.inf, math.inf)
USUAL_BUDGETS = {"forecasting": ("series", 0.1)}
"""Norm and eps where none are named; for the other tasks linf 8/255."""
PLAIN = (bool, int, float, str, tuple)
"""Types of a module's own attributes that are part of its fingerprint, beside tensors and functions."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns."""

    records: tuple[CellRecord, ...]
    """One for each attack, in order, with per-sample outcomes."""
    leaderboard: Leaderboard

    def __repr__(self) -> str:
        """The table that `rbl run` prints."""
        from robustbench_lab.report import table

        return table.render(self.leaderboard).rstrip("\n")

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each attack, with the columns of `rbl run --json`; metrics as name, name_low, name_high."""
        import pandas as pd

        from robustbench_lab.report.json_documents import cell_row

        return pd.DataFrame([cell_row(record) for record in self.records])


def evaluate(
    model: nn.Module | str,
    dataset: tuple[Any, Any] | str,
    attacks: str | Sequence[str] = ("pgd",),
    *,
    norm: str | None = None,
    eps: float | str | None = None,
    device: str = "auto",
    samples: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    database: str | Path | None = None,
    **spec: Any,
) -> Evaluation:
    """Measure how a classifier, a detector, a segmentation network or a forecaster holds up against attacks.

    model: a `torch.nn.Module` that maps images `[N, C, H, W]` in [0, 1] (normalisation inside) to logits `[N, K]`, a
        detector's to a `DetectorOutput`, in segmentation to logits `[N, K, H, W]`; a forecaster's histories `[N, L, C]`
        to `[N, H, C]`, in the data's own units; or the name of a model as `rbl run --model` takes it.
    dataset: inputs `[N, ...]` (float in [0, 1]) and labels `[N]`, as tensors or arrays, or the name of a dataset. A
        detector's targets are a dict: `boxes` `[N, M, 4]` xyxy in pixels, `labels` `[N, M]` (-1: no object in this
        place), and `crowd` bool `[N, M]` where there are crowds. Of segmentation they are integer masks `[N, H, W]`,
        255 where a pixel does not count. A forecaster's are a dict as well: `future` `[N, H, C]` (NaN: not observed),
        and of each series' training part `scale`, the mean absolute error of the seasonal naive forecast, and `unit`,
        the standard deviation, `[N]` or `[N, C]`; where histories hold covariates as well, `roles` and `input_unit`
        `[N, channels]` (robustbench_lab/tasks/forecasting.py).
    attacks: one or several, as `rbl run --attack` takes them, such as "pgd(steps=50)".
    norm, eps: the threat model; None: the dataset's usual one (in-memory data: linf 8/255; of forecasters: 0.1 in
        `series`).
    database: keep the results there, so that a second call computes nothing twice; None: nowhere.
    spec: further fields of an experiment, such as `defenses=["jpeg"]`.

    Raises RblError (one line) where something does not fit.
    """
    plugin = _InMemory(model, dataset)
    catalog = open_catalog(spec.pop("plugins", ()), [(IN_MEMORY, plugin)])
    with tempfile.TemporaryDirectory() as folder:
        fields = {
            "models": [model if isinstance(model, str) else IN_MEMORY],
            "datasets": [dataset if isinstance(dataset, str) else IN_MEMORY],
            "attacks": [attacks] if isinstance(attacks, str) else list(attacks),
            "norms": [norm] if norm else [],
            "eps": [] if eps is None else [eps],
            "devices": [device],
            "seeds": [seed],
            "samples": samples,
            "batch_size": batch_size,
            "database": str(database) if database else str(Path(folder) / "rbl.db"),
            **spec,
        }
        result = run_experiment(ExperimentSpec.from_flags(**fields), catalog)
    if result.interrupted:
        raise KeyboardInterrupt
    return Evaluation(result.records, result.leaderboard)


class _InMemory:
    """A plugin that brings the objects of one call."""

    def __init__(self, model: nn.Module | str, dataset: tuple[Any, Any] | str) -> None:
        self._models: list[ModelSpec] = []
        self._datasets: list[DatasetSpec] = []
        if not isinstance(model, str):
            self._models.append(_model_spec(model))
        if not isinstance(dataset, str):
            self._datasets.append(_dataset_spec(dataset))

    @hookimpl
    def rbl_models(self) -> list[ModelSpec]:
        """The model, where one was handed in."""
        return self._models

    @hookimpl
    def rbl_datasets(self) -> list[DatasetSpec]:
        """The data, where some were handed in."""
        return self._datasets


def _model_spec(model: nn.Module) -> ModelSpec:
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}: give a torch.nn.Module, or the name of a model")
    # A copy: the caller's own module stays in its mode, with its gradients, on its device.
    version = model_fingerprint(model)
    return ModelSpec(name=IN_MEMORY, factory=lambda: _copied(model), tasks=TASKS, version=version)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        text = f"the model cannot be copied (copy.deepcopy: {describe_error(error)})"
        raise UsageError(f"{text}: keep locks, files and the like out of its attributes") from error


def _dataset_spec(pair: tuple[Any, Any]) -> DatasetSpec:
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise UsageError(f"dataset is a {type(pair).__name__}: give a pair (inputs, labels), or the name of a dataset")
    data = InMemoryDataset.of(*pair)
    norm, eps = USUAL_BUDGETS.get(data.task, ("linf", 8 / 255))
    return DatasetSpec(
        name=IN_MEMORY,
        factory=lambda: data,
        tasks=(data.task,),
        version=data.revision,
        default_norm=norm,
        default_eps=eps,
    )


def _task_of(targets: Any) -> str:
    if not isinstance(targets, Mapping):
        return "segmentation" if _tensor(targets).ndim == 3 else "classification"
    return "forecasting" if "future" in targets else "detection"


def model_fingerprint(model: nn.Module) -> str:
    """A hash of what a module's predictions depend on: structure, tensors, plain attributes, and the code of `forward`.

    It does not see into attributes of other types, nor into functions that `forward` calls.
    """
    digest = sha256(repr(model).encode())
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            digest.update(repr((name, _script(module))).encode())
            held = dict(module.state_dict())
        else:
            digest.update(repr((name, _program(class_of(module).forward))).encode())
            held = {**vars(module), **module._parameters, **module._buffers}
        for key, value in sorted(held.items()):
            if isinstance(value, Tensor):
                digest.update(repr((key, value.dtype, value.shape)).encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            elif isinstance(value, FunctionType):
                digest.update(repr((key, _program(value))).encode())
            elif isinstance(value, PLAIN) and key != "training":
                digest.update(repr((key, value)).encode())
    return digest.hexdigest()


def _script(module: torch.jit.ScriptModule) -> str:
    """What TorchScript does; a part that has no `forward` is called by others, whose code shows it."""
    return str(getattr(module, "inlined_code", ""))


def _program(function: Any) -> tuple[Any, ...]:
    """What a Python function does, as far as its own code shows it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ()
    return code.co_code, code.co_names, [one for one in code.co_consts if isinstance(one, PLAIN)]


@dataclass(frozen=True)
class InMemoryDataset:
    """Inputs and targets at hand, as a dataset."""

    inputs: Tensor
    targets: Any
    """Labels `[N]`, masks `[N, H, W]`, or a detector's or forecaster's dict."""
    revision: str
    sample_ids: tuple[str, ...]
    bounds: Bounds = field(default_factory=Bounds)
    classes: int | None = None
    task: str = "classification"

    @classmethod
    def of(cls, inputs: Any, targets: Any) -> InMemoryDataset:
        """Tensors or arrays; integer images are refused, since their scale cannot be known."""
        images = _tensor(inputs)
        if not images.is_floating_point():
            raise UsageError(f"inputs are {images.dtype}: convert them to float in [0, 1], for images x.float() / 255")
        task = _task_of(targets)
        checked = READERS[task](targets, len(images))
        images = images.float().contiguous()
        digest = sha256(repr(images.shape).encode() + images.numpy().tobytes())
        for tensor in checked.values() if isinstance(checked, dict) else [checked]:
            digest.update(tensor.numpy().tobytes())
        names = tuple(str(index) for index in range(len(images)))
        bounds = OPEN if task == "forecasting" else Bounds()
        return cls(images, checked, digest.hexdigest(), names, bounds, task=task)

    def load(self, indices: Sequence[int]) -> Samples:
        """Samples by position."""
        index = torch.tensor(list(indices), dtype=torch.int64)
        return Samples(self.inputs[index], take(self.targets, index))


def _tensor(values: Any) -> Tensor:
    try:
        return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach().cpu()
    except (TypeError, ValueError) as error:
        raise UsageError(f"inputs and targets must be numbers: {describe_error(error)}") from error


def _labels(values: Any, samples: int) -> Tensor:
    labels = _tensor(values)
    if labels.ndim != 1 or len(labels) != samples:
        raise UsageError(f"{samples} inputs need as many labels [N]; these have shape {list(labels.shape)}")
    if labels.is_floating_point():
        raise UsageError(f"labels are {labels.dtype}: give class numbers as integers")
    return labels.long()


def _masks(values: Any, samples: int) -> Tensor:
    masks = _tensor(values)
    if len(masks) != samples or masks.is_floating_point():
        raise UsageError(f"{samples} inputs need integer masks [N, H, W]; these are {masks.dtype} {list(masks.shape)}")
    return masks.contiguous()


def _scene_targets(targets: Mapping[str, Any], samples: int) -> dict[str, Tensor]:
    """A detector's, checked and complete."""
    if missing := {"boxes", "labels"} - set(targets):
        raise UsageError(f"a detector's targets need 'boxes' [N, M, 4] and 'labels' [N, M]; missing: {min(missing)}")
    boxes, labels = _tensor(targets["boxes"]).float(), _tensor(targets["labels"])
    crowd = _tensor(targets.get("crowd", torch.zeros_like(labels, dtype=torch.bool))).bool()
    shapes = [list(one.shape) for one in (boxes, labels, crowd)]
    places = [samples, *shapes[1][1:2]]
    if labels.is_floating_point() or shapes != [[*places, 4], places, places]:
        text = f"boxes {shapes[0]}, labels {shapes[1]} ({labels.dtype}) and crowd {shapes[2]} do not fit together"
        raise UsageError(f"{text}: {samples} inputs need [N, M, 4], integers [N, M] and [N, M]")
    return {"boxes": boxes.contiguous(), "labels": labels.long(), "crowd": crowd}


def _window_targets(targets: Mapping[str, Any], samples: int) -> dict[str, Tensor]:
    """A forecaster's, checked."""
    if missing := {"scale", "unit"} - set(targets):
        raise UsageError(f"a forecaster's targets need 'future' [N, H, C], 'scale' and 'unit'; missing: {min(missing)}")
    checked = {name: _tensor(targets[name]).float().contiguous() for name in ("future", "scale", "unit")}
    shapes = {name: list(one.shape) for name, one in checked.items()}
    units = ([samples], [samples, *shapes["future"][2:]])
    if (
        len(shapes["future"]) != 3
        or shapes["future"][0] != samples
        or not all(shapes[n] in units for n in ("scale", "unit"))
    ):
        text = "future {future}, scale {scale} and unit {unit} do not fit together".format(**shapes)
        raise UsageError(f"{text}: {samples} histories need [N, H, C], and [N] or [N, C] each")
    given = {name: _tensor(targets[name]) for name in ("roles", "input_unit", "start", "block") if name in targets}
    for name, one in given.items():
        if len(one) != samples or one.ndim != (2 if name in ("roles", "input_unit") else 1):
            raise UsageError(f"a forecaster's '{name}' of shape {list(one.shape)} does not fit {samples} histories")
    return {**checked, **{name: one.float() if name == "input_unit" else one.long() for name, one in given.items()}}


READERS: Mapping[str, Callable[[Any, int], Any]] = {
    "classification": _labels,
    "detection": _scene_targets,
    "forecasting": _window_targets,
    "segmentation": _masks,
}
"""Of targets, by task."""
