"""`rbl retry`: evaluate again what a run has stored without a result."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from robustbench_lab.cli.common_flags import Database, JsonInPlaceOfTable, NoLog, Plugins, Quiet, RunScripts

if TYPE_CHECKING:
    from robustbench_lab.planning.experiment_spec import ExperimentSpec
    from robustbench_lab.result_store.run_board import Gap, RunBoard


def retry(
    run: Annotated[
        Optional[str],  # noqa: UP045 (read at run time by typer on every supported Python)
        typer.Argument(metavar="RUN", help="A run's id, or the beginning of one.  [default: the newest with any]"),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The cells that failed.")] = False,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="The cells that were cancelled.")] = False,
    json: JsonInPlaceOfTable = False,
    run_scripts: RunScripts = False,
    quiet: Quiet = False,
    no_log: NoLog = False,
    db: Database = "rbl.db",
    plugin: Plugins = None,
) -> int:
    """Evaluate failed and cancelled cells of a run again.

    With the settings of that run, but for its plugin files, which are named again. Relative paths in its settings are
    relative to the current folder.
    """
    from robustbench_lab.cli.run import run_and_report
    from robustbench_lab.errors import UsageError
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.planning.experiment_spec import ExperimentSpec
    from robustbench_lab.result_store import open_store

    if not (failed or cancelled):
        raise UsageError("name what to evaluate again: --failed, --cancelled or both")
    with open_store(db, create=False) as store:
        run_id, cells = _chosen(store.board, run, _wanted(store.board.gaps(), failed=failed, cancelled=cancelled))
        spec = ExperimentSpec.from_flags(**store.board.spec(run_id))
    _check_plugins(run_id, spec.plugins, plugin or [])
    if not run_scripts:
        _refuse_programs(run_id, spec)
    again = {"database": db, "plugins": plugin or [], "fresh": False, "retry_failed": True}
    spec = spec.model_copy(update=again)
    catalog = open_catalog(spec.plugins)
    return run_and_report(spec, catalog, json=json, quiet=quiet, log=not no_log, only=cells)


def _wanted(gaps: list[Gap], *, failed: bool, cancelled: bool) -> list[Gap]:
    from robustbench_lab.records import CANCELLED, Status

    return [gap for gap in gaps if (failed and gap.status == Status.FAILED) or (cancelled and gap.reason == CANCELLED)]


def _chosen(board: RunBoard, run: str | None, gaps: list[Gap]) -> tuple[str, set[str]]:
    """The run, and its cells."""
    from robustbench_lab.errors import UsageError

    run_id = board.find_run(run).run_id if run else next((gap.run_id for gap in gaps), None)
    cells = {gap.cell_id for gap in gaps if gap.run_id == run_id}
    if run_id is None or not cells:
        where = f"run {run_id}" if run_id else "the database"
        raise UsageError(f"{where} has no such cells: there is nothing to evaluate again")
    return run_id, cells


def _check_plugins(run_id: str, used: list[str], given: list[str]) -> None:
    """A plugin is a program: which ones run here is said here, and not by a database."""
    from robustbench_lab.errors import UsageError

    known = {Path(file).name for file in given}
    for file in used:
        if Path(file).name not in known:
            raise UsageError(f"run {run_id} used the plugin file {file}: read it, then add --plugin {file}")


def _refuse_programs(run_id: str, spec: ExperimentSpec) -> None:
    """A database from elsewhere must not choose programs or a cluster; whoever has one can run anything on it."""
    from robustbench_lab.errors import UsageError
    from robustbench_lab.planning.adversaries import source_of
    from robustbench_lab.planning.cell_here import scripts

    address = spec.address or spec.executor.params.get("address")
    if address:
        raise UsageError(f"run {run_id} used the cluster at {address}: give --run-scripts if you trust it")
    parts = (spec.models, spec.datasets, spec.defenses, spec.attacks, spec.objectives, spec.threat_models)
    sources = (source_of(adversary) for adversary in spec.adversary)
    for one in (*itertools.chain(*parts), *(source for source in sources if source)):
        if any(scripts(one.params)):
            raise UsageError(f"'{one.label}' is a program that the database names: read it, then give --run-scripts")
