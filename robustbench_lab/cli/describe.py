"""`rbl describe`: what a component does and which parameters it takes."""

from __future__ import annotations

import inspect
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_lab.cli.common_flags import Json, Plugins
from robustbench_lab.cli.listing import Kind, row

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog, Entry


def describe(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] NAME", help="Its name, such as pgd; before it its kind, where several have one."
        ),
    ],
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """Show a component's parameters, defaults and documentation."""
    from robustbench_lab.cli.output import print_json
    from robustbench_lab.pipeline import open_catalog

    catalog = open_catalog(plugin or [])
    kind, name = _kind_and_name(catalog, words)
    described = [_description(catalog, kind, entry) for entry in catalog.named(kind.replace("-", "_"), name)]
    if json:
        print_json(described)
        return
    for one in described:
        _print(one, tell_tasks=len(described) > 1)


def _description(catalog: Catalog, kind: str, entry: Entry) -> dict[str, Any]:
    """What `rbl list` says of a component, with its parameters and documentation."""
    key, name = kind.replace("-", "_"), entry.spec.name
    task = entry.spec.tasks[0] if entry.spec.tasks else None
    parameters = [
        {"name": one.name, "required": True}
        if one.default is one.empty
        else {"name": one.name, "required": False, "default": _json_value(one.default)}
        for one in catalog.parameters(key, name, task)
    ]
    documentation = inspect.getdoc(catalog.load_factory(key, name, task)) or entry.spec.summary
    return {**row(entry), "kind": kind, "parameters": parameters, "documentation": documentation}


def _json_value(default: Any) -> Any:
    """What JSON has no word for is written as Python would."""
    if isinstance(default, (list, tuple)):
        return [_json_value(one) for one in default]
    if isinstance(default, float):
        return default if isfinite(default) else repr(default)
    return default if default is None or isinstance(default, (bool, int, str)) else repr(default)


def _print(component: dict[str, Any], *, tell_tasks: bool) -> None:
    from robustbench_lab.cli.output import console
    from robustbench_lab.printable_text import printable

    out = console()
    tasks = f", for {' and '.join(component['tasks'])}" if tell_tasks else ""
    out.print(f"{component['name']}  ({printable(component['plugin'])} {printable(component['version'])}{tasks})")
    for one in component["parameters"]:
        default = "required" if one["required"] else f"default {one['default']!r}"
        out.print(f"  {one['name']}: {default}")
    out.print("\n" + "\n".join(printable(line) for line in component["documentation"].splitlines()))


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
