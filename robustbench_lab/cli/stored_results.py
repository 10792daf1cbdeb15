"""Stored results as a leaderboard, for the commands that read a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_lab.errors import StoreError

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.ranking.leaderboard import Leaderboard


def stored_leaderboard(
    catalog: Catalog,
    database: str,
    *,
    definition: str | None = None,
    tasks: Sequence[str] = (),
    sort: str | None = None,
    rows_only: bool = False,
) -> Leaderboard:
    """Rank everything in a database, or what a definition file asks for.

    rows_only: without records and outcomes, which takes a small part of the time.
    """
    from robustbench_lab.ranking.leaderboard import LeaderboardDefinition
    from robustbench_lab.ranking.stored_leaderboard import rank, rank_kept, rank_store
    from robustbench_lab.result_store.quick_rows import quick_rows

    for task in tasks:
        catalog.find("tasks", task)
    rule = LeaderboardDefinition.from_toml(Path(definition)) if definition else LeaderboardDefinition()
    if sort:
        rule = replace(rule, sort=sort)
    if rows_only and (rows := quick_rows(database, tasks)):
        kept = rank_kept(rows, rule, catalog)
        if kept is not None:
            return kept
    from robustbench_lab.result_store import open_store

    with open_store(database, create=False) as store:
        if not store.holds_cells(tasks):
            wanted = f" of {' or '.join(tasks)}" if tasks else ""
            raise StoreError(f"there are no results{wanted} in {store.name} yet: run `rbl run` first")
        if rows_only:
            return rank_store(store, rule, catalog, tasks)
        records = store.cells()
    return rank([record for record in records if not tasks or record.cell.task in tasks], rule, catalog)
