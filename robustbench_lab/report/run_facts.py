"""Where a result comes from, as lines of a name and a text: its run, and the software and machine it ran on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustbench_lab.report.formatting import printable

Line = tuple[str, str]
NO_FACTS = ("run_id", "environment", "stored_at")
"""Keys of a cell's provenance that stand elsewhere, or differ among the cells of a run."""


def run_facts(run: Mapping[str, Any]) -> Iterator[Line]:
    """Of the run that stored a cell, as `ResultStore.run_of` gives it: its command, or else what it was asked for."""
    told = {key: value for key, value in run.items() if key not in NO_FACTS}
    if told.get("command"):
        told.pop("spec", None)
    yield from _flattened(told)


def environment_facts(run: Mapping[str, Any]) -> Iterator[Line]:
    """Of what it ran on; versions of libraries in one line."""
    environment = dict(run.get("environment") or {})
    if isinstance(libraries := environment.get("libraries"), Mapping):
        environment["libraries"] = ", ".join(f"{name} {version}" for name, version in libraries.items())
    yield from _flattened(environment)


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[Line]:
    """A nested mapping as lines: `("cpu model", "...")`. None is left out."""
    for key, value in values.items():
        name = f"{prefix}{printable(str(key))}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name} ")
        elif isinstance(value, list | tuple):
            yield from _flattened({str(number): one for number, one in enumerate(value, start=1)}, f"{name} ")
        elif value is not None:
            yield name, printable(str(value))
