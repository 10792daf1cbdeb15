"""Processes that create a database, store a cell and replace it, each killed at another SQL statement on the way.

    python die_at_each_statement.py FOLDER

leaves FOLDER/0.db, whose process died at its first statement, FOLDER/1.db, at its second, and so on; the last one's
process lived to the end. Not a test module: a test runs it and looks at what is left.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import alembic.command  # noqa: F401 (imported once, before the processes part)
from sqlalchemy import Engine, event

from robustbench_lab.result_store import open_store

examples = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_results.py"))))


def die_at(statement: int) -> None:
    numbers = count()

    def before_execute(*_: object) -> None:
        if next(numbers) == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", before_execute)


def store_and_replace(database: Path) -> None:
    with open_store(database) as store:
        run_id = store.begin_run(["rbl"], {}, {})
        store.save_unit(examples.make_unit("cell", 0, 2), run_id)
        store.save_cell(examples.failed_record("cell"), run_id)
        store.save_cell(examples.ok_record("cell"), run_id, artifacts=[b"inputs"])


def main(folder: Path) -> None:
    for statement in count():
        child = os.fork()
        if child == 0:
            die_at(statement)
            store_and_replace(folder / f"{statement}.db")
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
