"""Flags that several commands have, with one name, one meaning and one help text."""

from typing import Annotated, Optional

import typer

Names = Optional[list[str]]  # noqa: UP045 (typer reads annotations at run time)

Database = Annotated[str, typer.Option("--db", metavar="DB", help="Result database: a file or an SQLAlchemy URL.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JsonInPlaceOfTable = Annotated[bool, typer.Option("--json", help="One JSON document on stdout in place of the table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
NoLog = Annotated[bool, typer.Option("--no-log", help="No log of the run beside the database.")]
Plugins = Annotated[Names, typer.Option("--plugin", metavar="FILE", help="A single-file plugin. Repeatable.")]
Definition = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--definition", metavar="FILE", help="A leaderboard.toml to follow."),
]
OnlyTasks = Annotated[Names, typer.Option("--task", metavar="NAME", help="Only this task. Repeatable.")]
RunScripts = Annotated[
    bool,
    typer.Option(
        "--run-scripts",
        help="Run scripts that the database names as models: they are programs, read them first.",
    ),
]
