"""The installed `rbl`, driven as a user drives it: one process a command, files in the current folder.

The main job, interrupted runs and what needs a terminal call the installed program; the rest a fork that has its
libraries already.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

RBL = str(Path(sysconfig.get_path("scripts")) / "rbl")
SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
USAGE, SOME_FAILED, STORE, INTERRUPTED = 2, 3, 4, 130
"""Exit codes that the documentation promises."""

QUICK = ("--attack", "fgsm", "--model", "digits-cnn", "--samples", "20")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Rbl = Callable[..., Done]


@pytest.fixture
def rbl(forked_rbl: Callable[..., subprocess.CompletedProcess[str]]) -> Rbl:
    def run(folder: Path, *arguments: str, expect: int = 0) -> Done:
        return checked(forked_rbl(arguments, folder, os.environ), expect)

    return run


def installed_rbl(folder: Path, *arguments: str) -> Done:
    return checked(subprocess.run([RBL, *arguments], cwd=folder, capture_output=True, text=True), expect=0)


def checked(done: subprocess.CompletedProcess[str], expect: int) -> Done:
    assert done.returncode == expect, f"{done.args}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def check_schema(document: Mapping[str, Any], name: str) -> None:
    files = {file.name: json.loads(file.read_text()) for file in SCHEMAS.glob("*.schema.json")}
    resources = [(key, Resource.from_contents(schema)) for key, schema in files.items()]
    Draft202012Validator(files[f"{name}.schema.json"], registry=Registry().with_resources(resources)).validate(document)


def by_model(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {cell["model"]: cell for cell in document["cells"]}


# ---------------------------------------------------------------- the main job


@dataclass(frozen=True)
class Finished:
    """A folder with the results of the run that the README begins with, for classifiers alone."""

    folder: Path
    run: Done
    cells: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    run = installed_rbl(folder, "run", "--attack", "pgd", "--task", "classification", "--json")
    return Finished(folder, run, by_model(run.document))


def test_with_nothing_else_named_the_bundled_models_of_all_tasks_are_evaluated(tmp_path: Path, rbl: Rbl) -> None:
    cells = rbl(tmp_path, "run", "--attack", "pgd(steps=1)", "--samples", "10", "--json").document["cells"]
    assert {cell["status"] for cell in cells} == {"ok"}
    bundled = {(cell["dataset"], cell["model"]) for cell in cells}
    assert {("digits", "digits-cnn"), ("digits", "digits-cnn-at")} <= bundled
    assert {("digit-scenes", "scene-fcos"), ("digit-scenes", "scene-fcos-at")} <= bundled
    assert "victoria-demand" in {dataset for dataset, _ in bundled}


def test_one_command_evaluates_the_bundled_models_and_prints_a_documented_document(finished: Finished) -> None:
    check_schema(finished.run.document, "run")
    assert set(finished.cells) == {"digits-cnn", "digits-cnn-at"}
    for cell in finished.cells.values():
        assert (cell["status"], cell["attack"], cell["dataset"]) == ("ok", "pgd", "digits")
        for estimate in cell["metrics"].values():
            assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
    plain, trained = finished.cells["digits-cnn"]["metrics"], finished.cells["digits-cnn-at"]["metrics"]
    assert plain["clean_accuracy"]["value"] >= 0.98
    assert plain["robust_accuracy"]["high"] < trained["robust_accuracy"]["low"]
    progress = finished.run.err.splitlines()
    assert re.fullmatch(r"run [0-9a-f]{8}: 2 cells to evaluate, 0 stored already", progress[0])
    assert [line.split(" ")[0] for line in progress[1:3]] == ["[1/2]", "[2/2]"]
    assert progress[-1] == "2 of 2 cells evaluated, 0 stored before; results in rbl.db"


def test_a_second_run_computes_nothing_says_so_and_prints_the_same_results(finished: Finished, rbl: Rbl) -> None:
    again = rbl(finished.folder, "run", "--attack", "pgd", "--task", "classification")
    assert again.err.splitlines()[-1] == (
        "all 2 cells are in rbl.db already: nothing was computed (--fresh evaluates them again)"
    )
    for model, cell in finished.cells.items():
        robust = f"{cell['metrics']['robust_accuracy']['value']:.1%}"
        assert re.search(rf"{model}\b.*{re.escape(robust)}", again.out), again.out


def test_the_plan_knows_what_is_stored_and_evaluates_nothing(finished: Finished, tmp_path: Path, rbl: Rbl) -> None:
    flags = ("plan", "--attack", "pgd", "--attack", "noise", "--model", "digits-cnn")
    planned = rbl(finished.folder, *flags, "--json").document["cells"]
    assert [(cell["attack"], cell["stored"]) for cell in planned] == [("pgd", True), ("noise", False)]
    assert planned[0]["cell_id"] == finished.cells["digits-cnn"]["cell_id"]
    table = rbl(tmp_path, *flags)
    assert "2 cells, 2 to evaluate" in table.out
    assert planned[0]["cell_id"][:8] in table.out
    assert list(tmp_path.iterdir()) == []


def test_the_leaderboard_comes_in_every_format(finished: Finished, rbl: Rbl) -> None:
    document = rbl(finished.folder, "leaderboard", "--json").document
    check_schema(document, "leaderboard")
    ranked = [(row["rank"], row["model"]) for row in document["tables"][0]["rows"]]
    assert ranked == [(1, "digits-cnn-at"), (2, "digits-cnn")]
    texts = {
        name: rbl(finished.folder, "leaderboard", "--format", name).out
        for name in ("table", "markdown", "csv", "latex")
    }
    for model, cell in finished.cells.items():
        percent = f"{100 * cell['metrics']['robust_accuracy']['value']:.1f}"
        for name in ("table", "markdown", "latex"):
            assert re.search(rf"{model}\b[^\n]*{re.escape(percent)}", texts[name]), texts[name]
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(texts["csv"]))}
    assert {model: float(row["robust_accuracy"]) for model, row in rows.items()} == {
        model: cell["metrics"]["robust_accuracy"]["value"] for model, cell in finished.cells.items()
    }


def test_attacks_are_compared_by_what_each_of_them_breaks(finished: Finished, rbl: Rbl) -> None:
    document = rbl(finished.folder, "compare", "--json").document
    check_schema(document, "comparison")
    (only,) = document["tables"][0]["attacks"]
    assert (only["attack"], only["models"], only["found"]["value"], only["rank"]) == ("pgd", 2, 1.0, 1)
    broken = sum(
        cell["samples"] * (cell["metrics"]["clean_accuracy"]["value"] - cell["metrics"]["robust_accuracy"]["value"])
        for cell in finished.cells.values()
    )
    assert document["tables"][0]["broken"] == round(broken)
    assert re.search(r"\bpgd\b.*100\.0%", rbl(finished.folder, "compare").out)


def test_show_takes_the_beginning_of_an_id_and_gives_every_sample(finished: Finished, rbl: Rbl) -> None:
    cell = finished.cells["digits-cnn"]
    document = rbl(finished.folder, "show", cell["cell_id"][:10], "--json", "--samples").document
    check_schema(document, "cell")
    assert {key: document[key] for key in cell} == cell
    outcomes = document["outcomes"]
    assert len({one["sample_id"] for one in outcomes}) == cell["samples"] == 450
    assert np.mean([one["robust"] for one in outcomes]) == cell["metrics"]["robust_accuracy"]["value"]
    assert np.mean([one["clean_correct"] for one in outcomes]) == cell["metrics"]["clean_accuracy"]["value"]
    for one in outcomes:
        assert (one["distance"] is None) == one["robust"]
        assert one["clean_correct"] or one["distance"] == 0
        assert one["robust"] or one["distance"] <= cell["eps"] * 1.0001
    assert document["provenance"]["command"][1:] == ["run", "--attack", "pgd", "--task", "classification", "--json"]
    page = rbl(finished.folder, "show", cell["cell_id"][:10]).out
    assert cell["cell_id"] in page


def test_the_report_is_one_page_that_needs_nothing_else(finished: Finished, tmp_path: Path, rbl: Rbl) -> None:
    rbl(finished.folder, "report", "-o", str(tmp_path / "report"))
    page = (tmp_path / "report" / "index.html").read_text()
    for model, cell in finished.cells.items():
        assert model in page
        assert cell["cell_id"][:8] in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?:", page)


def test_in_a_terminal_a_live_view_shows_how_far_a_run_is(tmp_path: Path) -> None:
    reader, writer = pty.openpty()
    running = subprocess.Popen([RBL, "run", *QUICK], cwd=tmp_path, stdout=subprocess.PIPE, stderr=writer, text=True)
    os.close(writer)
    shown = b""
    while chunk := _read(reader):
        shown += chunk
    os.close(reader)
    out, _ = running.communicate()
    assert running.returncode == 0
    assert "digits-cnn" in out
    assert "\x1b" not in out
    assert "0 of 1 cells done" in shown.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"fgsm · digits-cnn · .*: clean accuracy 100\.0%", plain), plain


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


# ---------------------------------------------------------------- interrupted runs

SLOW = ("run", "--model", "digits-cnn-at", "--attack", "pgd(steps=120)", "--samples", "150")
SEEDS = tuple(text for seed in range(4) for text in ("--seed", str(seed)))


def stopped_after_the_first_cell(folder: Path, how: signal.Signals) -> Done:
    """Start the slow run and send it the signal once its first cell is stored."""
    pipe = subprocess.PIPE
    with subprocess.Popen([RBL, *SLOW, *SEEDS], cwd=folder, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("[1/4]"):
                run.send_signal(how)
                break
        out, err = run.communicate()
    return Done(run.returncode, out, err)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_keeps_its_finished_cells_and_the_same_command_does_the_rest(
    tmp_path: Path, how: signal.Signals, code: int, rbl: Rbl
) -> None:
    stopped = stopped_after_the_first_cell(tmp_path, how)
    assert stopped.code == code
    stored = rbl(tmp_path, "leaderboard", "--json").document["cells"]
    kept = len(stored)
    assert 1 <= kept < 4
    assert {cell["status"] for cell in stored} == {"ok"}
    if how is signal.SIGINT:
        assert stopped.err.splitlines()[-1] == (
            f"interrupted: {kept} of 4 cells are in rbl.db; the same command goes on from there"
        )
        assert "Traceback" not in stopped.err
        assert "digits-cnn-at" in stopped.out

    resumed = rbl(tmp_path, *SLOW, *SEEDS, "--json")
    cells = resumed.document["cells"]
    assert resumed.err.splitlines()[0].endswith(
        f": {4 - kept} cell{'s' if kept < 3 else ''} to evaluate, {kept} stored already"
    )
    assert resumed.err.splitlines()[-1] == f"{4 - kept} of 4 cells evaluated, {kept} stored before; results in rbl.db"
    assert [cell["seed"] for cell in cells] == [0, 1, 2, 3]
    unchanged = {cell["cell_id"]: cell for cell in stored}
    assert [cell for cell in cells if cell["cell_id"] in unchanged] == list(unchanged.values())


# ---------------------------------------------------------------- what there is

KINDS = {
    "models": "digits-cnn",
    "datasets": "digits",
    "attacks": "pgd",
    "defenses": "jpeg",
    "objectives": "targeted",
    "threat-models": "linf",
    "metrics": "robust_accuracy",
    "executors": "inline",
    "reports": "latex",
    "tasks": "classification",
}


@pytest.mark.parametrize(("kind", "name"), KINDS.items())
def test_every_kind_of_component_is_listed(tmp_path: Path, kind: str, name: str, rbl: Rbl) -> None:
    rows = {row["name"]: row for row in rbl(tmp_path, "list", kind, "--json").document}
    assert set(rows[name]) >= {"name", "summary", "tasks", "threat_models", "plugin", "version", "missing"}
    assert rows[name]["missing"] is None
    assert list(rows) == sorted(rows)


def test_listings_for_people_name_everything_and_a_description_gives_defaults(tmp_path: Path, rbl: Rbl) -> None:
    listed = rbl(tmp_path, "list", "attacks").out
    assert re.search(r"^pgd +linf, l2, l1,? +\w+ +rbl-attacks", listed, re.MULTILINE)
    described = rbl(tmp_path, "describe", "attacks", "pgd").out
    assert rbl(tmp_path, "describe", "pgd").out == rbl(tmp_path, "describe", "attack", "pgd").out == described
    assert re.search(r"^  restarts: default 1$", described, re.MULTILINE)
    assert "restarts: searches from different random starts" in described
    (as_json,) = json.loads(rbl(tmp_path, "describe", "pgd", "--json").out)
    (listed,) = (one for one in json.loads(rbl(tmp_path, "list", "attacks", "--json").out) if one["name"] == "pgd")
    assert {key: as_json[key] for key in listed} == listed
    assert {"name": "restarts", "required": False, "default": 1} in as_json["parameters"]
    assert as_json["documentation"] in described
    (required,) = json.loads(rbl(tmp_path, "describe", "dataset", "csv", "--json").out)
    assert {"name": "path", "required": True} in required["parameters"]
    plugins = {row["name"]: row for row in rbl(tmp_path, "plugins", "list", "--json").document}
    assert {"rbl-attacks", "rbl-reference", "rbl-core"} <= set(plugins)
    assert {row["error"] for row in plugins.values()} == {None}
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- plugins


def test_a_new_plugin_works_at_once_and_its_results_stand_in_the_table(tmp_path: Path, rbl: Rbl) -> None:
    rbl(tmp_path, "plugins", "new", "my-attack")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["my_attack.py", "test_my_attack.py"]
    checked = rbl(tmp_path, "plugins", "check", "my_attack.py")
    assert checked.out == "ok           attack 'my-attack'\n"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_my_attack.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert tested.returncode == 0, tested.stdout
    flags = ("--plugin", "my_attack.py", "--attack", "my-attack", "--model", "digits-cnn", "--samples", "60")
    run = rbl(tmp_path, "run", *flags)
    assert re.search(r"digits-cnn\b.*my-attack", run.out)
    again = rbl(tmp_path, "plugins", "new", "my-attack", expect=USAGE)
    assert again.err.count("\n") == 1


LOUD = """
import ctypes, os
print("loud: imported")
from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec, DatasetSpec

def step(problem):
    print("loud: attack")
    os.write(1, b"loud: system call\\n")
    ctypes.CDLL(None).puts(b"loud: library in C")
    ctypes.CDLL(None).fflush(None)
    _, gradient = problem.loss_and_gradient(problem.clean)
    problem.submit(problem.project(problem.clean + problem.eps * problem.steepest(gradient, problem.clean)))

def crash(problem):
    raise RuntimeError("it broke")

def data():
    print("loud: dataset")
    from rbl_reference.digits import Digits
    return Digits()

@hookimpl
def rbl_attacks():
    print("loud: hook")
    return [AttackSpec(name="step", factory=step), AttackSpec(name="crash", factory=crash)]

@hookimpl
def rbl_datasets():
    return [DatasetSpec(name="loud-digits", factory=data)]
"""


def test_what_a_plugin_prints_never_mixes_with_results_and_its_crash_costs_its_own_cell(
    tmp_path: Path, rbl: Rbl
) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    plugin = ("--plugin", "loud.py")
    flags = (*plugin, "--model", "digits-cnn", "--dataset", "loud-digits", "--attack", "step", "--samples", "30")
    run = rbl(tmp_path, "run", *flags, "--attack", "crash", "--json", expect=SOME_FAILED)
    check_schema(run.document, "run")
    cells = {cell["attack"]: cell for cell in run.document["cells"]}
    assert (cells["step"]["status"], cells["crash"]["status"]) == ("ok", "failed")
    assert (cells["crash"]["reason"], cells["crash"]["metrics"]) == ("RuntimeError: it broke", {})
    table = rbl(tmp_path, "run", *flags[:-1], "20", "--attack", "crash", expect=SOME_FAILED)
    assert (table.err.count("it broke"), table.out.count("it broke")) == (1, 1)  # as it ends, and beside its row
    assert table.err.splitlines()[-1] == "2 of 2 cells evaluated, 0 stored before, 1 failed; results in rbl.db"
    for what in ("imported", "hook", "dataset", "attack", "system call", "library in C"):
        assert f"loud: {what}\n" in run.err
    for command in (
        ("plan", *flags),
        ("list", "attacks", *plugin),
        ("plugins", "list", *plugin),
        ("leaderboard", *plugin),
    ):
        done = rbl(tmp_path, *command, "--json")
        assert done.document
        assert "loud: imported" in done.err


STRANGER = """
import typer
from robustbench_lab import hookimpl
from robustbench_lab.contracts import CommandSpec

def hello(name: str) -> None:
    typer.echo(f"hello {name}")

@hookimpl
def rbl_commands():
    return [
        CommandSpec(name="hello", factory=hello),
        CommandSpec(name="crash", factory="no_such_module:crash"),
        CommandSpec(name="run", factory=hello),
    ]
"""


def test_a_command_of_an_installed_plugin_works_and_a_broken_one_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rbl: Rbl
) -> None:
    (tmp_path / "stranger.py").write_text(STRANGER)
    (tmp_path / "stranger-1.0.dist-info").mkdir()
    (tmp_path / "stranger-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n"
    )
    (tmp_path / "stranger-1.0.dist-info" / "entry_points.txt").write_text("[robustbench_lab]\nstranger = stranger\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = rbl(tmp_path, "hello", "you")
    assert done.out == "hello you\n"
    left_out = done.err.splitlines()
    assert [line.startswith("rbl: left out: command '") for line in left_out] == [True, True]
    assert "command 'crash' needs no_such_module" in left_out[0]
    assert left_out[1].endswith("command 'run' of stranger: rbl has a command of that name")
    assert {row["name"] for row in rbl(tmp_path, "list", "tasks", "--json").document} >= {"classification"}


# ---------------------------------------------------------------- a user's own model and data, from a file


def test_an_experiment_file_says_the_same_as_flags(tmp_path: Path, rbl: Rbl) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = (labels[:, None, None] * 120 + generator.integers(0, 100, (40, 6, 6))).astype(np.uint8)
    np.savez_compressed(tmp_path / "test.npz", images=images, labels=labels)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    by_file = rbl(tmp_path, "run", "experiment.toml", "--json").document["cells"]
    by_flags = rbl(tmp_path, "run", *FLAGS, "--json", "--quiet")
    assert by_flags.document["cells"] == by_file  # the seconds, too: nothing was computed
    assert by_flags.err == ""
    assert [(cell["attack"], cell["norm"], cell["defense"], cell["eps"]) for cell in by_file] == [
        (attack, norm, defense, 0.1)
        for defense in ("none", "bit-depth(bits=4)")
        for norm in ("linf", "l2")
        for attack in ("pgd(steps=5)", "noise")
    ]
    assert {cell["status"] for cell in by_file} == {"ok"}
    assert by_file[0]["metrics"]["clean_accuracy"]["value"] == 1.0
    flag_wins = rbl(tmp_path, "plan", "experiment.toml", "--norm", "linf", "--json").document["cells"]
    assert {cell["threat_model"] for cell in flag_wins} == {"linf(eps=0.1)"}


NET = """
import torch
from torch import nn

class Bright(nn.Module):
    def forward(self, x):
        brightness = x.flatten(1).mean(1) - 0.43
        return 20 * torch.stack([-brightness, brightness], 1)
"""

EXPERIMENT = """
model = "torch(path='net.py:Bright')"
dataset = "npz(path='test.npz')"
attacks = ["pgd(steps=5)", "noise"]
defenses = ["none", "bit-depth(bits=4)"]
norms = ["linf", "l2"]
eps = 0.1
seed = 1
"""

FLAGS = (
    *("--model", "torch(path='net.py:Bright')", "--dataset", "npz(path='test.npz')"),
    *("--attack", "pgd(steps=5)", "--attack", "noise", "--defense", "none", "--defense", "bit-depth(bits=4)"),
    *("--norm", "linf", "--norm", "l2", "--eps", "0.1", "--seed", "1"),
)


# ---------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not what they should be."""
    folder = tmp_path_factory.mktemp("bad")
    np.savez(folder / "wrong.npz", x=np.zeros((3, 8, 8)), y=np.zeros(3, dtype=int))
    (folder / "broken.toml").write_text("attacks = [")
    (folder / "misspelt.toml").write_text('atacks = ["pgd"]')
    (folder / "notes.txt").write_text("This is a text of more than a hundred bytes, and no database. " * 3)
    (folder / "crashes.py").write_text("import no_such_library")
    np.savez(folder / "tiny.npz", images=np.zeros((3, 8, 8)), labels=np.zeros(3, dtype=int))
    return folder


OWN_DATA = ("run", "--model", "digits-cnn", "--dataset")
TINY = (*OWN_DATA, "npz(path='tiny.npz')")
"""Quicker to plan than the bundled data."""
REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown flag": (("run", "--attak", "pgd"), USAGE, "No such option: --attak"),
    "unknown command": (("runn",), USAGE, "No such command 'runn'"),
    "unknown kind": (("list", "attack"), USAGE, "Invalid value for 'KIND': 'attack' is not one of 'models'"),
    "no number": (("run", "--samples", "many"), USAGE, "Invalid value for '--samples': must be a valid integer\n"),
    "unknown attack": ((*TINY, "--attack", "pdg"), USAGE, "there is no attack 'pdg'. Did you mean 'pgd'?"),
    "wrong type": (("run", "--attack", "pgd(steps=many)"), USAGE, "'many' is no value: write a number"),
    "too few steps": ((*TINY, "--attack", "pgd(steps=0)"), USAGE, "steps must be greater than or equal to 1, not 0"),
    "eps in grey levels": ((*TINY, "--eps", "8"), USAGE, "Did you mean 8/255 = 0.0314?"),
    "eps of nothing": ((*TINY, "--eps", "0"), USAGE, "eps must be above 0"),
    "no samples": ((*TINY, "--samples", "0"), USAGE, "--samples: must be greater than 0, not 0"),
    "missing data": ((*OWN_DATA, "npz(path='gone.npz')"), USAGE, "there is no file 'gone.npz'"),
    "wrong arrays": ((*OWN_DATA, "npz(path='wrong.npz')"), USAGE, "there is no array 'images'. There is: x, y."),
    "missing experiment": (("run", "gone.toml"), USAGE, "cannot read gone.toml"),
    "broken TOML": (("run", "broken.toml"), USAGE, "broken.toml is no valid TOML"),
    "unknown key": (("run", "misspelt.toml"), USAGE, "there is no setting 'atacks'. Did you mean 'attacks'?"),
    "missing plugin": (("run", "--plugin", "gone.py"), USAGE, "cannot read the plugin file"),
    "broken plugin": (("run", "--plugin", "crashes.py"), USAGE, "does not load: line 1: ModuleNotFoundError"),
    "missing device": ((*TINY, "--device", "cuda:7"), USAGE, "there is no device 'cuda:7' on this machine"),
    "unknown device": (("run", "--device", "gpu"), USAGE, "--device: must be auto, cpu, cuda, cuda:N or mps"),
    "missing folder": ((*TINY, "--db", "gone/rbl.db"), STORE, "the folder gone does not exist; create it first"),
    "no database": ((*TINY, "--db", "notes.txt"), STORE, "notes.txt: no SQLite database: name another file"),
    "nothing stored": (("leaderboard",), STORE, "no results in rbl.db yet: run `rbl run` first"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(bad_files: Path, what: str, rbl: Rbl) -> None:
    arguments, code, said = REFUSED[what]
    before = sorted(bad_files.iterdir())
    done = rbl(bad_files, *arguments, expect=code)
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("rbl: ")
    assert said in done.err
    assert sorted(bad_files.iterdir()) == before


def test_an_ambiguous_or_unknown_beginning_of_an_id_is_refused(finished: Finished, rbl: Rbl) -> None:
    ids = sorted(cell["cell_id"] for cell in finished.cells.values())
    ambiguous = rbl(finished.folder, "show", "", expect=USAGE)
    assert ambiguous.err == f"rbl: 2 cells begin with '': write more of the id. There is: {', '.join(ids)}\n"
    unknown = rbl(finished.folder, "show", "zzz", expect=USAGE)
    assert unknown.err.startswith("rbl: no cell in rbl.db begins with 'zzz'.")
    assert unknown.err.count("\n") == 1


def test_a_group_without_a_command_shows_what_it_has(tmp_path: Path, rbl: Rbl) -> None:
    done = rbl(tmp_path, "plugins", expect=USAGE)
    assert all(command in done.out for command in ("list", "check", "new"))
    assert done.err == ""


def test_ctrl_c_after_all_is_said_changes_no_exit_code() -> None:
    program = """
import os, signal, sys
from robustbench_lab.cli import main

main._wait_no_longer = lambda code: os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["rbl", "run", "--attack", "pdg"]
main.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rbl: there is no attack 'pdg'")
    assert "KeyboardInterrupt" not in done.stderr
