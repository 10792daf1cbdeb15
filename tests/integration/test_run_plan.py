"""From a spec to cells: which combinations there are, what is left out, what is refused, and what a cell's id is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from robustbench_lab import hookimpl
from robustbench_lab.api import InMemoryDataset
from robustbench_lab.catalog import Catalog
from robustbench_lab.contracts import AttackSpec, DatasetSpec, DefenseSpec, ExecutorSpec, ModelSpec, TaskSpec
from robustbench_lab.errors import RblError
from robustbench_lab.exit_codes import ExitCode
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import RunPlan, make_plan
from robustbench_lab.plugin_tools.image_arrays import image_arrays
from robustbench_lab.tasks.classification import Classification

SAMPLES = 6

NET = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
"""


def never_called(*args: Any, **params: Any) -> Any:
    raise AssertionError("a plan evaluates nothing, so it makes no model, defense or attack")


def squares(*, grey: float = 0.5) -> Any:
    pixels = np.full((SAMPLES, 2, 2), grey, dtype=np.float32)
    return image_arrays(pixels, np.arange(SAMPLES) % 3, source="squares")


def broken_reader() -> Any:
    raise ValueError("column 3\nis damaged")


def nothing_there() -> Any:
    return InMemoryDataset.of(np.zeros((0, 1, 2, 2), dtype=np.float32), np.zeros(0, dtype=np.int64))


def one_norm_attack(problem: Any, *, steps: int = 5, rule: str = "sign") -> None:
    never_called(problem, steps, rule)


class Toys:
    """Components that a plan can name and must not run."""

    __version__ = "1"

    @hookimpl
    def rbl_models(self) -> list[ModelSpec]:
        return [
            ModelSpec(name="net-a", factory=never_called),
            ModelSpec(name="net-b", factory=never_called),
            ModelSpec(name="for-circles", factory=never_called, fits=("circles",)),
            ModelSpec(name="counter", factory=never_called, tasks=("counting",)),
            ModelSpec(name="anything", factory=never_called, tasks=()),
        ]

    @hookimpl
    def rbl_datasets(self) -> list[DatasetSpec]:
        spec = DatasetSpec(name="squares", factory=squares, family="squares", default_norm="l2", default_eps=0.5)
        return [
            spec,
            DatasetSpec(name="dots", factory=squares, tasks=("counting",)),
            DatasetSpec(name="damaged", factory=broken_reader),
            DatasetSpec(name="empty", factory=nothing_there),
        ]

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return [
            AttackSpec(name="only-linf", factory=one_norm_attack, estimate_passes=lambda given: (given["steps"], 1)),
            AttackSpec(name="count-up", factory=one_norm_attack, tasks=("counting",)),
        ]

    @hookimpl
    def rbl_defenses(self) -> list[DefenseSpec]:
        return [DefenseSpec(name="shield", factory=never_called)]

    @hookimpl
    def rbl_tasks(self) -> list[TaskSpec]:
        return [TaskSpec(name="counting", factory=lambda: Classification("counting"), tasks=("counting",))]

    @hookimpl
    def rbl_executors(self) -> list[ExecutorSpec]:
        return [ExecutorSpec(name="elsewhere", factory=never_called)]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog(extra=[("toys", Toys())])


Plan = Callable[..., RunPlan]


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    """`plan(models=..., ...)`: the usual case with what the test changes."""

    def made(**fields: Any) -> RunPlan:
        usual: dict[str, Any] = {"models": ["net-a"], "datasets": ["squares"], "attacks": ["pgd"]}
        return make_plan(ExperimentSpec.from_flags(**{**usual, **fields}), catalog)

    return made


@pytest.fixture
def refused(plan: Plan) -> Callable[..., str]:
    """The message of the error that such a spec raises; always one line."""

    def message(**fields: Any) -> str:
        with pytest.raises(RblError) as caught:
            plan(**fields)
        assert caught.value.exit_code is ExitCode.USAGE
        text = str(caught.value)
        assert "\n" not in text
        return text

    return message


# ---------------------------------------------------------------- what is combined


def test_every_combination_is_a_cell_of_its_own_in_the_order_of_the_spec(plan: Plan) -> None:
    lists = {
        "models": ["net-a", "net-b"],
        "defenses": ["none", "shield"],
        "norms": ["linf", "l2"],
        "eps": [0.1, 0.2],
        "objectives": ["untargeted", "targeted"],
        "attacks": ["pgd", "pgd(steps=3)", "noise"],
        "adversary": ["adaptive", "oblivious"],
        "seeds": [0, 1],
    }
    cells = plan(**lists).cells
    assert len(cells) == np.prod([len(values) for values in lists.values()])
    assert len({cell.cell_id for cell in cells}) == len(cells)
    assert [cell.model.label for cell in cells] == sorted(cell.model.label for cell in cells)
    assert [(cell.attack.label, cell.adversary, cell.seed) for cell in cells[:4]] == [
        ("pgd", "adaptive", 0),
        ("pgd", "adaptive", 1),
        ("pgd", "oblivious", 0),
        ("pgd", "oblivious", 1),
    ]


def test_what_is_not_named_is_the_usual_choice(plan: Plan) -> None:
    (cell,) = plan(attacks=[]).cells
    assert (cell.attack.name, cell.defense.name, cell.objective.name) == ("pgd", "none", "untargeted")
    assert (cell.norm, cell.eps, cell.seed, cell.adversary) == ("l2", 0.5, 0, "adaptive")
    assert cell.samples.sample_ids == tuple(str(index) for index in range(SAMPLES))
    assert cell.attack.params["steps"] > 1


def test_an_eps_alone_keeps_the_usual_norm_of_the_dataset(plan: Plan) -> None:
    cells = plan(eps=["8/255", 0.25]).cells
    assert [(cell.norm, cell.eps) for cell in cells] == [("l2", 8 / 255), ("l2", 0.25)]


def test_threat_models_can_be_written_out(plan: Plan) -> None:
    cells = plan(threat_models=["linf(eps=8/255)", "l1(eps=2)"]).cells
    assert [(cell.norm, cell.eps) for cell in cells] == [("linf", 8 / 255), ("l1", 2.0)]
    assert cells[0].cell_id == plan(norms=["linf"], eps=["8/255"]).cells[0].cell_id


def test_with_nothing_named_the_bundled_models_meet_their_own_data() -> None:
    cells = make_plan(ExperimentSpec.from_flags(), open_catalog()).cells
    assert {cell.attack.name for cell in cells} == {"pgd"}
    datasets = {cell.model.name: cell.dataset.name for cell in cells}
    assert len(datasets) == len(cells)
    assert {datasets[name] for name in ("digits-cnn", "digits-cnn-at")} == {"digits"}
    assert {datasets[name] for name in ("scene-fcos", "scene-fcos-at")} == {"digit-scenes"}


def test_the_same_combination_named_twice_is_one_cell(plan: Plan) -> None:
    (cell,) = plan().cells
    written_out = f"pgd(steps={cell.attack.params['steps']})"
    assert len(plan(attacks=["pgd", written_out, "pgd"], seeds=[3, 3]).cells) == 1


def test_the_first_samples_are_taken(plan: Plan) -> None:
    (cell,) = plan(samples=4).cells
    assert (cell.samples.sample_ids, cell.samples.indices) == (("0", "1", "2", "3"), (0, 1, 2, 3))


def test_an_attack_that_can_tell_says_how_many_passes_it_takes(plan: Plan) -> None:
    cells = plan(attacks=["pgd(steps=10, restarts=2)", "only-linf(steps=7)", "noise"], norms=["linf"], eps=[0.1]).cells
    assert [(cell.estimated_forward, cell.estimated_backward) for cell in cells] == [(22, 20), (7, 1), (10, 0)]


# ---------------------------------------------------------------- what is left out


def test_what_does_not_fit_is_left_out_with_its_reason_and_the_rest_is_planned(plan: Plan) -> None:
    made = plan(
        models=["net-a", "for-circles", "counter"],
        datasets=["squares", "dots"],
        attacks=["pgd", "only-linf", "count-up"],
        norms=["l2"],
        eps=[0.5],
    )
    assert [(cell.model.name, cell.dataset.name, cell.attack.name) for cell in made.cells] == [
        ("net-a", "squares", "pgd")
    ]
    assert {one.label: one.reason for one in made.left_out} == {
        "net-a on dots": "the model is for classification, the dataset for counting",
        "for-circles on squares": "the model was made for circles, not squares",
        "for-circles on dots": "the model is for classification, the dataset for counting",
        "counter on squares": "the model is for counting, the dataset for classification",
        "only-linf with l2(eps=0.5)": "the attack knows linf only",
        "count-up on net-a": "it is for counting, not classification",
        "untargeted on counter": "it is for classification, detection and segmentation, not counting",
    }


def test_only_models_of_the_named_task_are_planned(plan: Plan) -> None:
    made = plan(models=["net-a", "counter"], tasks=["classification"])
    assert [cell.model.name for cell in made.cells] == ["net-a"]
    assert [(one.label, one.reason) for one in made.left_out] == [
        ("counter on squares", "the model is for counting, not classification")
    ]


def test_a_model_for_any_task_takes_the_task_of_its_data(plan: Plan) -> None:
    made = plan(models=["anything"])
    assert [cell.task for cell in made.cells] == ["classification"]
    with pytest.raises(
        RblError, match="untargeted on anything: it is for classification, detection and segmentation, not counting"
    ):
        plan(models=["anything"], datasets=["dots"])
    with pytest.raises(RblError, match="anything on squares: the dataset is for classification, not counting"):
        plan(models=["anything"], tasks=["counting"])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"models": ["net-aa"]}, "there is no model 'net-aa'. Did you mean 'net-a'?"),
        ({"attacks": ["pdg"]}, "there is no attack 'pdg'. Did you mean 'pgd'?"),
        ({"defenses": ["shild"]}, "there is no defense 'shild'. Did you mean 'shield'?"),
        ({"objectives": ["untarget"]}, "there is no objective 'untarget'. Did you mean 'untargeted'?"),
        ({"norms": ["linff"], "eps": [0.1]}, "there is no threat model 'linff'. Did you mean 'linf'?"),
        ({"tasks": ["classificaton"]}, "there is no task 'classificaton'. Did you mean 'classification'?"),
        ({"attacks": ["pgd(step=3)"]}, "pgd(step=3): attack 'pgd' has no parameter 'step'. Did you mean 'steps'?"),
        (
            {"norms": ["linf"], "eps": [8]},
            "linf eps=8 is above the data's range 0..1. Did you mean 8/255 = 0.0314?",
        ),
        (
            {"norms": ["linf"], "eps": [0]},
            "linf eps=0: eps must be above 0; the accuracy without an attack is clean_accuracy",
        ),
        ({"norms": ["linf"]}, "there is no usual budget for linf on this dataset: name one with --eps"),
        (
            {"norms": ["linf"], "eps": [0.1], "threat_models": ["linf(eps=0.1)"]},
            "give either threat models or norms with eps, not both",
        ),
        ({"samples": 7}, "dataset 'squares' has 6 samples, fewer than the 7 asked for"),
        ({"datasets": ["damaged"]}, "dataset 'damaged' of toys: ValueError: column 3 is damaged"),
        ({"datasets": ["empty"]}, "dataset 'empty' has no samples: check what it reads"),
        ({"datasets": []}, "model 'net-a' brings no data of its own: name some with --dataset"),
        (
            {"models": ["counter"]},
            "nothing to run: counter on squares: the model is for counting, the dataset for classification",
        ),
        ({"attacks": ["only-linf"]}, "nothing to run: only-linf with l2(eps=0.5): the attack knows linf only"),
        (
            {"models": [], "datasets": [], "tasks": ["counting"]},
            "nothing to run: no model is named and none is bundled for this task",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_run_is_refused_in_one_line(
    refused: Callable[..., str], fields: dict[str, Any], message: str
) -> None:
    assert refused(**fields) == message


def test_of_data_that_nobody_named_all_samples_are_taken_where_there_are_fewer(plan: Plan) -> None:
    cells = plan(models=["digits-cnn"], datasets=[], samples=1_000_000).cells
    assert len(cells) == 1
    assert 100 < len(cells[0].samples.sample_ids) < 1_000_000
    assert len(plan(models=["digits-cnn"], datasets=[], samples=7).cells[0].samples.sample_ids) == 7


# ---------------------------------------------------------------- what a cell's id is

CASE: dict[str, Any] = {
    "models": ["torch(path='net.py:make', weights='net.safetensors')"],
    "datasets": ["npz(path='data.npz')"],
    "attacks": ["pgd(steps=7)"],
    "norms": ["linf"],
    "eps": ["8/255"],
}


def write_case(folder: Path, *, weight: float = 0.5, pixel: float = 0.25, script: str = NET) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(script)
    weights = {"1.weight": np.full((3, 4), weight, np.float32), "1.bias": np.zeros(3, np.float32)}
    save_file(weights, folder / "net.safetensors")
    images = np.full((SAMPLES, 1, 2, 2), pixel, np.float32)
    np.savez_compressed(folder / "data.npz", images=images, labels=np.arange(SAMPLES) % 3)


def one_id(catalog: Catalog, **changes: Any) -> str:
    (cell,) = make_plan(ExperimentSpec.from_flags(**{**CASE, **changes}), catalog).cells
    return cell.cell_id


@pytest.fixture
def case(in_tmp_path: Path, catalog: Catalog) -> Callable[..., str]:
    """`case(**changes)`: the id of the cell in this folder with what the test changes."""
    write_case(in_tmp_path)
    return lambda **changes: one_id(catalog, **changes)


def test_an_id_is_the_same_in_another_process_and_another_folder(
    case: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = case()
    (tmp_path / "elsewhere").mkdir()
    for name in ("net.py", "net.safetensors", "data.npz"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    absolute = {
        "models": [f"torch(path='{tmp_path}/elsewhere/net.py:make', weights='elsewhere/net.safetensors')"],
        "datasets": ["npz(path='elsewhere/data.npz')"],
    }
    assert case(**absolute) == first
    flags = [text for field, (value,) in CASE.items() for text in (FLAG[field], value)]
    rbl = [str(Path(sys.executable).with_name("rbl")), "plan", "--json", *flags]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(rbl, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=True)
    assert [cell["cell_id"] for cell in json.loads(done.stdout)["cells"]] == [first]


FLAG = {"models": "--model", "datasets": "--dataset", "attacks": "--attack", "norms": "--norm", "eps": "--eps"}


@pytest.mark.parametrize(
    "files",
    [{"weight": 0.75}, {"pixel": 0.5}, {"script": NET + "# another script\n"}],
    ids=["weights", "data", "script"],
)
def test_other_file_contents_give_another_id(case: Callable[..., str], tmp_path: Path, files: dict[str, Any]) -> None:
    before = case()
    write_case(tmp_path, **files)
    assert case() != before
    write_case(tmp_path)
    assert case() == before


@pytest.mark.parametrize(
    "change",
    [
        {"attacks": ["pgd(steps=8)"]},
        {"attacks": ["pgd(steps=7, momentum=0.5)"]},
        {"attacks": ["only-linf"]},
        {"seeds": [1]},
        {"eps": [0.03]},
        {"norms": ["l2"]},
        {"defenses": ["shield"]},
        {"defenses": ["shield"], "adversary": ["oblivious"]},
        {"objectives": ["targeted"]},
        {"objectives": ["targeted(target='second')"]},
        {"samples": SAMPLES - 1},
        {"models": ["net-a"]},
    ],
    ids=lambda change: ",".join(f"{key}={value}" for key, value in change.items()),
)
def test_each_thing_that_defines_a_cell_changes_its_id(case: Callable[..., str], change: dict[str, Any]) -> None:
    assert case(**change) != case()


def test_all_those_changes_give_different_ids(case: Callable[..., str]) -> None:
    defended = [{"defenses": ["shield"]}, {"defenses": ["shield"], "adversary": ["oblivious"]}]
    targeted = [{"objectives": ["targeted"]}, {"objectives": ["targeted(target='second')"]}]
    assert len({case(**change) for change in [*defended, *targeted]}) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"attacks": ["pgd(steps=7, restarts=1)"]},
        {"attacks": [" pgd( steps = 7 ) "]},
        {"eps": [8 / 255]},
        {"objectives": ["untargeted(stop_on_success=True)"]},
        {"samples": SAMPLES},
        {"devices": ["cuda:3"]},
        {"batch_size": 3},
        {"executor": "elsewhere"},
        {"database": "another.db"},
        {"artifacts": "elsewhere", "save_adversarials": True},
        {"fresh": True, "retry_failed": True},
    ],
    ids=lambda change: ",".join(change),
)
def test_what_changes_no_number_does_not_change_the_id(case: Callable[..., str], change: dict[str, Any]) -> None:
    assert case(**change) == case()


def test_another_version_of_a_plugin_without_versions_of_its_own_gives_other_ids(plan: Plan) -> None:
    newer = Toys()
    newer.__version__ = "2"  # type: ignore[misc]
    spec = ExperimentSpec.from_flags(models=["net-a"], datasets=["squares"])
    (after,) = make_plan(spec, open_catalog(extra=[("toys", newer)])).cells
    (before,) = plan(attacks=[]).cells
    assert after.cell_id != before.cell_id
    assert after.attack.identity == before.attack.identity
