"""`rbl` for tests that call it dozens of times: every command is a fork of one process that has imported the libraries.

A command has a process, a folder, an environment, output and an exit code of its own, as from a shell. It only does not
import torch, scipy and SQLAlchemy once more, which takes longer than most of what tests have it do.

Reads a JSON object a line from stdin: `arguments`, `folder`, `environment`, and `out` and `err`, the files to write to.
Answers each with a line, the exit code.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
from typing import Any


def import_libraries() -> None:
    """What most commands need. It starts no thread that a fork would miss (Arrow's allocator has one, and knows)."""
    import alembic.command  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch  # noqa: F401

    import robustbench_lab.cli.main
    import robustbench_lab.pipeline  # noqa: F401


def become(command: dict[str, Any]) -> None:
    """Make this process look as if it had been started for the command."""
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.path[:0] = filter(None, command["environment"].get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["rbl", *command["arguments"]]
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = os.open(os.devnull, os.O_RDONLY), os.open(command["out"], flags), os.open(command["err"], flags)
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)


def execute(command: dict[str, Any]) -> None:
    from robustbench_lab.cli.main import main

    become(command)
    main()


def serve() -> None:
    import_libraries()
    gc.freeze()  # or the first collection of each fork copies all that the libraries have made
    for line in sys.stdin:
        process = multiprocessing.get_context("fork").Process(target=execute, args=(json.loads(line),))
        process.start()
        process.join()
        print(process.exitcode, flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
