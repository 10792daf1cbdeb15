"""The flags that describe an experiment, shared by every command that takes one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from robustbench_lab.planning.experiment_spec import ExperimentSpec

WHAT, HOW, WHERE = "What to evaluate", "Budget and size", "Where and how"

_File = Annotated[
    Optional[str],  # noqa: UP045 (read at run time by typer on every supported Python)
    typer.Argument(metavar="EXPERIMENT.toml", help="A file with the same settings as the flags; flags come first."),
]


def _many(flag: str, text: str, panel: str, metavar: str) -> Any:
    return Annotated[Optional[list[str]], typer.Option(flag, help=text, rich_help_panel=panel, metavar=metavar)]  # noqa: UP045


def _one(flag: str, of: Any, text: str, panel: str, metavar: str) -> Any:
    return Annotated[Optional[of], typer.Option(flag, help=text, rich_help_panel=panel, metavar=metavar)]  # noqa: UP045


def _switch(flag: str, text: str) -> Any:
    return Annotated[bool, typer.Option(flag, help=text, rich_help_panel=WHERE)]


FLAGS: dict[str, Any] = {
    "attacks": _many("--attack", "Attack, such as pgd or 'pgd(steps=50, restarts=2)'. Repeatable.", WHAT, "NAME"),
    "models": _many("--model", "Model, such as digits-cnn or \"onnx(path='net.onnx')\". Repeatable.", WHAT, "NAME"),
    "datasets": _many("--dataset", "Dataset, such as digits or \"npz(path='test.npz')\". Repeatable.", WHAT, "NAME"),
    "defenses": _many("--defense", "Defense in front of the model. Repeatable.", WHAT, "NAME"),
    "objectives": _many("--objective", "What the adversary wants. Repeatable.", WHAT, "NAME"),
    "tasks": _many("--task", "Only models of this task. Repeatable.", WHAT, "NAME"),
    "threat_models": _many("--threat-model", "In place of --norm and --eps: 'linf(eps=8/255)'.", HOW, "NAME"),
    "norms": _many("--norm", "linf, l2, l1 or l0. Repeatable.", HOW, "NORM"),
    "eps": _many("--eps", "Budget in the data's units, such as 8/255. Repeatable.", HOW, "NUMBER"),
    "samples": _one("--samples", int, "The first N samples only.", HOW, "N"),
    "seeds": _many("--seed", "Seed of the random numbers. Repeatable.", HOW, "N"),
    "adversary": _many(
        "--adversary",
        "adaptive (through the defense), oblivious (the bare model), transfer(model='...') (another model).",
        HOW,
        "KIND",
    ),
    "devices": _many("--device", "auto, cpu, cuda, cuda:0,cuda:1 ... Repeatable.", WHERE, "DEVICE"),
    "slots_per_gpu": _one("--slots-per-gpu", int, "Work units side by side on a GPU.  [default: 1]", WHERE, "N"),
    "workers": _one("--workers", int, "Work units side by side on the CPU.  [default: what pays]", WHERE, "N"),
    "threads_per_worker": _one("--threads-per-worker", int, "CPU threads of each.  [default: shared out]", WHERE, "N"),
    "executor": _one("--executor", str, "auto, inline (this process), local (a process a slot) or ray.", WHERE, "NAME"),
    "address": _one("--address", str, "Of the cluster, with --executor ray.", WHERE, "HOST:PORT"),
    "unit_timeout": _one("--unit-timeout", float, "A work unit that takes longer counts as hung.", WHERE, "SECONDS"),
    "order": _one("--order", str, "cost: long work first. coverage: table by table, cheap cells first.", WHERE, "NAME"),
    "max_hours": _one("--max-hours", float, "Begin nothing new after so many hours.", WHERE, "HOURS"),
    "max_cells": _one("--max-cells", int, "Evaluate so many cells at most.", WHERE, "N"),
    "batch_size": _one(
        "--batch-size", int, "Samples in one pass at most. Changes no number of a deterministic model.", WHERE, "N"
    ),
    "precision": _one("--precision", str, "float32 or mixed: search in 16 bits, verdict in 32.", WHERE, "NAME"),
    "database": _one("--db", str, "Result database: a file or an SQLAlchemy URL.  [default: rbl.db]", WHERE, "DB"),
    "plugins": _many("--plugin", "A single-file plugin, such as my_attack.py. Repeatable.", WHERE, "FILE"),
    "save_adversarials": _switch("--save-adversarials", "Keep the adversarial inputs beside the database."),
    "fresh": _switch("--fresh", "Evaluate stored cells again."),
    "retry_failed": _switch("--retry-failed", "Evaluate cells again that failed or were cancelled before."),
}


def takes_experiment(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command(spec, ...)` the experiment's flags in front of its own."""

    @functools.wraps(command)
    def with_flags(**given: Any) -> Any:
        flags = {name: given.pop(name) for name in FLAGS}
        return command(spec_from(given.pop("file"), flags), **given)

    own = list(inspect.signature(command).parameters.values())[1:]
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter("file", kind, default=None, annotation=_File)]
    shared += [inspect.Parameter(name, kind, default=_default(of), annotation=of) for name, of in FLAGS.items()]
    parameters = shared + [one.replace(kind=kind) for one in own]
    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_flags


def spec_from(file: str | None, flags: dict[str, Any]) -> ExperimentSpec:
    """The experiment a file and flags describe; a flag that is given replaces the file's value."""
    from robustbench_lab.planning.experiment_spec import ExperimentSpec

    given = {name: value for name, value in flags.items() if value is not None and value is not False and value != []}
    return ExperimentSpec.from_file_and_flags(file, given)


def _default(annotation: Any) -> Any:
    return False if annotation.__args__[0] is bool else None
