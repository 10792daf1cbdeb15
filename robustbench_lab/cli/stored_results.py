"""Stored results as a leaderboard, for the commands that read a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_lab.errors import StoreError

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.leaderboard import Leaderboard


def stored_leaderboard(
    catalog: Catalog,
    database: str,
    *,
    definition: str | None = None,
    tasks: Sequence[str] = (),
    sort: str | None = None,
) -> Leaderboard:
    """Rank everything in a database, or what a definition file asks for."""
    from robustbench_lab.leaderboard import LeaderboardDefinition
    from robustbench_lab.pipeline import rank
    from robustbench_lab.result_store import open_store

    for task in tasks:
        catalog.find("tasks", task)
    rule = LeaderboardDefinition.from_toml(Path(definition)) if definition else LeaderboardDefinition()
    if sort:
        rule = replace(rule, sort=sort)
    with open_store(database, create=False) as store:
        records = store.cells()
    records = [record for record in records if not tasks or record.cell.task in tasks]
    if not records:
        wanted = f" of {' or '.join(tasks)}" if tasks else ""
        raise StoreError(f"there are no results{wanted} in {database} yet: run `rbl run` first")
    return rank(records, rule, catalog)
