"""`rbl plugins check`: the shipped contract tests on a plugin's components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.errors import RblError, UsageError, describe_error, did_you_mean

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog, Entry
    from robustbench_lab.contracts import AttackSpec
    from robustbench_lab.records import ResolvedComponent

CHECKED = (
    "tasks",
    "attacks",
    "models",
    "datasets",
    "defenses",
    "objectives",
    "threat_models",
    "metrics",
    "reports",
    "executors",
)
ON_CLASSIFIERS = ("objectives", "metrics")
"""Kinds whose contract tests are made for classifiers."""


@dataclass(frozen=True)
class Checked:
    """What was found about one component."""

    title: str
    state: str
    """`ok`, `wrong`, or `not checked`."""
    remarks: tuple[str, ...]


def check_plugin(catalog: Catalog, name: str) -> list[Checked]:
    """Run the contract tests on whatever a plugin brings that has some."""
    record = next((one for one in catalog.plugins if one.name == name), None)
    if record is None:
        raise UsageError(f"there is no plugin '{name}'.{did_you_mean(name, [one.name for one in catalog.plugins])}")
    if record.error:
        return [Checked(f"plugin '{name}'", "wrong", (record.error,))]
    entries = [entry for kind in CHECKED for entry in catalog.entries(kind) if entry.plugin.name == name]
    if not entries:
        brings = ", ".join(hook.removeprefix("rbl_") for hook in record.hooks)
        nothing = "no function of it is a hook: decorate rbl_attacks or another one with @hookimpl"
        said = f"it brings {brings}, and these have no contract tests" if brings else nothing
        return [Checked(f"plugin '{name}'", "not checked" if brings else "wrong", (said,))]
    return [check_component(catalog, entry) for entry in entries]


def check_component(catalog: Catalog, entry: Entry) -> Checked:
    """Run the contract tests on one of them."""
    if entry.is_family:
        return Checked(entry.title, "not checked", ("a family: check one of its names in a run",))
    if entry.problem:
        return Checked(entry.title, "not checked", (entry.problem,))
    if unknown := list(_unknown_tasks(catalog, entry)):
        return Checked(entry.title, "wrong", tuple(unknown))
    if entry.kind.name in ON_CLASSIFIERS and _task(entry) not in ("classification", None):
        return Checked(entry.title, "not checked", (f"contract tests of {entry.kind.name} are for classifiers",))
    if entry.kind.name == "tasks" and not _can_be_tried(catalog, entry.spec.name):
        return Checked(entry.title, "not checked", ("no model of this task names a reference_dataset in its spec",))
    try:
        catalog.resolve(entry.kind.name, Component(entry.spec.name, _params(entry)), task=_task(entry))
    except RblError as error:
        return Checked(entry.title, "not checked", (f"cannot be made without parameters: {error}",))
    try:
        remarks = tuple(_remarks(catalog, entry))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin that exits must not end the check in silence
        remarks = (describe_error(error),)
    if not remarks and entry.kind.name == "models" and entry.spec.reference_dataset is None:
        return Checked(entry.title, "not checked", ("it was made, and not run: name a reference_dataset in its spec",))
    return Checked(entry.title, "wrong" if remarks else "ok", remarks)


def _remarks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    from robustbench_lab.evaluation.workbench import module_of
    from robustbench_lab.testing import component_contracts as contracts

    kind, task = entry.kind.name, _task(entry)
    made = catalog.resolve(kind, Component(entry.spec.name, _params(entry)), task=task)
    if kind == "attacks":
        yield from _attack_remarks(catalog, entry)
    elif kind == "datasets":
        one, again = (catalog.build(kind, made, task=task) for _ in range(2))
        yield from contracts.check_dataset(one, again, task)
    elif kind == "defenses":
        if "detection" in entry.spec.tasks:
            defended = module_of(catalog.build(kind, made, contracts.plain_detector(), task="detection"), "defense")
            yield from contracts.check_detector_defense(defended, entry.spec.gradient)
        if "forecasting" in entry.spec.tasks:
            defended = module_of(catalog.build(kind, made, contracts.plain_forecaster(), task="forecasting"), "defense")
            yield from contracts.check_forecaster_defense(
                defended, entry.spec.gradient, randomized=entry.spec.randomized
            )
        if not entry.spec.tasks or set(entry.spec.tasks) - {"detection", "forecasting"}:
            defended = module_of(catalog.build(kind, made, contracts.plain_model(), task=task), "defense")
            yield from contracts.check_defense(defended, entry.spec.gradient, randomized=entry.spec.randomized)
    elif kind == "models":
        yield from _model_remarks(catalog, entry)
    elif kind == "executors":
        from robustbench_lab.testing.executor_contract import check_executor

        yield from check_executor(catalog.build(kind, made), catalog)
    elif kind == "tasks":
        from robustbench_lab.testing.task_contract import check_task

        yield from check_task(catalog, entry.spec.name)
    else:
        yield from _rule_remarks(catalog, entry, made)


def _rule_remarks(catalog: Catalog, entry: Entry, made: ResolvedComponent) -> Iterator[str]:
    """Of what results are judged by, and how they are shown."""
    from robustbench_lab.testing.objective_contract import check_objective
    from robustbench_lab.testing.result_contracts import check_metric, check_report
    from robustbench_lab.testing.threat_model_contract import check_threat_model

    kind, name = entry.kind.name, entry.spec.name
    if kind == "objectives":
        yield from check_objective(catalog.build(kind, made, task=_task(entry)))
    elif kind == "threat_models":
        yield from check_threat_model(_threat_models(catalog, name))
    elif kind == "metrics":
        yield from check_metric(catalog.load_factory(kind, name), fraction=entry.spec.fraction)
        if entry.spec.clean not in {None, *(one.spec.name for one in catalog.entries(kind))}:
            yield f"clean='{entry.spec.clean}' names no metric"
    else:
        yield from check_report(catalog.load_factory(kind, name), rows_only=entry.spec.rows_only)


def _threat_models(catalog: Catalog, name: str) -> Callable[[float], Any]:
    """From a budget to the threat model of that name."""

    def made(eps: float) -> Any:
        params = {**catalog.find("threat_models", name).spec.example, "eps": eps}
        return catalog.build("threat_models", catalog.resolve("threat_models", Component(name, params)))

    return made


def _attack_remarks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    from robustbench_lab.testing.attack_contract import check_attack, check_attack_on_gpu

    task = _task(entry)
    made = catalog.resolve("attacks", Component(entry.spec.name, dict(entry.spec.quick)), task=task)
    yield from _wrong_estimate(entry.spec, made)
    for name in entry.spec.threat_models:

        def run(problem: Any) -> object:
            return catalog.build("attacks", made, problem, task=task)

        known: dict[str, bool] = {
            "minimum_norm": entry.spec.minimum_norm,
            "forecasting": entry.spec.tasks == ("forecasting",),
            "segmentation": entry.spec.tasks == ("segmentation",),
        }
        remarks = check_attack(
            run,
            _threat_models(catalog, name),
            name,
            access=entry.spec.access,
            sample_deterministic=entry.spec.sample_deterministic,
            joint=entry.spec.joint,
            compares_samples=entry.spec.compares_samples,
            **known,
        )
        if not entry.spec.requires:  # other libraries look for a real GPU
            remarks += check_attack_on_gpu(run, _threat_models(catalog, name), name, **known)
        yield from (f"in {name}: {remark}" for remark in remarks)


def _model_remarks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    import torch

    from robustbench_lab.evaluation.preflight import check_model
    from robustbench_lab.evaluation.workbench import following, ready
    from robustbench_lab.records import Severity

    name = _task(entry)
    made = catalog.resolve("models", Component(entry.spec.name), task=name)
    model = ready(catalog.build("models", made, task=name), torch.device("cpu"))
    if entry.spec.reference_dataset is None:
        return
    reference = catalog.resolve("datasets", Component(entry.spec.reference_dataset), task=name)
    dataset = catalog.build("datasets", reference, task=name)
    samples = dataset.load(range(min(64, len(dataset.sample_ids))))
    task = catalog.load_factory("tasks", entry.spec.tasks[0])()
    for finding in check_model(following(model, dataset), samples, dataset, task, 64, randomized=False):
        if finding.severity is not Severity.INFO:
            yield finding.message


def _wrong_estimate(spec: AttackSpec, made: ResolvedComponent) -> Iterator[str]:
    try:
        passes = spec.estimate_passes(made.params) if spec.estimate_passes else (0, 0)
        forward, backward = passes
    except Exception as error:
        yield f"estimate_passes: {describe_error(error)}"
        return
    if not (isinstance(forward, int) and isinstance(backward, int) and min(forward, backward) >= 0):
        yield f"estimate_passes must give two whole numbers, (forward, backward), not {passes!r}"


def _unknown_tasks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    known = [one.spec.name for one in catalog.entries("tasks")]
    for task in entry.spec.tasks:
        if entry.kind.name != "tasks" and task not in known:
            yield f"there is no task '{task}'.{did_you_mean(task, known)}"


def _can_be_tried(catalog: Catalog, task: str) -> bool:
    from robustbench_lab.testing.task_contract import model_to_check_with

    return model_to_check_with(catalog, task) is not None


def _params(entry: Entry) -> dict[str, Any]:
    """With which it is tried, where it has parameters without a default."""
    return {**entry.spec.example, "eps": 1.0} if entry.kind.name == "threat_models" else {}


def _task(entry: Entry) -> str | None:
    """The first of its tasks; None where it is for any."""
    return entry.spec.tasks[0] if entry.spec.tasks else None
