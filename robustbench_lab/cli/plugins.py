"""`rbl plugins`: what is installed, and whether it works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_lab.cli.common_flags import Json, Plugins
from robustbench_lab.cli.output import results, results_only

app = typer.Typer(help="Plugins: what is installed, and whether it works.", no_args_is_help=True)


@app.command("list")
@results_only
def list_plugins(
    json: Json = False,
    plugin: Plugins = None,
) -> None:
    """List plugins, what they bring and what is wrong with them."""
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.catalog.plugin_loading import load_plugins
    from robustbench_lab.cli.output import print_json

    rows = [_row(record) for record in Catalog.from_plugins(load_plugins(plugin or [])).plugins]
    if json:
        print_json(rows)
    else:
        _print_table(rows)


@app.command()
@results_only
def check(
    name: Annotated[str, typer.Argument(metavar="PLUGIN", help="A plugin file, or the name of an installed plugin.")],
) -> int:
    """Run the contract tests on what a plugin brings.

    Its attacks, models, datasets and defenses.
    """
    from robustbench_lab.cli.plugin_check import check_plugin
    from robustbench_lab.exit_codes import ExitCode
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.printable_text import printable

    file = Path(name) if name.endswith(".py") else None
    checked = check_plugin(open_catalog([name] if file else []), file.name if file else name)
    for one in checked:
        lines = [f"{one.state:11}  {one.title}", *(f"             {remark}" for remark in one.remarks)]
        results().writelines(f"{printable(line)}\n" for line in lines)
    return ExitCode.SOME_CELLS_FAILED if any(one.state == "wrong" for one in checked) else ExitCode.OK


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the attack, such as my-attack.")],
    folder: Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Where to write it.")] = Path(),
) -> None:
    """Write a working attack in one file, and its test."""
    from robustbench_lab.cli.output import say
    from robustbench_lab.cli.plugin_template import write_plugin

    plugin, test = write_plugin(name, folder)
    say(f"wrote {plugin} and {test}; next: rbl plugins check {plugin}")


def _row(record: Any) -> dict[str, Any]:
    return {
        "name": record.name,
        "version": record.version,
        "distribution": record.distribution,
        "source": record.source,
        "hooks": list(record.hooks),
        "error": record.error,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from robustbench_lab.cli.output import console
    from robustbench_lab.report.listing_table import ListingColumn, listing_table, version_text

    columns = [
        ListingColumn("plugin"),
        ListingColumn("version", least=12, minor=1),
        ListingColumn("from", least=16, minor=2),
        ListingColumn("hooks", least=14),
        ListingColumn("state", least=16),
    ]
    texts = []
    for one in rows:
        hooks = ", ".join(hook.removeprefix("rbl_") for hook in one["hooks"])
        source = one["distribution"] or one["source"]
        texts.append([one["name"], version_text(one["version"]), source, hooks, one["error"] or "ok"])
    out = console()
    out.print(listing_table(columns, texts, out.width))
