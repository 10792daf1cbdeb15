"""`rbl db`: care for a result database."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Care for a result database.", no_args_is_help=True)


@app.command()
def upgrade(db: Annotated[str, typer.Option("--db", help="Result database.")] = "rbl.db") -> None:
    """Bring a database written by an older rbl to the schema of this one. Nothing is lost."""
    from robustbench_lab.cli.output import say
    from robustbench_lab.result_store import open_store
    from robustbench_lab.result_store import upgrade as bring_up_to_date

    before = bring_up_to_date(db)
    with open_store(db, create=False) as store:
        after = store.schema_revision()
    say(f"{db} has schema {after} already" if before == after else f"upgraded {db} from schema {before} to {after}")
