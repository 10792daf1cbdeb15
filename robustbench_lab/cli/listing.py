"""`rbl list`: what there is."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_lab.cli.common_flags import Json, Plugins

if TYPE_CHECKING:
    from robustbench_lab.catalog import Entry


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    DATASETS = "datasets"
    ATTACKS = "attacks"
    DEFENSES = "defenses"
    OBJECTIVES = "objectives"
    THREAT_MODELS = "threat-models"
    METRICS = "metrics"
    EXECUTORS = "executors"
    REPORTS = "reports"
    TASKS = "tasks"


def list_components(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to list.")],
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """List the components of a kind.

    With their plugin, version, tasks and norms.
    """
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.catalog.plugin_loading import load_plugins
    from robustbench_lab.cli.output import print_json

    entries = Catalog.from_plugins(load_plugins(plugin or [])).entries(kind.value.replace("-", "_"))
    rows = [row(entry) for entry in sorted(entries, key=lambda entry: entry.spec.name)]
    if json:
        print_json(rows)
    else:
        _print_table(rows)


def row(entry: Entry) -> dict[str, Any]:
    """The same facts about a component for every listing."""
    spec = entry.spec
    return {
        "name": spec.name,
        "summary": spec.summary,
        "tasks": list(spec.tasks),
        "threat_models": list(getattr(spec, "threat_models", ())),
        "access": getattr(spec, "access", None),
        "plugin": entry.plugin.name,
        "version": spec.version or entry.plugin.version,
        "missing": entry.problem,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from robustbench_lab.cli.output import console
    from robustbench_lab.report.listing_table import ListingColumn, listing_table, version_text

    norms = any(one["threat_models"] for one in rows)
    columns = [
        ListingColumn("name", least=24),
        ListingColumn("tasks", least=15),
        ListingColumn("plugin", least=20, minor=1),
    ]
    if norms:
        columns.insert(1, ListingColumn("norms", least=13))
    columns.append(ListingColumn("what it is", least=20))
    texts = []
    for one in rows:
        text = one["summary"] + (f"  (not usable: {one['missing']})" if one["missing"] else "")
        middle = [", ".join(one["threat_models"])] if norms else []
        tasks = ", ".join(one["tasks"]) or "any"
        texts.append([one["name"], *middle, tasks, f"{one['plugin']} {version_text(one['version'])}", text])
    out = console()
    out.print(listing_table(columns, texts, out.width))
