"""Models, data, attacks and the rest of a cell, loaded and kept for the next cell that needs them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from robustbench_lab.catalog import Catalog
from robustbench_lab.contracts import Access, Dataset, FollowsData, GradientKind, Objective, Samples, Task, ThreatModel
from robustbench_lab.errors import PluginError
from robustbench_lab.evaluation.attack_audit import RANDOMIZED_PASSES
from robustbench_lab.evaluation.dataset_form import wrong_samples
from robustbench_lab.evaluation.gradient_check import check_gradient
from robustbench_lab.evaluation.preflight import FEWEST, SAMPLES, VALUES, check_model, check_samples
from robustbench_lab.global_randomness import seeded
from robustbench_lab.passes.batch_size import first_batch_size, measured_batch_size
from robustbench_lab.passes.expectation import passes_per_query
from robustbench_lab.passes.folded_norms import with_folded_norms
from robustbench_lab.passes.memory_format import FEW, MOST, fastest_format
from robustbench_lab.planning.adversaries import ADAPTIVE, source_of
from robustbench_lab.plugin_tools.quick_gradients import quick_gradients
from robustbench_lab.plugin_tools.right_gradients import right_gradients
from robustbench_lab.records import Cell, Finding, ResolvedComponent
from robustbench_lab.sample_trees import to_device

UNDEFENDED = "none"
"""The defense that is the model itself."""


@dataclass(frozen=True)
class LoadedCell:
    """The live objects of a cell."""

    task: Task
    dataset: Dataset
    bare_model: nn.Module
    defended_model: nn.Module
    source_model: nn.Module | None
    """Another model, which adversarial inputs are made on."""
    randomized: bool
    exact_gradient: bool
    """Whether the defended model's gradient is that of its defense, and no approximation."""
    attack: Callable[..., object]
    access: Access
    baseline: bool
    minimum_norm: bool
    objective: Objective
    threat_model: ThreatModel
    shared: bool
    """Whether one change of the threat model counts for all samples."""

    @property
    def judging_passes(self) -> int:
        """Forward passes by which success is judged."""
        return RANDOMIZED_PASSES if self.randomized else 1

    def eot(self, cell: Cell) -> int:
        """Forward passes that each of the adversary's queries takes the mean of."""
        return passes_per_query(self.objective, randomized=self.randomized and cell.adversary == ADAPTIVE)

    def attacked_model(self, cell: Cell) -> nn.Module:
        """What the adversary sees."""
        if self.source_model is not None:
            return self.source_model
        return self.defended_model if cell.adversary == ADAPTIVE else self.bare_model


@dataclass
class Workbench:
    """Loads components on one device. Models and datasets are kept, one of each at a time, since they are large."""

    catalog: Catalog
    device: torch.device
    _models: dict[str, nn.Module] = field(default_factory=dict)
    _sources: dict[tuple[str, str], nn.Module] = field(default_factory=dict)
    _datasets: dict[str, Dataset] = field(default_factory=dict)
    _formats: dict[tuple[str, ...], torch.memory_format] = field(default_factory=dict)
    _findings: dict[tuple[str, ...], list[Finding]] = field(default_factory=dict)
    _batch_sizes: dict[tuple[str, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            # So that its random numbers are seeded from the first unit on.
            torch.cuda.init()  # type: ignore[no-untyped-call]

    def load(self, cell: Cell) -> LoadedCell:
        """Everything a cell is made of."""
        defense = self.catalog.find("defenses", cell.defense.name, cell.task).spec
        attack = self.catalog.find("attacks", cell.attack.name, cell.task).spec
        dataset = self._dataset(cell.dataset, cell.task)
        bare = following(self._model(cell.model, cell.task), dataset)
        source = self._source(cell)
        # A copy, so that a defense which changes the model it is given changes it for its own cell only.
        given = bare if cell.defense.name == UNDEFENDED else copy.deepcopy(bare)
        return LoadedCell(
            task=self.catalog.load_factory("tasks", cell.task)(),
            dataset=dataset,
            bare_model=bare,
            defended_model=ready(self._build("defenses", cell.defense, cell.task, given), self.device, "defense"),
            source_model=None if source is None else following(source, dataset),
            randomized=defense.randomized,
            exact_gradient=defense.gradient is GradientKind.EXACT,
            attack=lambda problem: self.catalog.build("attacks", cell.attack, problem, task=cell.task),
            access=attack.access,
            baseline=attack.baseline,
            minimum_norm=attack.minimum_norm,
            objective=self.catalog.build("objectives", cell.objective, task=cell.task),
            threat_model=self.catalog.build("threat_models", cell.threat_model, task=cell.task),
            shared=self.catalog.find("threat_models", cell.threat_model.name, cell.task).spec.shared,
        )

    def samples(self, loaded: LoadedCell, indices: list[int]) -> Samples:
        """Samples of the dataset on this device."""
        samples = loaded.dataset.load(indices)
        for wrong in wrong_samples(samples, len(indices)):
            raise PluginError(f"the dataset is not usable: {wrong}")
        reach = None if samples.attackable is None else samples.attackable.to(self.device)
        return Samples(samples.inputs.to(self.device), to_device(samples.targets, self.device), reach)

    def forget_models(self) -> None:
        """Load models anew: one of those that are kept is not what it was."""
        self._models.clear()
        self._sources.clear()

    def preflight(self, cell: Cell, loaded: LoadedCell, batch_size: int) -> list[Finding]:
        """What is wrong with this model on this data; looked at once for all attacks of a kind."""
        parts = (cell.model, cell.defense, cell.samples, cell.objective)
        key = (*(part.identity for part in parts), cell.adversary, loaded.access)
        if key not in self._findings:
            with seeded("preflight", *key):
                self._findings[key] = self._look(cell, loaded, batch_size)
        return self._findings[key]

    def tune(self, cell: Cell, loaded: LoadedCell, batch_size: int) -> nn.Module:
        """The attacked model in the form in which a search on this data is fastest, if that is worth trials.

        A copy may be returned, whose numbers differ by rounding. A minimum-norm search gets none: its candidates lie on
        the decision boundary, where rounding tells.
        """
        key = (cell.model.identity, cell.defense.identity, cell.dataset.identity, cell.adversary)
        model = loaded.attacked_model(cell)
        example = self.samples(loaded, list(cell.samples.indices[: min(MOST, batch_size)])).inputs
        with seeded("memory format", *key):
            passes = max(cell.estimated_forward, cell.estimated_backward) * len(cell.samples.indices)
            found = self._formats.get(key) or fastest_format(model, example, passes)
        if found is None:
            return model
        self._formats[key] = found
        model.to(memory_format=found)
        if loaded.minimum_norm or loaded.randomized:
            return model
        return with_folded_norms(model, example[:FEW]) or model

    def first_batch_size(self, cell: Cell, loaded: LoadedCell, share: float) -> int:
        """Samples in the first batch. share: of the device's memory that is this process's to use."""
        key = (cell.model.identity, cell.defense.identity, cell.dataset.identity, cell.adversary)
        if key not in self._batch_sizes:
            one = self.samples(loaded, [0]).inputs
            if self.device.type != "cuda":
                return first_batch_size(self.device, one.numel())
            with seeded("batch size", *key):
                self._batch_sizes[key] = measured_batch_size(loaded.attacked_model(cell), one, share)
        return self._batch_sizes[key]

    def memory_share(self) -> float:
        """Of the device's memory that has been in use at once since this was last asked; 0 where nobody counts."""
        if self.device.type != "cuda":
            return 0.0
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak / torch.cuda.get_device_properties(self.device).total_memory

    def _look(self, cell: Cell, loaded: LoadedCell, batch_size: int) -> list[Finding]:
        size = self.samples(loaded, [0]).inputs.numel()
        most = max(FEWEST, min(SAMPLES, VALUES // size))
        samples = self.samples(loaded, list(cell.samples.indices[:most]))
        if found := check_samples(samples, loaded.dataset.bounds):
            return found
        model = loaded.defended_model
        found = check_model(model, samples, loaded.dataset, loaded.task, batch_size, randomized=loaded.randomized)
        if any(finding.severity == "fatal" for finding in found):
            return found
        attacked = loaded.attacked_model(cell)
        random = loaded.randomized or any(finding.code == "undeclared-randomness" for finding in found)
        exact = not random and (loaded.exact_gradient or attacked is not model)
        bounds = loaded.dataset.bounds if exact else None
        return found + check_gradient(
            attacked, samples, loaded.objective, loaded.access, batch_size, exact_within=bounds
        )

    def _model(self, component: ResolvedComponent, task: str) -> nn.Module:
        if component.identity not in self._models:
            self._models.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # for others on this GPU
            self._models[component.identity] = ready(self._build("models", component, task), self.device)
        return self._models[component.identity]

    def _source(self, cell: Cell) -> nn.Module | None:
        """The model that a transfer adversary makes its inputs on."""
        source = source_of(cell.adversary)
        if source is None:
            return None
        key = (cell.adversary, cell.task)
        if key not in self._sources:
            self._sources.clear()
            component = self.catalog.resolve("models", source, task=cell.task)
            self._sources[key] = ready(self._build("models", component, cell.task), self.device)
        return self._sources[key]

    def _dataset(self, component: ResolvedComponent, task: str) -> Dataset:
        if component.identity not in self._datasets:
            self._datasets.clear()
            self._datasets[component.identity] = self._build("datasets", component, task)
        return self._datasets[component.identity]

    def _build(self, kind: str, component: ResolvedComponent, task: str, *args: Any) -> Any:
        """With random numbers of its own: what is kept for other cells must not change the numbers that they draw."""
        with seeded(component.identity):
            return self.catalog.build(kind, component, *args, task=task)


def following(model: nn.Module, dataset: Dataset) -> nn.Module:
    """The model, told what data it is used on, where it wants to know."""
    if isinstance(model, FollowsData):
        model.follow(dataset.load([0]))
    return model


def ready(model: Any, device: torch.device, kind: str = "model") -> nn.Module:
    """On the device, in eval mode, without gradients for parameters: no attack needs them, and they cost time."""
    module = module_of(model, kind).to(device).eval()
    for parameter in module.parameters():  # `module.requires_grad_` refuses TorchScript, of which copies are no leaves
        parameter.detach_().requires_grad_(False)
    return quick_gradients(right_gradients(module))


def module_of(made: Any, kind: str) -> nn.Module:
    """What a factory has made. Raises TypeError where it is no module."""
    if not isinstance(made, nn.Module):
        raise TypeError(f"a {kind} factory must return a torch.nn.Module; this one returned {type(made).__name__}")
    return made
