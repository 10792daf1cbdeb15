"""`rbl describe`: what a component does and which parameters it takes."""

from __future__ import annotations

import inspect
from typing import Annotated, Optional

import typer

from robustbench_lab.cli.listing import Kind


def describe(
    kind: Annotated[Kind, typer.Argument(help="The kind of component.")],
    name: Annotated[str, typer.Argument(help="Its name, such as pgd.")],
    plugin: Annotated[Optional[list[str]], typer.Option("--plugin", help="A single-file plugin. Repeatable.")] = None,  # noqa: UP045
) -> None:
    """Show a component's parameters with their defaults, and its documentation."""
    from robustbench_lab.cli.output import console
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.printable_text import printable

    catalog = open_catalog(plugin or [])
    key = kind.value.replace("-", "_")
    out = console()
    entries = catalog.named(key, name)
    for entry in entries:
        tasks = f", for {' and '.join(entry.spec.tasks)}" if len(entries) > 1 else ""
        plugin_name = printable(entry.plugin.name)
        out.print(f"{entry.spec.name}  ({plugin_name} {entry.spec.version or entry.plugin.version}{tasks})")
        task = entry.spec.tasks[0] if entry.spec.tasks else None
        for parameter in catalog.parameters(key, name, task):
            default = "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"
            out.print(f"  {parameter.name}: {default}")
        documentation = inspect.getdoc(catalog.load_factory(key, name, task)) or entry.spec.summary
        out.print("\n" + "\n".join(printable(line) for line in documentation.splitlines()))
