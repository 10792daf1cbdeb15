"""`robustbench_lab.evaluate`: a module and arrays at hand, through the same pipeline as `rbl run`."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustbench_lab
from robustbench_lab.api import model_fingerprint
from robustbench_lab.errors import RblError, UsageError
from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.records import Status

EPS = 0.05


class Net(nn.Module):
    """What users hand in: normalisation by plain attributes, batch norm, dropout, a tensor nobody registered."""

    def __init__(self, scale: float = 4.0, shift: float = 0.5) -> None:
        super().__init__()
        self.scale = scale
        self.shift = torch.tensor(shift)
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features((x - self.shift) * self.scale).flatten(1))
        return logits


def data() -> tuple[Tensor, Tensor]:
    """80 images `[80, 1, 6, 6]`, brighter at the left or at the right."""
    labels = torch.arange(80) % 2
    images = 0.5 + 0.1 * torch.randn(80, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    images[labels == 0, :, :, :3] += 0.1
    images[labels == 1, :, :, 3:] += 0.1
    return images.clamp(0, 1), labels


@pytest.fixture(scope="module")
def trained() -> Net:
    torch.manual_seed(0)
    net, (images, labels) = Net().train(), data()
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    return net.eval()


def test_a_module_and_tensors_give_outcomes_metrics_and_a_leaderboard(trained: Net) -> None:
    images, labels = data()
    result = robustbench_lab.evaluate(trained, (images, labels), ["pgd(steps=10)", "noise"], norm="linf", eps=EPS)
    pgd, noise = result.records
    assert [record.cell.attack.label for record in result.records] == ["pgd(steps=10)", "noise"]
    assert pgd.outcomes is not None
    correct = (trained(images).argmax(1) == labels).numpy()
    assert np.array_equal(pgd.outcomes.clean_correct, correct)
    assert pgd.metrics["clean_accuracy"].value == correct.mean()
    assert 0 < pgd.metrics["robust_accuracy"].value < noise.metrics["robust_accuracy"].value
    assert (pgd.cell.norm, pgd.cell.eps, pgd.cell.samples.sample_ids[:2]) == ("linf", EPS, ("0", "1"))
    (table,) = result.leaderboard.tables
    assert [row.model for row in table.rows] == ["in-memory"]
    assert re.search(r"^ 1  in-memory.*pgd\(steps=10\)", repr(result), re.MULTILINE)


def test_a_data_frame_has_a_row_for_each_attack_and_the_columns_of_the_json_document(trained: Net) -> None:
    frame = robustbench_lab.evaluate(trained, data(), ["fgsm", "noise"], eps="8/255", samples=20).to_dataframe()
    assert list(frame["attack"]) == ["fgsm", "noise"]
    assert list(frame["samples"]) == [20, 20]
    assert list(frame["eps"]) == [8 / 255, 8 / 255]
    wanted = {"cell_id", "status", "reason", "task", "model", "defense", "dataset", "objective", "norm", "seed"}
    wanted |= {"forward_per_sample", "backward_per_sample", "wall_seconds", "verdict", "flags", "findings"}
    for metric in ("clean_accuracy", "robust_accuracy"):
        wanted |= {metric, f"{metric}_low", f"{metric}_high"}
        assert frame[metric].dtype == np.float64
        assert bool(((frame[f"{metric}_low"] <= frame[metric]) & (frame[metric] <= frame[f"{metric}_high"])).all())
    assert wanted <= set(frame.columns)


def test_arrays_say_the_same_as_tensors(trained: Net) -> None:
    images, labels = data()
    by_tensor = robustbench_lab.evaluate(trained, (images, labels), ["fgsm"], eps=EPS)
    by_array = robustbench_lab.evaluate(trained, (images.double().numpy(), labels.int().numpy()), ["fgsm"], eps=EPS)
    assert by_tensor.records[0].cell.cell_id == by_array.records[0].cell.cell_id
    assert by_tensor.records[0].metrics == by_array.records[0].metrics


def test_in_memory_data_have_a_usual_budget_and_names_of_the_catalog_work_too() -> None:
    (record,) = robustbench_lab.evaluate("digits-cnn", "digits", ["fgsm"], samples=25).records
    assert (record.cell.model.label, record.cell.dataset.label) == ("digits-cnn", "digits")
    images = torch.rand(5, 1, 8, 8)
    (record,) = robustbench_lab.evaluate("digits-cnn", (images, torch.arange(5)), ["fgsm"]).records
    assert (record.cell.norm, record.cell.eps) == ("linf", 8 / 255)
    assert record.status is Status.OK


def test_the_rest_of_an_experiment_can_be_given_by_its_fields(trained: Net) -> None:
    result = robustbench_lab.evaluate(
        trained, data(), ["fgsm"], eps=EPS, defenses=["none", "bit-depth(bits=3)"], objectives=["targeted"], seed=3
    )
    assert [record.cell.defense.label for record in result.records] == ["none", "bit-depth(bits=3)"]
    assert {(record.cell.objective.name, record.cell.seed) for record in result.records} == {("targeted", 3)}


def test_the_users_module_is_left_as_it_was(trained: Net) -> None:
    net = copy.deepcopy(trained).train()
    net.features[0].weight.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    robustbench_lab.evaluate(net, data(), ["pgd(steps=3)"], eps=EPS, device="cpu")
    assert all(module.training for module in net.modules())
    assert [name for name, one in net.named_parameters() if not one.requires_grad] == ["features.0.weight"]
    assert torch.equal(net.head.weight.grad, torch.ones_like(net.head.weight))
    assert {one.device.type for one in net.parameters()} == {"cpu"}
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_module_in_training_mode_is_evaluated_in_eval_mode(trained: Net) -> None:
    first, second = (
        robustbench_lab.evaluate(net, data(), ["fgsm"], eps=EPS).records[0]
        for net in (trained, copy.deepcopy(trained).train())
    )
    assert first.metrics == second.metrics
    assert first.cell.cell_id == second.cell.cell_id


def test_nothing_is_left_in_the_folder_where_no_database_is_named(trained: Net, in_tmp_path: Path) -> None:
    robustbench_lab.evaluate(trained, data(), ["fgsm"], eps=EPS)
    assert list(in_tmp_path.iterdir()) == []


# ---------------------------------------------------------------- a database is kept


class Passes:
    """Counts what goes through any Net."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        forward = nn.Linear.forward

        def counted(module: nn.Linear, x: Tensor) -> Tensor:
            self.count += len(x)
            return forward(module, x)

        monkeypatch.setattr(nn.Linear, "forward", counted)


def test_a_kept_database_saves_the_second_call_its_work(
    trained: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(net: nn.Module) -> Any:
        return robustbench_lab.evaluate(net, data(), ["fgsm"], eps=EPS, database=tmp_path / "kept.db").records[0]

    passes = Passes(monkeypatch)
    first = evaluated(trained)
    done = passes.count
    assert done > 0
    second = evaluated(copy.deepcopy(trained))
    assert passes.count == done
    assert second.cell.cell_id == first.cell.cell_id
    assert second.metrics == first.metrics
    other = copy.deepcopy(trained)
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    assert evaluated(other).cell.cell_id != first.cell.cell_id
    assert passes.count > done


def mirrored(net: Net, x: Tensor) -> Tensor:
    return Net.forward(net, x.flip(-1))


SAME_NAME_OTHER_CODE = type("Net", (Net,), {"forward": mirrored})
"""What a notebook makes of a class whose cell is edited and run again."""


@pytest.mark.parametrize(
    "change",
    [
        lambda net: nn.init.ones_(net.head.weight),
        lambda net: net.features[1].running_mean.add_(1),
        lambda net: setattr(net, "scale", 4.5),
        lambda net: net.shift.add_(0.25),
        lambda net: setattr(net.features[1], "eps", 1e-3),
        lambda net: setattr(net, "features", net.features[:-1]),
        lambda net: setattr(net, "__class__", SAME_NAME_OTHER_CODE),
    ],
    ids=["weights", "buffers", "plain attribute", "plain tensor", "layer setting", "structure", "code"],
)
def test_whatever_changes_the_predictions_changes_the_fingerprint(change: Callable[[Net], Any]) -> None:
    torch.manual_seed(0)
    net = Net()
    before = model_fingerprint(net)
    assert model_fingerprint(copy.deepcopy(net)) == before
    assert model_fingerprint(net.train(not net.training)) == before
    with torch.no_grad():
        change(net)
    assert model_fingerprint(net) != before


def test_a_model_that_was_made_ready_for_attacks_is_the_same_model() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Flatten())
    before, name = model_fingerprint(net), repr(net)
    ready(net, torch.device("cpu"))
    net(torch.rand(2, 3, 9, 9, requires_grad=True)).sum().backward()
    assert (model_fingerprint(net), repr(net)) == (before, name)


# ---------------------------------------------------------------- what is refused


def refused(*arguments: Any, **named: Any) -> str:
    with pytest.raises(RblError) as caught:
        robustbench_lab.evaluate(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            (np.zeros((4, 1, 6, 6), dtype=np.uint8), np.zeros(4, dtype=int)),
            "inputs are torch.uint8: convert them to float in [0, 1], for images x.float() / 255",
        ),
        (
            (torch.zeros(4, 1, 6, 6), torch.zeros(3, dtype=torch.int64)),
            "4 inputs need as many labels [N]; these have shape [3]",
        ),
        (
            (torch.zeros(4, 1, 6, 6), torch.eye(4)),
            "4 inputs need as many labels [N]; these have shape [4, 4]",
        ),
        ((torch.zeros(4, 1, 6, 6), torch.zeros(4)), "labels are torch.float32: give class numbers as integers"),
        (
            torch.zeros(4, 1, 6, 6),
            "dataset is a Tensor: give a pair (inputs, labels), or the name of a dataset",
        ),
        ("digit", "there is no dataset 'digit'. Did you mean 'digits'?"),
    ],
)
def test_data_that_cannot_be_meant_are_refused_in_one_line(trained: Net, dataset: Any, message: str) -> None:
    assert refused(trained, dataset) == message


def test_a_function_is_no_model(trained: Net) -> None:
    assert refused(trained.forward, data()) == "model is a method: give a torch.nn.Module, or the name of a model"


def test_wrong_attacks_and_fields_are_refused_in_one_line(trained: Net) -> None:
    assert refused(trained, data(), ["pdg"]) == "there is no attack 'pdg'. Did you mean 'pgd'?"
    assert refused(trained, data(), eps=8).endswith("Did you mean 8/255 = 0.0314?")
    assert refused(trained, data(), sead=1) == "there is no setting 'sead'. Did you mean 'seeds'?"


def test_inputs_outside_the_unit_range_skip_the_cell_and_say_so(trained: Net) -> None:
    images, labels = data()
    (record,) = robustbench_lab.evaluate(trained, (images * 255, labels), ["fgsm"]).records
    assert record.status is Status.SKIPPED
    assert record.reason is not None
    assert record.reason.endswith("outside 0..1: divide them by 255")


def test_the_error_of_a_refusal_is_a_usage_error(trained: Net) -> None:
    with pytest.raises(UsageError):
        robustbench_lab.evaluate(trained, data(), eps=0)


class Locked(nn.Module):
    """A module with something that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.net = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.flatten(1))


def test_what_only_python_knows_of_is_said_in_one_line() -> None:
    inputs = torch.rand(3, 1, 2, 2)
    with pytest.raises(UsageError, match="inputs and targets must be numbers: TypeError"):
        robustbench_lab.evaluate(nn.Flatten(), (inputs, ["cat", "dog", "cat"]))
    (record,) = robustbench_lab.evaluate(Locked(), (inputs, [0, 1, 0])).records
    assert str(record.reason).startswith("the model cannot be copied (copy.deepcopy: TypeError: cannot pickle")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
def test_torchscript_is_a_module_like_others(trained: Net, tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = trained.features, trained.head

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features((x - 0.5) * 4.0).flatten(1))

    torch.jit.trace(Plain().eval(), data()[0][:2]).save(str(tmp_path / "net.ts"))  # type: ignore[no-untyped-call]
    first, second = (torch.jit.load(tmp_path / "net.ts") for _ in range(2))  # type: ignore[no-untyped-call]
    assert model_fingerprint(first) == model_fingerprint(second)
    with torch.no_grad():
        next(second.parameters()).add_(0.1)
    assert model_fingerprint(first) != model_fingerprint(second)
    wanted, found = (
        robustbench_lab.evaluate(model, data(), ["pgd(steps=12)"], norm="linf", eps=EPS).records[0]
        for model in (trained, first)
    )
    assert found.status is Status.OK
    assert found.metrics == wanted.metrics
