"""`rbl describe`: what a component does and which parameters it takes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lab.cli.common_flags import Plugins
from robustbench_lab.cli.listing import Kind

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog


def describe(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] NAME", help="Its name, such as pgd; before it its kind, where several have one."
        ),
    ],
    plugin: Plugins = None,
) -> None:
    """Show a component's parameters, defaults and documentation."""
    from robustbench_lab.cli.output import console
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.printable_text import printable

    catalog = open_catalog(plugin or [])
    kind, name = _kind_and_name(catalog, words)
    key = kind.replace("-", "_")
    out = console()
    entries = catalog.named(key, name)
    for entry in entries:
        tasks = f", for {' and '.join(entry.spec.tasks)}" if len(entries) > 1 else ""
        plugin_name = printable(entry.plugin.name)
        out.print(f"{entry.spec.name}  ({plugin_name} {printable(entry.version)}{tasks})")
        task = entry.spec.tasks[0] if entry.spec.tasks else None
        for parameter in catalog.parameters(key, name, task):
            default = "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"
            out.print(f"  {parameter.name}: {default}")
        documentation = inspect.getdoc(catalog.load_factory(key, name, task)) or entry.spec.summary
        out.print("\n" + "\n".join(printable(line) for line in documentation.splitlines()))


def _kind_and_name(catalog: Catalog, words: list[str]) -> tuple[str, str]:
    """Raises UsageError where the words do not name one kind and one component."""
    from robustbench_lab.errors import UsageError, did_you_mean

    kinds, name = [kind.value for kind in Kind], words[-1]
    if len(words) > 1:
        written = words[0].replace("_", "-")
        kind = written if written in kinds else f"{written}s"  # `attack` as well as `attacks`
        if len(words) > 2 or kind not in kinds:
            raise UsageError(f"write `rbl describe KIND NAME`; kinds are {', '.join(kinds)}")
        return kind, name
    found = [kind for kind in kinds if _knows(catalog, kind, name)]
    if len(found) == 1:
        return found[0], name
    if found:
        choices = " or ".join(f"`rbl describe {kind} {name}`" for kind in found)
        raise UsageError(f"several kinds have a '{name}': write {choices}")
    known = [entry.spec.name for kind in kinds for entry in catalog.entries(kind.replace("-", "_"))]
    raise UsageError(f"there is no '{name}' of any kind.{did_you_mean(name, known)}")


def _knows(catalog: Catalog, kind: str, name: str) -> bool:
    from robustbench_lab.errors import UsageError

    try:
        return bool(catalog.named(kind.replace("-", "_"), name))
    except UsageError:
        return False
