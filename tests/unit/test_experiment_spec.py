"""Flags and TOML files say the same thing, and what is wrong with either is one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.errors import UsageError
from robustbench_lab.planning.experiment_spec import ExperimentSpec

FULL = """
attacks = ["pgd(steps=50, restarts=2)", "fgsm"]
models = "onnx(path='net.onnx', mean=[0.49, 0.48])"
threat-models = ["linf(eps=8/255)"]
norms = ["linf"]
eps = ["8/255", 0.5, 1]
tasks = ["classification"]
samples = 1000
seeds = [0, 1]
devices = ["cuda:1"]
adversary = ["adaptive", "oblivious"]
executor = "local(workers=2)"
batch_size = 64
database = "team.db"
artifacts = "adversarials"
save_adversarials = true
plugins = ["mine.py"]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "experiment.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_and_flags_that_say_the_same_give_the_same_spec(tmp_path: Path) -> None:
    flags = {
        "attacks": ["pgd(steps=50, restarts=2)", "fgsm"],
        "models": ["onnx(path='net.onnx', mean=[0.49,0.48])"],
        "threat_models": ["linf(eps=8/255)"],
        "norms": ["linf"],
        "eps": ["8/255", "0.5", "1"],
        "tasks": ["classification"],
        "samples": 1000,
        "seeds": ["0", "1"],
        "devices": ["cuda:1"],
        "adversary": ["adaptive", "oblivious"],
        "executor": "local(workers=2)",
        "batch_size": 64,
        "database": "team.db",
        "artifacts": "adversarials",
        "save_adversarials": True,
        "plugins": ["mine.py"],
    }
    spec = ExperimentSpec.from_toml(write(tmp_path, FULL))
    assert spec == ExperimentSpec.from_flags(**flags)
    assert spec.attacks == [Component("pgd", {"steps": 50, "restarts": 2}), Component("fgsm", {})]
    assert spec.eps == [8 / 255, 0.5, 1.0]
    assert all(type(eps) is float for eps in spec.eps)


def test_nothing_given_means_the_usual_choices() -> None:
    spec = ExperimentSpec.from_flags(attacks=None, models=[], seeds=(), samples=None)
    assert spec == ExperimentSpec()
    assert (spec.seeds, spec.devices, spec.adversary) == ([0], ["auto"], ["adaptive"])
    assert (spec.executor, spec.database, spec.attacks) == (Component("auto", {}), "rbl.db", [])


def test_devices_may_be_a_list_in_one_text() -> None:
    assert ExperimentSpec.from_flags(devices=["cuda:0, cuda:2", "cpu"]).devices == ["cuda:0", "cuda:2", "cpu"]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("workers", 0, "--workers: "),
        ("slots_per_gpu", -1, "--slots-per-gpu: "),
        ("unit_timeout", 0.0, "--unit-timeout: "),
        ("max_hours", float("inf"), "--max-hours: "),
        ("order", "random", "--order: "),
        ("devices", "cpu,", "--device: must be auto, cpu, cuda, cuda:N or mps, not ''"),
    ],
)
def test_limits_and_slots_must_make_sense(setting: str, value: object, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        ExperimentSpec.from_flags(**{setting: value})
    assert str(refused.value).startswith(message)


def test_a_flag_replaces_the_value_of_the_file_and_leaves_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path, FULL)
    spec = ExperimentSpec.from_file_and_flags(file, {"attacks": ["noise"], "samples": None, "eps": ["2/255"]})
    expected = ExperimentSpec.from_toml(file).to_json() | {"attacks": ["noise"], "eps": [2 / 255]}
    assert spec.to_json() == expected


def test_without_a_file_the_flags_are_all() -> None:
    assert ExperimentSpec.from_file_and_flags(None, {"samples": 3}) == ExperimentSpec.from_flags(samples=3)


@pytest.mark.parametrize("key", ["seed", "seeds"])
def test_the_flag_name_and_the_plural_are_the_same_key(tmp_path: Path, key: str) -> None:
    assert ExperimentSpec.from_toml(write(tmp_path, f"{key} = 7")).seeds == [7]


def test_the_spec_as_json_gives_the_same_spec_again(tmp_path: Path) -> None:
    spec = ExperimentSpec.from_toml(write(tmp_path, FULL))
    stored = json.loads(json.dumps(spec.to_json()))
    assert ExperimentSpec.from_flags(**stored) == spec
    assert stored["attacks"] == ["pgd(restarts=2, steps=50)", "fgsm"]


@given(st.lists(st.fractions(min_value=0, max_value=100, max_denominator=1000), min_size=1, max_size=3))
def test_budgets_are_read_as_fractions_exactly(budgets: list) -> None:
    spec = ExperimentSpec.from_flags(eps=[f"{one.numerator}/{one.denominator}" for one in budgets])
    assert spec.eps == [one.numerator / one.denominator for one in budgets]


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ExperimentSpec().samples = 3


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("atacks = ['pgd']", "there is no setting 'atacks'. Did you mean 'attacks'?"),
        ("seed = 1\nseeds = [1]", "'seed' and 'seeds' are the same setting: keep one"),
        ("samples = 'many'", "samples: must be a valid integer, not 'many'"),
        ("samples = 2.5", "samples: must be a valid integer, not 2.5"),
        ("samples = true", "samples: must be a valid integer, not True"),
        ("samples = 0", "samples: must be greater than 0, not 0"),
        ("batch_size = -1", "batch_size: must be greater than 0"),
        ("seeds = [0, 'x']", "seeds[1]: must be a valid integer, not 'x'"),
        ("seeds = [-1]", "seeds[0]: must be greater than or equal to 0"),
        ("eps = 'big'", "eps[0]: 'big' is not a number: write it as 0.03, 1e-2 or 8/255"),
        ("eps = [-0.1]", "eps[0]: must be greater than or equal to 0"),
        ("eps = inf", "eps[0]: must be a finite number"),
        ("eps = true", "eps[0]: must be a valid number, not True"),
        ("attacks = ['fgsm', 'pgd(steps=50']", "attacks[1]: pgd(steps=50: missing ')'"),
        ("attacks = [3]", "attacks[0]: must be a component such as 'pgd(steps=50)', not 3"),
        ("devices = ['gpu']", "devices[0]: must be auto, cpu, cuda, cuda:N or mps, not 'gpu'"),
        ("devices = ['cuda:x']", "devices[0]: must be auto"),
        ("devices = ['cpu\\n']", "devices[0]: must be auto"),
        (
            "adversary = ['clever']",
            "adversary[0]: must be 'adaptive', 'oblivious' or transfer(model='...'), not 'clever'",
        ),
        ("adversary = ['transfer(net)']", "adversary[0]: transfer(net): "),
        ("adversary = ['transfer(model=3)']", "or transfer(model='...'), not 'transfer(model=3)'"),
        ("adversary = [3]", "adversary[0]: must be a text, not 3"),
        ("fresh = 'yes'", "fresh: must be a valid boolean, not 'yes'"),
        ("samples = 0\nbatch_size = 0\ndatabase = 3", "(and 2 more)"),
        ("samples = ", "is no valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_with_file_and_key(tmp_path: Path, line: str, complaint: str) -> None:
    file = write(tmp_path, line)
    with pytest.raises(UsageError) as caught:
        ExperimentSpec.from_toml(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert complaint in message
    assert len(message.splitlines()) == 1


def test_a_wrong_flag_is_named_as_the_user_typed_it() -> None:
    with pytest.raises(UsageError, match=r"^--batch-size: must be greater than 0, not 0$"):
        ExperimentSpec.from_flags(batch_size=0)
    with pytest.raises(UsageError, match=r"^--attack: pgd\(: missing '\)'$"):
        ExperimentSpec.from_flags(attacks=["pgd("])
    with pytest.raises(UsageError, match=r"^there is no setting 'atack'\. Did you mean 'attacks'\?$"):
        ExperimentSpec.from_flags(atack=["pgd"])


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere\.toml: No such file"):
        ExperimentSpec.from_toml(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="cannot read"):
        ExperimentSpec.from_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"database = '\xe9'")
    with pytest.raises(UsageError, match="is no valid TOML"):
        ExperimentSpec.from_toml(tmp_path / "latin.toml")
