"""`rbl run`: evaluate every combination, store each result, print the leaderboard."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lab.cli.experiment_flags import takes_experiment
from robustbench_lab.cli.output import print_json, say
from robustbench_lab.exit_codes import ExitCode

if TYPE_CHECKING:
    from robustbench_lab.experiment_spec import ExperimentSpec
    from robustbench_lab.pipeline import RunResult


@takes_experiment
def run(
    spec: "ExperimentSpec",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout in place of the table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> int:
    """Evaluate every combination of model, defense, dataset and attack that is not stored yet.

    With nothing named: the bundled reference models on their own data, attacked with pgd.
    """
    from robustbench_lab.cli.progress import progress_observers
    from robustbench_lab.pipeline import open_catalog, run_experiment
    from robustbench_lab.report.json_documents import run_document

    catalog = open_catalog(spec.plugins)
    observers = [] if quiet else progress_observers()
    result = run_experiment(spec, catalog, observers=observers, command=sys.argv)
    if json:
        print_json(run_document(result.run_id, spec.database, result.records))
    else:
        _print_leaderboard(result)
    if not quiet:
        _summarise(result, spec.database)
    return _exit_code(result)


def _print_leaderboard(result: "RunResult") -> None:
    from robustbench_lab.cli.output import console
    from robustbench_lab.report.table import renderable

    console().print(renderable(result.leaderboard))


def _summarise(result: "RunResult", database: str) -> None:
    total = len(result.plan.cells)
    for left_out in result.plan.left_out:
        say(f"left out: {left_out.label}: {left_out.reason}")
    for record in result.records:
        if record.reason:
            say(f"{record.status.value}: {record.cell.attack.label} on {record.cell.model.label}: {record.reason}")
    done, new = len(result.records), result.computed
    if result.interrupted:
        say(f"interrupted: {done} of {total} cells are in {database}; the same command goes on from there")
    elif new == 0:
        say(f"all {total} cells are in {database} already: nothing was computed (--fresh evaluates them again)")
    else:
        say(f"{new} of {total} cells evaluated, {total - new} were stored; results in {database}")


def _exit_code(result: "RunResult") -> ExitCode:
    from robustbench_lab.records import Status

    if result.interrupted:
        return ExitCode.INTERRUPTED
    failed = any(record.status is Status.FAILED for record in result.records)
    return ExitCode.SOME_CELLS_FAILED if failed else ExitCode.OK
