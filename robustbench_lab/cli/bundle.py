"""`rbl bundle`: all results in one file that can be handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from robustbench_lab.cli.common_flags import Database


def bundle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as results.zip.")],
    sign: Annotated[
        Optional[Path],  # noqa: UP045 (read at run time by typer on every supported Python)
        typer.Option("--sign", metavar="KEY", help="An SSH key to sign it with, such as ~/.ssh/id_ed25519."),
    ] = None,
    db: Database = "rbl.db",
) -> None:
    """Pack all results and saved inputs in one file.

    For `rbl verify --bundle`.
    """
    from robustbench_lab.cli.output import results, say
    from robustbench_lab.report.formatting import count_text
    from robustbench_lab.result_store import open_store
    from robustbench_lab.trust.result_bundle import write_bundle

    with open_store(db, create=False) as store:
        digest = write_bundle(store, file, sign)
        cells = len(store.summaries())
    say(f"{file}: {count_text(cells, 'cell')}; unpacked it is a database like any other")
    results().write(f"{digest}\n")
