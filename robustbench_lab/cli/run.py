"""`rbl run`: evaluate every combination, store each result, print the leaderboard."""

import sys
from collections import Counter
from typing import TYPE_CHECKING

from robustbench_lab.cli.common_flags import JsonInPlaceOfTable, NoLog, Quiet
from robustbench_lab.cli.experiment_flags import takes_experiment
from robustbench_lab.cli.output import print_json, say
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.redaction import without_passwords

if TYPE_CHECKING:
    from collections.abc import Collection

    from robustbench_lab.catalog import Catalog
    from robustbench_lab.pipeline import RunResult
    from robustbench_lab.planning.experiment_spec import ExperimentSpec


@takes_experiment
def run(
    spec: "ExperimentSpec",
    json: JsonInPlaceOfTable = False,
    quiet: Quiet = False,
    no_log: NoLog = False,
) -> int:
    """Evaluate every combination that is not stored yet.

    Of model, defense, dataset and attack. With nothing named: the bundled reference models on their own data, attacked
    with pgd.
    """
    from robustbench_lab.pipeline import open_catalog

    return run_and_report(spec, open_catalog(spec.plugins), json=json, quiet=quiet, log=not no_log)


def run_and_report(
    spec: "ExperimentSpec",
    catalog: "Catalog",
    *,
    json: bool,
    quiet: bool,
    log: bool,
    only: "Collection[str] | None" = None,
) -> ExitCode:
    """Run an experiment with progress on stderr and a log, print what came out, and return the exit code."""
    from robustbench_lab.cli.cell_words import headline_metrics
    from robustbench_lab.cli.progress import progress_observers
    from robustbench_lab.hardware.host_memory import keep_freed_memory
    from robustbench_lab.pipeline import run_experiment
    from robustbench_lab.report.json_documents import run_document
    from robustbench_lab.report.run_log import RunLog
    from robustbench_lab.result_store import logs_folder
    from robustbench_lab.tracking.run_tracker import RunTracker

    keep_freed_memory()
    tracker = RunTracker()
    headline = headline_metrics(entry.spec for entry in catalog.entries("metrics"))
    observers = [] if quiet else progress_observers(tracker, headline)
    if log:
        observers.append(RunLog(logs_folder(spec.database)))
    result = run_experiment(spec, catalog, observers=observers, command=sys.argv, tracker=tracker, only=only)
    if json:
        print_json(run_document(result.run_id, without_passwords(spec.database), result.records))
    elif not _ended_too_early(result):
        _print_leaderboard(result)
    if _ended_too_early(result):
        say(_nothing_finished(result, without_passwords(spec.database)))
    elif not quiet:
        lost = len(only) - len(result.plan.cells) if only is not None else 0
        if lost:
            say(f"{lost} of those cells no longer follow from the settings: a component has changed")
        _summarise(result, without_passwords(spec.database), with_reasons=json)
    return _exit_code(result)


def _ended_too_early(result: "RunResult") -> bool:
    """Whether somebody, or a limit, has ended the run before there was anything to show."""
    return not result.records and (result.interrupted or result.stopped is not None)


def _nothing_finished(result: "RunResult", database: str) -> str:
    total, units = len(result.plan.cells), result.state.units
    cells, them = ("the cell", "it") if total == 1 else (f"any of {total} cells", "them")
    kept = f"{units} finished part{'' if units == 1 else 's'} of {them}" if units else f"nothing of {them}"
    why = "interrupted" if result.interrupted else result.stopped
    advice = " (Ctrl-C pressed only once lets what runs finish)" if result.interrupted else ""
    where = f"{'are' if units > 1 else 'is'} in {database}"
    return f"{why} before {cells} was finished: {kept} {where}; the same command goes on from there{advice}"


def _print_leaderboard(result: "RunResult") -> None:
    from robustbench_lab.cli.output import console
    from robustbench_lab.report.table import renderable

    console().print(renderable(result.leaderboard))


def _summarise(result: "RunResult", database: str, *, with_reasons: bool) -> None:
    """with_reasons: why cells failed or were skipped; the table has it in its notes."""
    from robustbench_lab.records import Status
    from robustbench_lab.report.formatting import printable
    from robustbench_lab.report.run_view import busy_line

    total = len(result.plan.cells)
    for left_out in result.plan.left_out:
        say(printable(f"left out: {left_out.label}: {left_out.reason}"))
    for record in result.records:
        if with_reasons and record.reason:
            what = f"{record.cell.attack.label} on {record.cell.model.label}"
            say(printable(f"{record.status.value}: {what}: {record.reason}"))
    done, new = len(result.records), result.computed
    if result.state.to_do:
        say(busy_line(result.state.document()))
    if result.interrupted:
        say(f"interrupted: {done} of {total} cells are in {database}; the same command goes on from there")
    elif done < total and result.stopped:
        say(f"{result.stopped}: {total - done} of {total} cells are left; the same command goes on from there")
    elif new == result.state.found == 0:
        failed = any(record.status is Status.FAILED for record in result.records)
        again = (
            "--retry-failed evaluates the failed ones again, --fresh all" if failed else "--fresh evaluates them again"
        )
        cells = "the cell is" if total == 1 else f"all {total} cells are"
        say(f"{cells} in {database} already: nothing was computed ({again})")
    else:
        ended = Counter(record.status.value for record in result.records if record.status is not Status.OK)
        unlike = "".join(f", {count} {status}" for status, count in sorted(ended.items()))
        found = result.state.found
        elsewhere = f", {found} by other runs" if found else ""
        stored = total - new - found
        say(f"{new} of {total} cells evaluated{elsewhere}, {stored} stored before{unlike}; results in {database}")


def _exit_code(result: "RunResult") -> ExitCode:
    from robustbench_lab.records import Status

    if result.interrupted:
        return ExitCode.INTERRUPTED
    failed = any(record.status is Status.FAILED for record in result.records)
    return ExitCode.SOME_CELLS_FAILED if failed else ExitCode.OK
