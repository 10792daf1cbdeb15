"""Stage 2: a spec and the catalog to the cells of a run. Nothing is evaluated here, and no model is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.contracts import Bounds, Dataset, DatasetSpec, ModelSpec, Objective, Task, lacking
from robustbench_lab.errors import PluginError, RblError, UsageError, describe_error
from robustbench_lab.evaluation.dataset_form import wrong_dataset
from robustbench_lab.passes.expectation import passes_per_query
from robustbench_lab.planning.adversaries import ADAPTIVE, source_of
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.provenance import content_hash
from robustbench_lab.records import Cell, ResolvedComponent, SampleSet

DEFAULT_ATTACK = "pgd"


@dataclass(frozen=True)
class LeftOut:
    """A combination that does not fit together."""

    label: str
    reason: str


@dataclass(frozen=True)
class RunPlan:
    """Every cell of a run, in the order of the spec, each once."""

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    sample_bytes: Mapping[str, int] = field(default_factory=dict)
    """A dataset's identity to the bytes of one input: work units are cut by it. Absent where nothing could be read."""

    @property
    def input_values(self) -> dict[str, int]:
        """A dataset's label to the numbers in one of its inputs, which are float32: what passes cost goes with it."""
        known = {cell.dataset.label: self.sample_bytes.get(cell.dataset.identity, 0) // 4 for cell in self.cells}
        return {label: values for label, values in known.items() if values}


@dataclass(frozen=True)
class _Attacked:
    """A model on a dataset: what attacks are then combined with."""

    task: Task
    model: Component
    dataset: Component
    dataset_spec: DatasetSpec


def make_plan(spec: ExperimentSpec, catalog: Catalog) -> RunPlan:
    """Every combination of the spec that fits together.

    Raises UsageError where a name is unknown, a parameter is wrong, a budget is outside the data's range, or nothing
    fits at all.
    """
    return _Planner(spec, catalog).plan()


@dataclass
class _Planner:
    spec: ExperimentSpec
    catalog: Catalog
    _datasets: dict[tuple[str, str], tuple[Dataset, SampleSet]] = field(default_factory=dict)
    _resolved: dict[tuple[str, str, str], ResolvedComponent] = field(default_factory=dict)
    _left_out: dict[str, LeftOut] = field(default_factory=dict)
    _sample_bytes: dict[str, int] = field(default_factory=dict)
    _fitting: set[str] = field(default_factory=set)
    """Labels of the models on datasets that fit for a task: that they do not for another is no news."""
    _checked: set[tuple[str, Bounds]] = field(default_factory=set)
    _estimates: dict[str, tuple[int, int]] = field(default_factory=dict)
    _per_query: dict[tuple[str, str, bool], int] = field(default_factory=dict)

    def plan(self) -> RunPlan:
        self._check_names()
        cells: dict[str, Cell] = {}
        for attacked in self._attacked():
            for cell in self._cells(attacked):
                cells.setdefault(cell.cell_id, cell)
        left_out = [one for one in self._left_out.values() if one.label not in self._fitting]
        if not cells:
            reasons = "; ".join(f"{one.label}: {one.reason}" for one in left_out)
            raise UsageError(f"nothing to run: {reasons or 'no model is named and none is bundled for this task'}")
        return RunPlan(tuple(cells.values()), tuple(left_out), self._sample_bytes)

    def _check_names(self) -> None:
        """All names first: a misspelt one is found before anything is imported or loaded."""
        for kind in ("tasks", "models", "datasets", "defenses", "objectives", "threat_models", "attacks"):
            for one in getattr(self.spec, kind):
                self.catalog.find(kind, one if isinstance(one, str) else one.name)
        for norm in self.spec.norms:
            self.catalog.find("threat_models", norm)

    # ------------------------------------------------------------ model x dataset

    def _attacked(self) -> Iterator[_Attacked]:
        """Each named model on each named dataset; bundled reference models on their own where none is named."""
        for model in self._models():
            for model_spec in (entry.spec for entry in self.catalog.named("models", model.name)):
                for dataset in self.spec.datasets or self._own_dataset(model, model_spec):
                    for task_name in model_spec.tasks or self._tasks_of(dataset):
                        dataset_spec = self._spec("datasets", dataset, task_name)
                        label = f"{model.label} on {dataset.label}"
                        if self._fits(label, task_name, model_spec, dataset_spec):
                            self._fitting.add(label)
                            with _blamed(f"task '{task_name}'"):
                                task = _complete(self.catalog.load_factory("tasks", task_name)(), Task)
                            yield _Attacked(task, model, dataset, dataset_spec)

    def _tasks_of(self, dataset: Component) -> list[str]:
        """What a model for any task is used for."""
        return [task for entry in self.catalog.named("datasets", dataset.name) for task in entry.spec.tasks]

    def _models(self) -> Sequence[Component]:
        if self.spec.models:
            return self.spec.models
        bundled = [entry.spec for entry in self.catalog.entries("models") if entry.spec.reference_dataset]
        asked = bool(self.spec.tasks or self.spec.datasets)
        return [Component(spec.name) for spec in bundled if asked or not spec.on_request]

    def _own_dataset(self, model: Component, spec: ModelSpec) -> list[Component]:
        if spec.reference_dataset is None:
            raise UsageError(f"model '{model.label}' brings no data of its own: name some with --dataset")
        return [Component(spec.reference_dataset)]

    def _fits(self, label: str, task: str, model: ModelSpec, dataset: DatasetSpec) -> bool:
        if self.spec.tasks and task not in self.spec.tasks:
            if self.spec.models:
                what = "model" if model.tasks else "dataset"
                self._leave_out(label, f"the {what} is for {task}, not {' or '.join(self.spec.tasks)}")
            return False
        if task not in dataset.tasks:
            self._leave_out(label, f"the model is for {task}, the dataset for {' and '.join(dataset.tasks)}")
            return False
        if model.fits and dataset.family and dataset.family not in model.fits:
            self._leave_out(label, f"the model was made for {' and '.join(model.fits)}, not {dataset.family}")
            return False
        return True

    # ------------------------------------------------------------ what attacks it

    def _cells(self, attacked: _Attacked) -> Iterator[Cell]:
        spec = self.spec
        dataset, samples = self._samples(attacked.dataset, attacked.task.name)
        combinations = product(
            spec.defenses or [Component("none")],
            self._threat_models(attacked.dataset_spec),
            spec.objectives or [Component(attacked.task.default_objective)],
            spec.attacks or [Component(DEFAULT_ATTACK)],
            spec.adversary,
            spec.seeds,
        )
        for defense, threat, objective, attack, adversary, seed in combinations:
            if not self._suits(attacked, defense, threat, objective, attack):
                continue
            if not self._suits_source(attacked, attack, adversary):
                continue
            threat_model = self._resolve("threat_models", threat, attacked.task.name)
            self._check_budget(threat_model, dataset.bounds)
            yield self._cell(attacked, samples, defense, threat_model, objective, attack, adversary, seed)

    def _suits(
        self, attacked: _Attacked, defense: Component, threat: Component, objective: Component, attack: Component
    ) -> bool:
        task = attacked.task.name
        kinds = {"defenses": defense, "threat_models": threat, "objectives": objective, "attacks": attack}
        for kind, component in kinds.items():
            found = self._spec(kind, component, task).tasks
            if found and task not in found:
                entries = self.catalog.named(kind, component.name)
                *others, last = dict.fromkeys(one for entry in entries for one in entry.spec.tasks)
                known = f"{', '.join(others)} and {last}" if others else last
                self._leave_out(f"{component.label} on {attacked.model.label}", f"it is for {known}, not {task}")
                return False
        allowed = self._spec("attacks", attack, task).threat_models
        if threat.name not in allowed:
            self._leave_out(f"{attack.label} with {threat.label}", f"the attack knows {', '.join(allowed)} only")
            return False
        return True

    def _suits_source(self, attacked: _Attacked, attack: Component, adversary: str) -> bool:
        """Whether adversarial inputs can be made on the model that an adversary names, for the one that is judged."""
        source = source_of(adversary)
        if source is None:
            return True
        task = attacked.task.name
        spec: ModelSpec = self._spec("models", source, task)
        label = f"{attacked.model.label} with {adversary}"
        if self._resolve("models", source, task).identity == self._resolve("models", attacked.model, task).identity:
            self._leave_out(label, "a model is not attacked by way of itself: use adaptive")
        elif spec.fits and attacked.dataset_spec.family and attacked.dataset_spec.family not in spec.fits:
            self._leave_out(label, f"'{source.label}' was made for {' and '.join(spec.fits)}")
        elif self._spec("attacks", attack, task).minimum_norm:
            reason = "minimum-norm attacks end where the source just breaks, which hardly breaks another model"
            self._leave_out(f"{attack.label} with {adversary}", reason)
        else:
            return True
        return False

    def _threat_models(self, dataset: DatasetSpec) -> list[Component]:
        """Those named, or every norm with every eps; what is not named comes from the dataset."""
        if self.spec.threat_models:
            if self.spec.norms or self.spec.eps:
                raise UsageError("give either threat models or norms with eps, not both")
            return list(self.spec.threat_models)
        norms = self.spec.norms or [dataset.default_norm]
        if not self.spec.eps and norms != [dataset.default_norm]:
            raise UsageError(f"there is no usual budget for {', '.join(norms)} on this dataset: name one with --eps")
        return [Component(norm, {"eps": eps}) for norm in norms for eps in self.spec.eps or [dataset.default_eps]]

    def _cell(
        self,
        attacked: _Attacked,
        samples: SampleSet,
        defense: Component,
        threat_model: ResolvedComponent,
        objective: Component,
        attack: Component,
        adversary: str,
        seed: int,
    ) -> Cell:
        task = attacked.task.name
        resolved = self._resolve("attacks", attack, task)
        forward, backward = self._passes(resolved)
        eot = self._passes_per_query(defense, objective, adversary, task)
        cell = Cell(
            cell_id="",
            task=task,
            model=self._resolve("models", attacked.model, task),
            defense=self._resolve("defenses", defense, task),
            dataset=self._resolve("datasets", attacked.dataset, task),
            attack=resolved,
            objective=self._resolve("objectives", objective, task),
            threat_model=threat_model,
            norm=threat_model.name,
            eps=threat_model.params["eps"],
            adversary=adversary,
            seed=seed,
            samples=samples,
            estimated_forward=forward * eot,
            estimated_backward=backward * eot,
        )
        source = source_of(adversary)
        made_on = None if source is None else self._resolve("models", source, task).identity
        return replace(cell, cell_id=cell_id(cell, made_on))

    # ------------------------------------------------------------ lookups, each made once

    def _check_budget(self, threat_model: ResolvedComponent, bounds: Bounds) -> None:
        if (threat_model.identity, bounds) not in self._checked:
            with _blamed(f"threat model '{threat_model.label}' of {threat_model.plugin}"):
                self.catalog.build("threat_models", threat_model).check(bounds)
            self._checked.add((threat_model.identity, bounds))

    def _passes(self, attack: ResolvedComponent) -> tuple[int, int]:
        """Forward and backward passes a sample takes at most, where the attack can tell; otherwise 0."""
        if attack.identity not in self._estimates:
            estimate = self.catalog.find("attacks", attack.name).spec.estimate_passes
            with _blamed(f"estimate_passes of attack '{attack.label}' of {attack.plugin}"):
                forward, backward = estimate(attack.params) if estimate else (0, 0)
            self._estimates[attack.identity] = forward, backward
        return self._estimates[attack.identity]

    def _passes_per_query(self, defense: Component, objective: Component, adversary: str, task: str) -> int:
        randomized = self._spec("defenses", defense, task).randomized and adversary == ADAPTIVE
        key = (task, objective.label, randomized)
        if key not in self._per_query:
            resolved = self._resolve("objectives", objective, task)
            with _blamed(f"objective '{objective.label}' of {resolved.plugin}"):
                built = _complete(self.catalog.build("objectives", resolved, task=task), Objective)
                self._per_query[key] = passes_per_query(built, randomized=randomized)
        return self._per_query[key]

    def _samples(self, component: Component, task: str) -> tuple[Dataset, SampleSet]:
        key = (task, component.label)
        if key not in self._datasets:
            resolved = self._resolve("datasets", component, task)
            with _blamed(f"dataset '{component.label}' of {resolved.plugin}"):
                dataset: Dataset = self.catalog.build("datasets", resolved, task=task)
                samples = select_samples(dataset, self._samples_of(dataset), component.label)
            self._datasets[key] = dataset, samples
            # Data that cannot be loaded costs its own cells, when they are evaluated.
            with contextlib.suppress(Exception):
                self._sample_bytes[resolved.identity] = dataset.load([0]).inputs.nbytes
        return self._datasets[key]

    def _samples_of(self, dataset: Dataset) -> int | None:
        """As many as are asked for; of data that nobody named, all of them where there are fewer."""
        asked = self.spec.samples
        return asked if self.spec.datasets or asked is None else min(asked, len(dataset.sample_ids))

    def _resolve(self, kind: str, component: Component, task: str) -> ResolvedComponent:
        key = (kind, component.label, task)
        if key not in self._resolved:
            self._resolved[key] = self.catalog.resolve(kind, component, task=task)
        return self._resolved[key]

    def _spec(self, kind: str, component: Component, task: str) -> Any:
        """The spec of the kind's own class."""
        return self.catalog.find(kind, component.name, task).spec

    def _leave_out(self, label: str, reason: str) -> None:
        self._left_out.setdefault(label, LeftOut(label, reason))


def _complete(made: Any, protocol: type) -> Any:
    """What a factory has made. Raises TypeError where it lacks a part of its protocol."""
    if lacks := lacking(made, protocol):
        raise TypeError(lacks)
    return made


@contextlib.contextmanager
def _blamed(what: str) -> Iterator[None]:
    """An error of a plugin's code in one line that says whose; expected ones pass as they are."""
    try:
        yield
    except RblError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{what}: {describe_error(error)}") from error


def select_samples(dataset: Dataset, count: int | None, label: str) -> SampleSet:
    """The first `count` samples of a dataset in its own order (all of them where None)."""
    for wrong in wrong_dataset(dataset):
        raise UsageError(f"dataset '{label}' is not usable: {wrong}")
    ids = tuple(dataset.sample_ids)
    if not ids:
        raise UsageError(f"dataset '{label}' has no samples: check what it reads")
    if count is not None and count > len(ids):
        raise UsageError(f"dataset '{label}' has {len(ids)} samples, fewer than the {count} asked for")
    chosen = ids[:count]
    identity = content_hash({"revision": dataset.revision, "samples": list(chosen)})
    return SampleSet(dataset.revision, chosen, tuple(range(len(chosen))), identity)


def cell_id(cell: Cell, made_on: str | None = None) -> str:
    """The hash of all that defines a cell; device, batch size and executor are not part of it.

    made_on: identity of the model that an adversary makes its inputs on, where it is another one than the cell's.
    """
    parts = ("model", "defense", "attack", "objective", "threat_model")
    definition = {part: getattr(cell, part).identity for part in parts}
    definition |= {"task": cell.task, "samples": cell.samples.identity, "adversary": cell.adversary}
    if made_on is not None:
        definition["made_on"] = made_on
    return content_hash({**definition, "seed": cell.seed})[:16]
