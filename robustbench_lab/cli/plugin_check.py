"""`rbl plugins check`: the shipped contract tests on a plugin's components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustbench_lab.component_syntax import Component
from robustbench_lab.errors import RblError, UsageError, describe_error, did_you_mean

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog, Entry

CHECKED = ("attacks", "models", "datasets", "defenses")


@dataclass(frozen=True)
class Checked:
    """What was found about one component."""

    title: str
    state: str
    """`ok`, `wrong`, or `not checked`."""
    remarks: tuple[str, ...]


def check_plugin(catalog: Catalog, name: str) -> list[Checked]:
    """Run the contract tests on every attack, model, dataset and defense of a plugin."""
    record = next((one for one in catalog.plugins if one.name == name), None)
    if record is None:
        raise UsageError(f"there is no plugin '{name}'.{did_you_mean(name, [one.name for one in catalog.plugins])}")
    if record.error:
        return [Checked(f"plugin '{name}'", "wrong", (record.error,))]
    entries = [entry for kind in CHECKED for entry in catalog.entries(kind) if entry.plugin.name == name]
    if not entries:
        brings = ", ".join(hook.removeprefix("rbl_") for hook in record.hooks)
        nothing = "no function of it is a hook: decorate rbl_attacks or another one with @hookimpl"
        said = f"it brings {brings}; contract tests are for {', '.join(CHECKED)}" if brings else nothing
        return [Checked(f"plugin '{name}'", "not checked" if brings else "wrong", (said,))]
    return [check_component(catalog, entry) for entry in entries]


def check_component(catalog: Catalog, entry: Entry) -> Checked:
    """Run the contract tests on one of them."""
    if entry.is_family:
        return Checked(entry.title, "not checked", ("a family: check one of its names in a run",))
    if entry.problem:
        return Checked(entry.title, "not checked", (entry.problem,))
    try:
        catalog.resolve(entry.kind.name, Component(entry.spec.name), task=_task(entry))
    except RblError as error:
        return Checked(entry.title, "not checked", (f"cannot be made without parameters: {error}",))
    try:
        remarks = tuple(_remarks(catalog, entry))
    except (Exception, SystemExit) as error:  # a plugin that exits must not end the check in silence
        remarks = (describe_error(error),)
    if not remarks and entry.kind.name == "models" and entry.spec.reference_dataset is None:
        return Checked(entry.title, "not checked", ("it was made, and not run: name a reference_dataset in its spec",))
    return Checked(entry.title, "wrong" if remarks else "ok", remarks)


def _remarks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    from robustbench_lab.testing import component_contracts as contracts
    from robustbench_lab.workbench import module_of

    kind, task = entry.kind.name, _task(entry)
    made = catalog.resolve(kind, Component(entry.spec.name), task=task)
    if kind == "attacks":
        yield from _attack_remarks(catalog, entry)
    elif kind == "datasets":
        yield from contracts.check_dataset(*(catalog.build(kind, made, task=task) for _ in range(2)))
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
    else:
        yield from _model_remarks(catalog, entry)


def _attack_remarks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    from robustbench_lab.testing.attack_contract import check_attack

    task = _task(entry)
    made = catalog.resolve("attacks", Component(entry.spec.name, dict(entry.spec.quick)), task=task)
    for name in entry.spec.threat_models:

        def threat_model_of(eps: float, name: str = name) -> Any:
            params = {**catalog.find("threat_models", name).spec.example, "eps": eps}
            return catalog.build("threat_models", catalog.resolve("threat_models", Component(name, params)))

        def run(problem: Any) -> None:
            catalog.build("attacks", made, problem, task=task)

        for remark in check_attack(
            run,
            threat_model_of,
            name,
            sample_deterministic=entry.spec.sample_deterministic,
            minimum_norm=entry.spec.minimum_norm,
            joint=entry.spec.joint,
            compares_samples=entry.spec.compares_samples,
            forecasting=entry.spec.tasks == ("forecasting",),
            segmentation=entry.spec.tasks == ("segmentation",),
        ):
            yield f"in {name}: {remark}"


def _model_remarks(catalog: Catalog, entry: Entry) -> Iterator[str]:
    import torch

    from robustbench_lab.preflight import check_model
    from robustbench_lab.records import Severity
    from robustbench_lab.workbench import ready

    name = _task(entry)
    made = catalog.resolve("models", Component(entry.spec.name), task=name)
    model = ready(catalog.build("models", made, task=name), torch.device("cpu"))
    if entry.spec.reference_dataset is None:
        return
    reference = catalog.resolve("datasets", Component(entry.spec.reference_dataset), task=name)
    dataset = catalog.build("datasets", reference, task=name)
    samples = dataset.load(range(min(64, len(dataset.sample_ids))))
    task = catalog.load_factory("tasks", entry.spec.tasks[0])()
    for finding in check_model(model, samples, dataset, task, 64, randomized=False):
        if finding.severity is not Severity.INFO:
            yield finding.message


def _task(entry: Entry) -> str | None:
    """The first of its tasks; None where it is for any."""
    return entry.spec.tasks[0] if entry.spec.tasks else None
