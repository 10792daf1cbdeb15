"""`rbl db`: care for a result database."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lab.cli.common_flags import Database, Json, Plugins

if TYPE_CHECKING:
    from robustbench_lab.result_store import Merged

app = typer.Typer(help="Care for a result database.", no_args_is_help=True)


@app.command()
def upgrade(db: Database = "rbl.db") -> None:
    """Bring an older database to the schema of this rbl.

    Nothing is lost.
    """
    from robustbench_lab.cli.output import say
    from robustbench_lab.result_store import open_store
    from robustbench_lab.result_store import upgrade as bring_up_to_date

    before = bring_up_to_date(db)
    with open_store(db, create=False) as store:
        after, name = store.schema_revision(), store.name
    if before == after:
        say(f"{name} has schema {after} already")
    else:
        say(f"upgraded {name} from schema {before} to {after}")


@app.command()
def check(
    db: Database = "rbl.db",
    json: Json = False,
    plugin: Plugins = None,
) -> int:
    """Look for damage, and say one line for each.

    The file itself, outcomes, metrics that do not follow from them, artifacts. Exit code 3 where something is wrong.
    """
    from robustbench_lab.cli.output import print_json, results, say
    from robustbench_lab.exit_codes import ExitCode
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.ranking.stored_leaderboard import forged_rows, task_metrics
    from robustbench_lab.report.formatting import printable
    from robustbench_lab.result_store import open_store

    catalog = open_catalog(plugin or [])
    named = task_metrics(catalog, {entry.spec.name for entry in catalog.entries("tasks")})
    metrics = {task: {metric.name: metric.function for metric in those} for task, those in named.items()}
    problems = []
    with open_store(db, create=False) as store:
        for problem in chain(store.check(metrics), forged_rows(store, catalog)):
            problems.append(problem)
            if not json:
                results().write(printable(problem) + "\n")
        name = store.name
    if json:
        print_json({"schema_version": 1, "problems": problems})
    say(f"{name}: {_count(len(problems), 'problem')}" if problems else f"{name} is sound")
    return ExitCode.SOME_CELLS_FAILED if problems else ExitCode.OK


@app.command()
def vacuum(db: Database = "rbl.db") -> None:
    """Give the space of deleted and replaced results back to the disk. Waits for runs that write."""
    from robustbench_lab.cli.output import say
    from robustbench_lab.result_store import open_store

    with open_store(db, create=False) as store:
        before, after = store.vacuum()
        say(f"{store.name}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")


@app.command()
def merge(
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The database to copy from: a file or a URL.")],
    db: Database = "rbl.db",
    json: Json = False,
) -> int:
    """Copy the results of another database into this one. OTHER is not changed.

    Cells that are here stay as they are, unless they failed or were skipped and are ok in OTHER. Cells that came out
    differently in the two are listed, with exit code 3. All or nothing, and harmless to repeat.
    """
    from robustbench_lab.cli.output import print_json, say
    from robustbench_lab.exit_codes import ExitCode
    from robustbench_lab.result_store import open_source, open_store

    with open_source(other, db) as source, open_store(db) as target:
        merged = target.merge(source)
        summary = f"{source.name} into {target.name}: {_summary(merged)}"
    if json:
        print_json({"schema_version": 1, **merged.document()})
    else:
        for line in (*merged.conflicts, *merged.missing_files):
            say(line)
    say(summary)
    return ExitCode.SOME_CELLS_FAILED if merged.conflicts or merged.missing_files else ExitCode.OK


def _summary(merged: Merged) -> str:
    parts = [f"{_count(merged.cells, 'new cell')}", f"{merged.replaced} replaced", f"{merged.kept} here already"]
    parts += [_count(merged.runs, "new run")]
    if merged.units:
        parts.append(f"{_count(merged.units, 'unit')} of unfinished cells")
    if merged.conflicts:
        parts.append(_count(len(merged.conflicts), "conflict"))
    if merged.missing_files:
        parts.append(_count(len(merged.missing_files), "missing file"))
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
