"""The catalog: what plugins bring, found by name, checked by the factories' own annotations, hashed by contents."""

import enum
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from robustbench_lab import builtin_plugin
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import Component, parse_component
from robustbench_lab.catalog.entry import KINDS
from robustbench_lab.catalog.plugin_loading import HOOKS, LoadedPlugins, PluginSource, load_plugins
from robustbench_lab.contracts import AttackSpec, ComponentSpec, DefenseSpec, ModelSpec, ObjectiveSpec, ThreatModelSpec
from robustbench_lab.errors import MissingLibraryError, PluginError, UsageError
from robustbench_lab.hookspecs import hookimpl
from robustbench_lab.run_observer import RunObserver


class Mode(enum.Enum):
    """An annotation that text can give."""

    FAST = "fast"
    SLOW = "slow"


def attack(
    problem: Any,
    *,
    steps: Annotated[int, Field(ge=1)] = 40,
    size: float | None = None,
    schedule: Literal["constant", "linear"] = "constant",
    start: bool = True,
    mean: tuple[float, float] = (0.5, 0.5),
    path: Path | None = None,
    mode: Mode = Mode.FAST,
    order: float = math.inf,
    anything=(1, 2),
) -> dict[str, Any]:
    """Returns what it was called with."""
    return dict(locals())


def net(*, path: str, weights: list[str] | None = None) -> tuple[str, Any]:
    return path, weights


def family(name: str, *, weights: str = "none") -> tuple[str, str]:
    return name, weights


def any_params(name: str, problem: Any, **params: int) -> tuple[str, Any, dict[str, int]]:
    return name, problem, params


def hooks(**specs: list[ComponentSpec]) -> SimpleNamespace:
    """A plugin object: `hooks(rbl_attacks=[...])`."""
    return SimpleNamespace(
        __version__="1", **{hook: hookimpl(lambda returned=returned: returned) for hook, returned in specs.items()}
    )


@pytest.fixture(autouse=True)
def _no_installed_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test's own plugins are the only ones."""
    monkeypatch.setattr("robustbench_lab.catalog.plugin_loading.entry_points", lambda group: [])


def catalog_of(*plugins: object) -> Catalog:
    return Catalog.from_plugins(load(*plugins))


def load(*plugins: object) -> LoadedPlugins:
    return load_plugins(extra=[(f"plugin-{number}", plugin) for number, plugin in enumerate(plugins)])


def as_installed(*plugins: object) -> Catalog:
    """The same as if the plugins had come from installed distributions."""
    loaded = load(*plugins)
    records = tuple(
        replace(record, source=PluginSource.INSTALLED, distribution="some-distribution") for record in loaded.records
    )
    return Catalog.from_plugins(replace(loaded, records=records))


def one_attack(factory: Any = attack, **fields: Any) -> Catalog:
    return catalog_of(hooks(rbl_attacks=[AttackSpec(name="mine", factory=factory, **fields)]))


def one_model(factory: Any = net, **fields: Any) -> Catalog:
    return catalog_of(hooks(rbl_models=[ModelSpec(name="net", factory=factory, **fields)]))


def resolved(catalog: Catalog, kind: str, text: str, **injected: Any) -> Any:
    return catalog.resolve(kind, parse_component(text), injected=injected)


# ---------------------------------------------------------------- what plugins bring


def test_entries_are_sorted_by_name_and_know_their_plugin() -> None:
    catalog = catalog_of(
        hooks(rbl_attacks=[AttackSpec(name="b", factory=attack)]),
        hooks(rbl_attacks=[AttackSpec(name="a", factory=attack)], rbl_models=[ModelSpec(name="a", factory=net)]),
    )
    assert [(entry.spec.name, entry.plugin.name) for entry in catalog.entries("attacks")] == [
        ("a", "plugin-1"),
        ("b", "plugin-0"),
    ]
    assert catalog.find("models", "a").title == "model 'a'"


def test_the_core_registers_its_own_components() -> None:
    catalog = catalog_of(builtin_plugin)
    names = {kind: [entry.spec.name for entry in catalog.entries(kind)] for kind in KINDS}
    assert names["tasks"] == ["classification", "detection", "forecasting", "segmentation"]
    assert {"targeted", "untargeted", "vanish", "fabricate", "mislabel"} <= set(names["objectives"])
    assert {"corruption", "l0", "l1", "l2", "linf", "patch", "spatial"} <= set(names["threat_models"])
    assert {"clean_accuracy", "robust_accuracy", "clean_map", "robust_map"} <= set(names["metrics"])
    assert names["reports"] == ["csv", "json", "jsonl", "latex", "markdown", "table"]
    assert names["executors"] == ["inline", "local"]
    assert names["defenses"] == ["none"]


@pytest.mark.parametrize(
    "kind", ["tasks", "objectives", "threat_models", "metrics", "reports", "executors", "defenses"]
)
def test_every_factory_of_the_core_can_be_imported(kind: str) -> None:
    catalog = catalog_of(builtin_plugin)
    for entry in catalog.entries(kind):
        assert callable(catalog.load_factory(kind, entry.spec.name))


def test_the_budget_of_a_norm_ball_is_a_parameter_like_any_other() -> None:
    catalog = catalog_of(builtin_plugin)
    ball = resolved(catalog, "threat_models", "linf(eps=8/255)")
    assert ball.params == {"eps": 8 / 255}
    assert resolved(catalog, "threat_models", "linf", eps=8 / 255).identity == ball.identity
    assert catalog.build("threat_models", ball).eps == 8 / 255


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "pgd",
        [ModelSpec(name="m", factory=net)],
        [AttackSpec(name="two words", factory=attack)],
        [AttackSpec(name="", factory=attack)],
        [AttackSpec(name="m", factory="no_object")],
    ],
)
def test_an_installed_plugin_that_returns_nonsense_brings_nothing_and_is_listed(returned: Any) -> None:
    broken = hooks(rbl_models=[ModelSpec(name="net", factory=net)], rbl_attacks=returned)
    catalog = as_installed(broken, hooks(rbl_attacks=[AttackSpec(name="good", factory=attack)]))
    assert [entry.spec.name for entry in catalog.entries("attacks")] == ["good"]
    assert catalog.entries("models") == ()
    assert "rbl_attacks" in (catalog.plugins[0].error or "")
    assert catalog.plugins[1].error is None


def test_an_installed_plugin_whose_hook_raises_brings_nothing_and_is_listed() -> None:
    catalog = as_installed(SimpleNamespace(rbl_attacks=hookimpl(lambda: 1 / 0)))
    assert catalog.plugins[0].error == "ZeroDivisionError: division by zero"
    with pytest.raises(UsageError, match=r"Plugins that did not load: plugin-0 \(see rbl plugins list\)"):
        catalog.find("attacks", "pgd")


def test_a_plugin_named_for_this_run_must_work() -> None:
    with pytest.raises(PluginError, match="plugin plugin-0: ZeroDivisionError: division by zero"):
        catalog_of(SimpleNamespace(rbl_attacks=hookimpl(lambda: 1 / 0)))


def test_a_name_taken_twice_is_refused_and_both_sides_are_named() -> None:
    one, other = (hooks(rbl_attacks=[AttackSpec(name="pgd", factory=attack)]) for _ in range(2))
    for build in (catalog_of, as_installed):
        with pytest.raises(PluginError, match="attack 'pgd' is provided by both plugin-0 and plugin-1: rename one"):
            build(one, other)
    with pytest.raises(PluginError, match="attack 'pgd' is provided twice by plugin-0: rename one"):
        catalog_of(hooks(rbl_attacks=[AttackSpec(name="pgd", factory=attack)] * 2))


def test_one_name_may_stand_for_a_component_of_each_task() -> None:
    def of_classifiers() -> str:
        return "classes"

    def of_detectors(*, labels: str = "truth") -> str:
        return labels

    one = ObjectiveSpec(name="aim", factory=of_classifiers, tasks=("classification",))
    other = ObjectiveSpec(name="aim", factory=of_detectors, tasks=("detection",))
    catalog = catalog_of(hooks(rbl_objectives=[one]), hooks(rbl_objectives=[other]))
    assert [entry.spec for entry in catalog.named("objectives", "aim")] == [one, other]
    assert catalog.find("objectives", "aim", "detection").spec is other
    assert catalog.find("objectives", "aim").spec is one
    chosen = catalog.resolve("objectives", parse_component("aim(labels='self')"), task="detection")
    assert catalog.build("objectives", chosen, task="detection") == "self"
    assert catalog.build("objectives", catalog.resolve("objectives", parse_component("aim"))) == "classes"
    with pytest.raises(UsageError, match="has no parameter 'labels'"):
        catalog.resolve("objectives", parse_component("aim(labels='self')"), task="classification")


@pytest.mark.parametrize("tasks", [("detection", "classification"), ()])
def test_a_name_taken_twice_for_one_task_is_refused(tasks: tuple[str, ...]) -> None:
    one = ObjectiveSpec(name="aim", factory=net, tasks=("detection",))
    with pytest.raises(PluginError, match="objective 'aim' is provided by both"):
        catalog_of(hooks(rbl_objectives=[one]), hooks(rbl_objectives=[replace(one, tasks=tasks)]))


def test_a_family_may_have_an_entry_for_each_task() -> None:
    one, other = (ModelSpec(name="lib:", factory=net, tasks=(task,)) for task in ("classification", "detection"))
    catalog = catalog_of(hooks(rbl_models=[one]), hooks(rbl_models=[other]))
    assert catalog.find("models", "lib:resnet", "detection").spec is other
    assert [entry.spec for entry in catalog.named("models", "lib:resnet")] == [one, other]


def test_one_name_in_two_kinds_is_no_collision() -> None:
    plugin = hooks(
        rbl_attacks=[AttackSpec(name="noise", factory=attack)], rbl_defenses=[DefenseSpec(name="noise", factory=net)]
    )
    assert catalog_of(plugin).find("defenses", "noise").kind.name == "defenses"


def test_every_kind_has_its_hook_and_every_hook_its_kind() -> None:
    assert {kind.hook for kind in KINDS.values()} | {"rbl_run_observers"} == set(HOOKS)


def test_observers_come_from_every_plugin_that_can_make_them() -> None:
    observer = RunObserver()
    good = SimpleNamespace(rbl_run_observers=hookimpl(lambda: [observer]))
    raising = SimpleNamespace(rbl_run_observers=hookimpl(lambda: 1 / 0))
    wrong = SimpleNamespace(rbl_run_observers=hookimpl(lambda: [print]))
    catalog = catalog_of(raising, good, wrong)
    with pytest.warns(UserWarning, match="observes nothing") as caught:
        assert catalog.observers() == [observer]
    assert len(caught) == 2


# ---------------------------------------------------------------- names


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^there is no attack 'mien'\. Did you mean 'mine'\?$"):
        one_attack().find("attacks", "mien")
    with pytest.raises(UsageError, match=r"^there is no threat model 'linf'\.$"):
        one_attack().find("threat_models", "linf")
    with pytest.raises(UsageError, match="Did you mean 'attacks'"):
        one_attack().entries("attack")


def test_a_family_stands_for_every_name_that_begins_with_it() -> None:
    catalog = catalog_of(
        hooks(
            rbl_models=[
                ModelSpec(name="timm:", factory=family),
                ModelSpec(name="timm:own", factory=net),
                ModelSpec(name="timm:sub:", factory=family),
            ]
        )
    )
    model = resolved(catalog, "models", "timm:resnet50.a1_in1k(weights='w')")
    assert catalog.build("models", model) == ("resnet50.a1_in1k", "w")
    assert catalog.find("models", "timm:own").spec.factory is net
    assert catalog.build("models", resolved(catalog, "models", "timm:sub:x")) == ("x", "none")
    assert [one.name for one in catalog.parameters("models", "timm:resnet50")] == ["weights"]
    with pytest.raises(UsageError, match="'timm:' is a family: write the rest of the name"):
        catalog.find("models", "timm:")
    with pytest.raises(UsageError, match="Did you mean 'timm:resnet50'"):
        catalog.find("models", "tim:resnet50")
    with pytest.raises(UsageError, match="has no parameter 'name'"):
        resolved(catalog, "models", "timm:x(name='y')")


def test_members_of_a_family_differ_in_identity() -> None:
    catalog = catalog_of(hooks(rbl_models=[ModelSpec(name="timm:", factory=family)]))
    assert resolved(catalog, "models", "timm:a").identity != resolved(catalog, "models", "timm:b").identity


def test_a_model_that_is_a_folder_is_known_by_the_files_in_it(tmp_path: Path) -> None:
    spec = ModelSpec(name="hub:", factory=family, names_folders=True)
    catalog = catalog_of(hooks(rbl_models=[spec, ModelSpec(name="timm:", factory=family)]))
    for name in ("one", "two"):
        (tmp_path / name / "deeper").mkdir(parents=True)
        (tmp_path / name / "weights").write_text("1 2 3")

    def identity(prefix: str, name: str) -> str:
        return resolved(catalog, "models", f"{prefix}{tmp_path / name}").identity

    before = identity("hub:", "one")
    assert before == identity("hub:", "two") != identity("hub:", "absent")
    assert identity("timm:", "one") != identity("timm:", "two")
    (tmp_path / "one" / "weights").write_text("1 2 4")
    assert identity("hub:", "one") != before


def test_a_family_of_attacks_gets_the_name_and_then_the_problem() -> None:
    catalog = catalog_of(hooks(rbl_attacks=[AttackSpec(name="lib:", factory=any_params)]))
    chosen = resolved(catalog, "attacks", "lib:PGD(steps=3)")
    assert catalog.build("attacks", chosen, "the problem") == ("PGD", "the problem", {"steps": 3})
    with pytest.raises(UsageError, match="has no parameter 'problem'"):
        resolved(catalog, "attacks", "lib:PGD(problem=3)")
    with pytest.raises(UsageError, match="steps must be a valid integer, not 'x'"):
        resolved(catalog, "attacks", "lib:PGD(steps='x')")


# ---------------------------------------------------------------- parameters


def test_defaults_are_filled_in_as_plain_values() -> None:
    params = resolved(one_attack(), "attacks", "mine").params
    assert params == {
        "steps": 40,
        "size": None,
        "schedule": "constant",
        "start": True,
        "mean": [0.5, 0.5],
        "path": None,
        "mode": "fast",
        "order": math.inf,
        "anything": [1, 2],
    }
    assert list(params) == sorted(params)


def test_the_factory_is_called_with_what_its_annotations_say() -> None:
    catalog = one_attack()
    chosen = resolved(catalog, "attacks", "mine(steps=3, size=1, mean=[0, 1/2], path='x', mode='slow')")
    through_json = json.loads(json.dumps(dict(chosen.params)))
    assert through_json == chosen.params
    called = catalog.build("attacks", chosen, "the problem")
    assert called == {
        "problem": "the problem",
        "steps": 3,
        "size": 1.0,
        "schedule": "constant",
        "start": True,
        "mean": (0.0, 0.5),
        "path": Path("x"),
        "mode": Mode.SLOW,
        "order": math.inf,
        "anything": (1, 2),
    }
    assert type(called["size"]) is float


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mine(stesp=5)", "mine(stesp=5): attack 'mine' has no parameter 'stesp'. Did you mean 'steps'?"),
        ("mine(problem=5)", "attack 'mine' has no parameter 'problem'"),
        ("mine(steps='many')", "mine(steps='many'): steps must be a valid integer, not 'many'"),
        ("mine(steps='5')", "steps must be a valid integer"),
        ("mine(steps=2.5)", "steps must be a valid integer, not 2.5"),
        ("mine(steps=2.0)", "steps must be a valid integer, not 2.0"),
        ("mine(steps=True)", "steps must be a valid integer, not True"),
        ("mine(steps=0)", "steps must be greater than or equal to 1, not 0"),
        ("mine(size=True)", "size must be a valid number, not True"),
        ("mine(size='1')", "size must be a valid number, not '1'"),
        ("mine(start=1)", "start must be a valid boolean, not 1"),
        ("mine(schedule='cosine')", "schedule must be 'constant' or 'linear', not 'cosine'"),
        ("mine(mean=[0.5])", "mean[1]"),
        ("mine(mean=[0.5, 'x'])", "mean[1] must be a valid number, not 'x'"),
        ("mine(path=3)", "path"),
    ],
)
def test_a_wrong_parameter_is_one_line(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(one_attack(), "attacks", text)
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(st.integers(min_value=1, max_value=10**6), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_reach_the_factory_exactly(steps: int, size: float) -> None:
    catalog = one_attack()
    chosen = resolved(catalog, "attacks", Component("mine", {"steps": steps, "size": size}).label)
    called = catalog.build("attacks", chosen, None)
    assert (called["steps"], called["size"]) == (steps, size)


def test_a_required_parameter_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"^net: model 'net' needs path=\.\.\.$"):
        resolved(one_model(), "models", "net")


def test_what_the_core_offers_is_used_where_it_fits_and_the_user_comes_first() -> None:
    catalog = one_model()
    assert resolved(catalog, "models", "net", path="offered", unknown=1).params["path"] == "offered"
    assert resolved(catalog, "models", "net(path='own')", path="offered").params["path"] == "own"
    assert resolved(catalog, "models", "net", path="offered").label == "net"


def test_annotations_that_are_text_are_read_where_the_factory_was_written(tmp_path: Path) -> None:
    source = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec, ObjectiveSpec
if TYPE_CHECKING:
    from nowhere import Problem, Unknown

def mine(problem: Problem, *, steps: int = 3, unknown: Unknown = None):
    return steps

@dataclass(frozen=True)
class Goal:
    target: int = 0

@hookimpl
def rbl_attacks():
    return [AttackSpec(name="filed", factory=mine, version="1")]

@hookimpl
def rbl_objectives():
    return [ObjectiveSpec(name="goal", factory=Goal)]
"""
    catalog = catalog_of_file(tmp_path, source)
    assert catalog.build("attacks", resolved(catalog, "attacks", "filed(steps=4)"), None) == 4
    assert catalog.build("objectives", resolved(catalog, "objectives", "goal(target=2)")).target == 2
    with pytest.raises(UsageError, match="must be a valid integer"):
        resolved(catalog, "objectives", "goal(target='x')")
    with pytest.raises(PluginError, match="annotation 'Unknown' of unknown needs names imported at run time"):
        resolved(catalog, "attacks", "filed(unknown=1)")


def catalog_of_file(folder: Path, source: str) -> Catalog:
    (folder / "filed.py").write_text(source)
    return Catalog.from_plugins(load_plugins([str(folder / "filed.py")]))


def test_a_parameter_that_no_text_can_give_is_refused_only_when_given() -> None:
    class Opaque:
        pass

    def factory(problem: Any, *, opaque: Opaque | None = None, default: Any = None) -> Any:
        return opaque

    catalog = one_attack(factory)
    assert catalog.build("attacks", resolved(catalog, "attacks", "mine"), None) is None
    with pytest.raises(PluginError, match="no text can give a value for opaque"):
        resolved(catalog, "attacks", "mine(opaque=1)")


# ---------------------------------------------------------------- identity


def identity(catalog: Catalog, text: str, kind: str = "models") -> str:
    return str(resolved(catalog, kind, text).identity)


def test_the_identity_does_not_depend_on_how_a_component_is_written() -> None:
    catalog = one_attack()
    same = ["mine", "mine()", "mine(steps=40)", "mine(start=True, steps=40)", "mine(mean=(1/2, 0.5))"]
    assert len({identity(catalog, text, "attacks") for text in same}) == 1
    assert identity(catalog, "mine(size=1)", "attacks") == identity(catalog, "mine(size=1.0)", "attacks")
    assert identity(catalog, "mine(steps=41)", "attacks") != identity(catalog, "mine", "attacks")


def test_the_identity_follows_the_contents_of_a_file_and_not_its_place(tmp_path: Path) -> None:
    catalog = one_model()
    first, moved = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(b"weights")
    moved.write_bytes(b"weights")
    before = identity(catalog, f"net(path={str(first)!r})")
    assert identity(catalog, f"net(path={str(moved)!r})") == before
    first.write_bytes(b"other weights")
    assert identity(catalog, f"net(path={str(first)!r})") != before
    assert identity(catalog, "net(path='no-such-file')") != before


def test_files_inside_lists_count_too(tmp_path: Path) -> None:
    catalog, file = one_model(), tmp_path / "w.bin"
    text = f"net(path='x', weights=['y', {str(file)!r}])"
    file.write_bytes(b"1")
    before = identity(catalog, text)
    file.write_bytes(b"2")
    assert identity(catalog, text) != before


def test_an_object_of_a_python_file_is_the_file_and_the_object(tmp_path: Path) -> None:
    catalog, script = one_model(), tmp_path / "model.py"
    script.write_text("make = other = None")
    make, other = (identity(catalog, f"net(path='{script}:{name}')") for name in ("make", "other"))
    assert make != other
    moved = script.rename(tmp_path / "moved.py")
    assert identity(catalog, f"net(path='{moved}:make')") == make
    moved.write_text("make = other = 1")
    assert identity(catalog, f"net(path='{moved}:make')") != make


def test_a_path_below_the_home_folder_counts_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.bin").write_bytes(b"1")
    catalog = one_model()
    assert identity(catalog, "net(path='~/w.bin')") == identity(catalog, f"net(path='{tmp_path}/w.bin')")


@pytest.mark.parametrize("text", ["nul\\x00byte", "long" * 2000, "", "~nobody-of-this-name/x"])
def test_text_that_can_be_no_path_is_only_text(text: str) -> None:
    assert identity(one_model(), f"net(path='{text}')")


def test_the_version_of_the_component_or_else_of_the_plugin_is_part_of_the_identity() -> None:
    versions = [None, "1", "2"]
    first, second, third = (resolved(one_model(version=version), "models", "net(path='x')") for version in versions)
    assert (first.version, second.version, third.version) == ("1", "1", "2")
    assert first.identity == second.identity != third.identity


def test_a_single_file_is_its_own_version_whatever_it_declares(tmp_path: Path) -> None:
    source = """
from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec
def mine(problem):
    return {}
@hookimpl
def rbl_attacks():
    return [AttackSpec(name="filed", factory=mine, version="1")]
"""
    first, second = (
        resolved(catalog_of_file(tmp_path, f"# {number}{source}"), "attacks", "filed") for number in (1, 2)
    )
    assert first.version != second.version
    assert first.identity != second.identity
    assert first.plugin == "filed.py"


def test_the_files_of_a_bundled_model_are_part_of_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bundling_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.safetensors").write_bytes(b"1")
    monkeypatch.syspath_prepend(str(tmp_path))
    catalog = one_model(files=("bundling_package:net.safetensors",))
    before = identity(catalog, "net(path='x')")
    (package / "net.safetensors").write_bytes(b"2")
    assert identity(catalog, "net(path='x')") != before
    with pytest.raises(PluginError, match="its file bundling_package:gone is missing"):
        identity(one_model(files=("bundling_package:gone",)), "net(path='x')")
    with pytest.raises(PluginError, match="its file no_such_package:x is missing"):
        identity(one_model(files=("no_such_package:x",)), "net(path='x')")


def test_the_kind_is_part_of_the_identity() -> None:
    plugin = hooks(
        rbl_objectives=[ObjectiveSpec(name="x", factory=lambda: 1)],
        rbl_threat_models=[ThreatModelSpec(name="x", factory=lambda: 1)],
    )
    catalog = catalog_of(plugin)
    assert identity(catalog, "x", "objectives") != identity(catalog, "x", "threat_models")


# ---------------------------------------------------------------- libraries


def test_a_missing_library_is_listed_with_what_installs_it() -> None:
    catalog = one_model(factory="nowhere:net", requires=("json", "no_such_library.sub"), extra="onnx")
    expected = 'needs no_such_library, which is not installed: pip install "robustbench-lab[onnx]"'
    assert catalog.find("models", "net").problem == expected
    with pytest.raises(MissingLibraryError) as caught:
        catalog.load_factory("models", "net")
    assert str(caught.value) == f"model 'net' {expected}"


def test_a_component_can_name_the_command_that_brings_its_library() -> None:
    catalog = one_model(factory="nowhere:net", requires=("no_such_library",), install="pip install --no-deps some-name")
    problem = catalog.find("models", "net").problem
    assert problem == "needs no_such_library, which is not installed: pip install --no-deps some-name"


def test_without_an_extra_the_distribution_of_the_plugin_is_what_to_install() -> None:
    plugin = hooks(rbl_models=[ModelSpec(name="net", factory=net, requires=("no_such_library",))])
    problem = catalog_of(plugin).find("models", "net").problem
    assert problem == "needs no_such_library, which is not installed: pip install no_such_library"
    problem = as_installed(plugin).find("models", "net").problem
    assert problem == "needs no_such_library, which is not installed: pip install some-distribution"


def test_an_entry_whose_libraries_are_there_has_no_problem() -> None:
    assert one_model(requires=("json", "xml.dom")).find("models", "net").problem is None


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that can be imported; returns the name of its object `net`."""

    def put(source: str) -> str:
        (tmp_path / "module_under_test.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "module_under_test", raising=False)
        return "module_under_test:net"

    return put


@pytest.mark.parametrize(
    ("source", "error", "complaint"),
    [
        ("import no_such_library", MissingLibraryError, "model 'net' needs no_such_library, which is not installed"),
        ("from json import no_such_name", MissingLibraryError, "model 'net' does not load: ImportError"),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            MissingLibraryError,
            "do not match (RuntimeError: operator torchvision::nms does not exist). Install both from one place: pip",
        ),
        (
            "raise AttributeError(\"partially initialized module 'torchvision' has no attribute 'extension'\")",
            MissingLibraryError,
            "do not match",
        ),
        ("raise RuntimeError('of its own')", PluginError, "does not load: RuntimeError: of its own"),
        ("raise SystemExit(1)", PluginError, "does not load: SystemExit: 1"),
        ("x = 1", PluginError, "there is no module_under_test:net"),
        ("net = 1", PluginError, "its factory 1 cannot be called"),
        ("import module_under_test.deeper", PluginError, "there is no module module_under_test.deeper"),
    ],
)
def test_trouble_on_import_is_one_line(
    module: Callable[[str], str], source: str, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error) as caught:
        one_model(factory=module(source)).load_factory("models", "net")
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_factory_that_finds_its_library_missing_when_called_says_so_too(module: Callable[[str], str]) -> None:
    catalog = one_model(factory=module("def net():\n    import no_such_library"), extra="onnx")
    with pytest.raises(MissingLibraryError, match=r'needs no_such_library, .* pip install "robustbench-lab\[onnx\]"'):
        catalog.build("models", resolved(catalog, "models", "net"))


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), ValueError("x"), AttributeError("y"), OSError("z")]
)
def test_other_errors_of_a_factory_pass_through(error: Exception) -> None:
    def factory() -> None:
        raise error

    catalog = one_model(factory)
    with pytest.raises(type(error)) as caught:
        catalog.build("models", resolved(catalog, "models", "net"))
    assert caught.value is error


def test_listing_plugins_imports_no_heavy_library() -> None:
    script = """
import sys
import robustbench_lab.builtin_plugin as core
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.plugin_loading import load_plugins
installed = any(record.name == "rbl-core" for record in load_plugins().records)
catalog = Catalog.from_plugins(load_plugins(extra=[] if installed else [("rbl-core", core)]))
assert catalog.find("threat_models", "linf").problem is None
assert [entry.problem for entry in catalog.entries("reports")]
print(sorted({"torch", "sqlalchemy", "pydantic", "numpy", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_plugin_may_be_a_module() -> None:
    module = ModuleType("some_plugin")
    module.rbl_models = hookimpl(lambda: [ModelSpec(name="net", factory=net)])  # type: ignore[attr-defined]
    assert catalog_of(module).find("models", "net").spec.factory is net
