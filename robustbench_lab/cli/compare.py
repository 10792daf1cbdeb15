"""`rbl compare`: attacks beside each other, from stored results."""

from __future__ import annotations

from robustbench_lab.cli.common_flags import Database, Definition, JsonInPlaceOfTable, OnlyTasks, Plugins


def compare(
    definition: Definition = None,
    task: OnlyTasks = None,
    json: JsonInPlaceOfTable = False,
    db: Database = "rbl.db",
    plugin: Plugins = None,
) -> None:
    """Rank attacks by how much of the worst case each finds.

    On the models of each leaderboard table, with what each attack alone broke, its passes and its time.
    """
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.catalog.plugin_loading import load_plugins
    from robustbench_lab.cli.output import console, print_json
    from robustbench_lab.cli.stored_results import stored_leaderboard
    from robustbench_lab.errors import StoreError
    from robustbench_lab.report.attack_comparison import compare_attacks
    from robustbench_lab.report.attack_table import renderable
    from robustbench_lab.report.json_documents import comparison_document

    catalog = Catalog.from_plugins(load_plugins(plugin or []))
    tables = compare_attacks(stored_leaderboard(catalog, db, definition=definition, tasks=task or []))
    if not tables:
        raise StoreError(f"no attack has a result to compare in {db}: `rbl status` says what failed or was skipped")
    if json:
        print_json(comparison_document(tables))
    else:
        console().print(renderable(tables))
