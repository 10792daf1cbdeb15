"""A stored cell, planned again from its labels: what a database says of it is compared, and never built from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.errors import RblError, describe_error
from robustbench_lab.planning.adversaries import source_of
from robustbench_lab.planning.run_plan import cell_id, select_samples
from robustbench_lab.records import Cell, ResolvedComponent

PARTS = {
    "model": "models",
    "defense": "defenses",
    "dataset": "datasets",
    "attack": "attacks",
    "objective": "objectives",
    "threat_model": "threat_models",
}


class OtherHereError(RblError):
    """The cell cannot be had here as it was evaluated; the message says why."""


@dataclass(frozen=True)
class CellHere:
    """The cell that the labels of a stored one mean here."""

    cell: Cell
    forged: tuple[str, ...]
    """A line for each thing that is stored of it and does not follow from its labels."""


def cell_here(stored: Cell, catalog: Catalog, *, run_scripts: bool) -> CellHere:
    """Plan a stored cell again.

    run_scripts: whether components may be programs in files that the labels name, as in `torch(path='net.py:make')`.
    They run when they are built: a database from elsewhere must not make that happen by itself. Raises OtherHereError
    where a component or the samples are others here.
    """
    parts: dict[str, Any] = {name: _resolved(stored, name, catalog, run_scripts=run_scripts) for name in PARTS}
    try:
        dataset = catalog.build("datasets", parts["dataset"], task=stored.task)
        samples = select_samples(dataset, len(stored.samples.sample_ids), stored.dataset.label)
        source = source_of(stored.adversary)
        made_on = None if source is None else catalog.resolve("models", source, task=stored.task)
    except Exception as error:  # data is often not where it was, and each plugin says so in its own way
        raise OtherHereError(f"the data cannot be read here: {describe_error(error)}") from error
    if samples.identity != stored.samples.identity:
        raise OtherHereError(f"dataset '{stored.dataset.label}' does not hold the same samples here")
    if made_on is not None and not run_scripts:
        _refuse_scripts("adversary", stored.adversary, made_on.params)
    threat_model = parts["threat_model"]
    here = replace(stored, **parts, samples=samples, norm=threat_model.name, eps=threat_model.params["eps"])
    identity = cell_id(here, None if made_on is None else made_on.identity)
    return CellHere(replace(here, cell_id=identity), tuple(_forged(stored, here, identity)))


def _resolved(stored: Cell, name: str, catalog: Catalog, *, run_scripts: bool) -> ResolvedComponent:
    part: ResolvedComponent = getattr(stored, name)
    words = name.replace("_", " ")
    try:
        here = catalog.resolve(PARTS[name], parse_component(part.label), task=stored.task)
    except RblError as error:
        raise OtherHereError(f"{words} '{part.label}' cannot be had here: {error}") from error
    if not run_scripts:
        _refuse_scripts(words, part.label, here.params)
    # Of data it is the samples that count: a folder counts by its name.
    if name != "dataset" and here.identity != part.identity:
        raise OtherHereError(f"{words} '{part.label}' is not the same here: other contents, or another version")
    return here


def _refuse_scripts(words: str, label: str, params: Mapping[str, Any]) -> None:
    if any(scripts(params)):
        raise OtherHereError(
            f"{words} '{label}' is a program that the database names: read it, then give --run-scripts"
        )


def scripts(value: Any) -> Iterator[str]:
    """Values of parameters that name a program, such as `net.py:make`."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from scripts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from scripts(one)
    elif isinstance(value, str) and (value.endswith(".py") or value.rpartition(":")[0].endswith(".py")):
        yield value


def _forged(stored: Cell, here: Cell, identity: str) -> Iterator[str]:
    for name in PARTS:
        one, other = getattr(stored, name), getattr(here, name)
        facts = ("name", "params", "version") if one.identity == other.identity else ("name", "params")
        if any(getattr(one, fact) != getattr(other, fact) for fact in facts):
            words = name.replace("_", " ")
            yield f"{words} '{one.label}' is stored with another {_first_difference(one, other, facts)} than it has"
    if (stored.norm, stored.eps) != (here.norm, here.eps):
        yield f"it is stored under {stored.norm} {stored.eps:g}, and its threat model is {here.norm} {here.eps:g}"
    if stored.samples != here.samples:
        yield "its samples are stored with other ids, places or another revision than the dataset has"
    if stored.cell_id != identity:
        yield "its id is not that of its parts: task, adversary, seed or the id itself was changed"


def _first_difference(one: ResolvedComponent, other: ResolvedComponent, facts: tuple[str, ...]) -> str:
    words = {"params": "set of parameters"}
    return next(words.get(fact, fact) for fact in facts if getattr(one, fact) != getattr(other, fact))
