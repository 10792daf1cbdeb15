"""Plugins are found one by one: a broken one is listed and stops nothing, one named by the user must work."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustbench_lab.catalog.plugin_loading import HOOKS, LoadedPlugins, PluginRecord, PluginSource, load_plugins
from robustbench_lab.contracts import AttackSpec
from robustbench_lab.errors import PluginError, UsageError
from robustbench_lab.hookspecs import hookimpl

Install = Callable[..., None]

GOOD = """
from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec

@hookimpl
def rbl_attacks():
    return [AttackSpec(name="mine", factory="json:dumps")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with one module and one entry point on sys.path."""

    def put(name: str, source: str, version: str = "1.0", target: str | None = None) -> None:
        module = name.replace("-", "_")
        folder = tmp_path / "site" / name
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[robustbench_lab]\n{name} = {target or module}\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


def record_of(loaded: LoadedPlugins, name: str) -> PluginRecord:
    return next(record for record in loaded.records if record.name == name)


def plugin_file(folder: Path, source: str, name: str = "my_attack.py") -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    return str(file)


def test_an_installed_plugin_is_found_with_its_distribution_and_version(install: Install) -> None:
    install("test-plugin-good", GOOD, version="2.3")
    record = record_of(load_plugins(), "test-plugin-good")
    assert record == PluginRecord(
        "test-plugin-good", "test-plugin-good", "2.3", PluginSource.INSTALLED, ("rbl_attacks",), None
    )


@pytest.mark.parametrize(
    ("source", "target", "complaint"),
    [
        ("import no_such_library", None, "No module named 'no_such_library'"),
        ("raise RuntimeError('two\\nlines')", None, "RuntimeError: two lines"),
        ("import sys; sys.exit('bye')", None, "SystemExit: bye"),
        ("def :", None, "SyntaxError"),
        ("", "test_plugin_broken:missing", "AttributeError"),
        (
            GOOD.replace("rbl_attacks", "rbl_atacks"),
            None,
            "'rbl_atacks', which is no hook. Did you mean 'rbl_attacks'?",
        ),
        (GOOD.replace("@hookimpl", ""), None, "'rbl_attacks' is never called: put @hookimpl above it"),
        (GOOD.replace("rbl_attacks()", "rbl_attacks(models)"), None, "rbl_attacks"),
    ],
)
def test_a_broken_installed_plugin_is_listed_and_harmless(
    install: Install, source: str, target: str | None, complaint: str
) -> None:
    install("test-plugin-after", GOOD)
    install("test-plugin-broken", source, target=target)
    loaded = load_plugins()
    broken = record_of(loaded, "test-plugin-broken")
    assert complaint in (broken.error or "")
    assert len((broken.error or "").splitlines()) == 1
    assert broken.version == "1.0"
    assert not loaded.manager.has_plugin("test-plugin-broken")
    assert record_of(loaded, "test-plugin-after").error is None
    assert loaded.manager.has_plugin("test-plugin-after")


def test_the_environment_switches_plugins_off_by_name(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("test-plugin-off", "raise RuntimeError('was imported')")
    monkeypatch.setenv("RBL_DISABLE_PLUGINS", "other, test-plugin-off")
    record = record_of(load_plugins(), "test-plugin-off")
    assert record.error == "switched off by RBL_DISABLE_PLUGINS"


def test_a_file_is_a_plugin_whose_version_is_its_hash(tmp_path: Path) -> None:
    file = plugin_file(tmp_path, GOOD)
    loaded = load_plugins([file])
    record = record_of(loaded, "my_attack.py")
    assert record.version == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert (record.source, record.hooks, record.distribution) == (PluginSource.FILE, ("rbl_attacks",), None)
    assert loaded.files == (file,)
    assert next(iter(loaded.call(record, "rbl_attacks")))[0].name == "mine"
    assert "my_attack" not in sys.modules


def test_an_edited_file_runs_as_edited(tmp_path: Path) -> None:
    first = load_plugins([plugin_file(tmp_path, GOOD)])
    second = load_plugins([plugin_file(tmp_path, GOOD.replace('"mine"', '"mind"'))])
    names = [next(iter(loaded.call(loaded.records[-1], "rbl_attacks")))[0].name for loaded in (first, second)]
    assert names == ["mine", "mind"]
    assert not (tmp_path / "__pycache__").exists()


def test_a_file_named_twice_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = plugin_file(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_plugins([file, "my_attack.py"]).files == (file,)


def test_dataclasses_with_postponed_annotations_work_in_a_file(tmp_path: Path) -> None:
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    assert record_of(load_plugins([plugin_file(tmp_path, source)]), "my_attack.py").error is None


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1\ny = 1 / 0\n", "my_attack.py does not load: line 2: ZeroDivisionError"),
        ("def f():\n    raise ValueError('a\\nb')\n\nf()\n", "line 2: ValueError: a b"),
        ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
        ("this is no Python", "my_attack.py does not load: SyntaxError"),
        ("\0", "my_attack.py does not load"),
        (GOOD.replace("rbl_attacks", "rbl_atack"), "'rbl_atack', which is no hook. Did you mean 'rbl_attacks'?"),
        (GOOD.replace("@hookimpl", ""), "put @hookimpl above it"),
    ],
)
def test_a_file_that_does_not_work_is_refused_in_one_line(tmp_path: Path, source: str, complaint: str) -> None:
    before = set(sys.modules)
    with pytest.raises(PluginError) as caught:
        load_plugins([plugin_file(tmp_path, source)])
    assert complaint in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    if "does not load" in complaint:
        assert not [name for name in set(sys.modules) - before if name.startswith("_rbl_plugin")]


def test_a_file_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read the plugin file .*nowhere\.py: No such file"):
        load_plugins([str(tmp_path / "nowhere.py")])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    files = [plugin_file(tmp_path / folder, GOOD) for folder in ("a", "b")]
    with pytest.raises(PluginError, match=r"two plugins are called 'my_attack\.py': rename one"):
        load_plugins(files)


class Live:
    """A plugin object."""

    @hookimpl
    def rbl_attacks(self) -> list[AttackSpec]:
        return []


def test_a_live_object_is_a_plugin() -> None:
    record = record_of(load_plugins(extra=[("live", Live())]), "live")
    assert (record.source, record.hooks) == (PluginSource.MEMORY, ("rbl_attacks",))


def test_live_objects_without_a_version_never_pass_for_each_other() -> None:
    versions = {record_of(load_plugins(extra=[("live", Live())]), "live").version for _ in range(2)}
    assert len(versions) == 2
    assert record_of(load_plugins(extra=[("live", SimpleNamespace(__version__="7"))]), "live").version == "7"


def test_one_object_under_two_names_is_refused() -> None:
    live = Live()
    with pytest.raises(PluginError, match="'b' is the same object as plugin 'a'"):
        load_plugins(extra=[("a", live), ("b", live)])


def test_every_load_gives_a_manager_of_its_own() -> None:
    first, second = load_plugins(extra=[("live", Live())]), load_plugins()
    assert first.manager is not second.manager
    assert not second.manager.has_plugin("live")


def test_every_hook_of_the_page_can_be_implemented() -> None:
    plugin = SimpleNamespace(**{name: hookimpl(lambda: [None]) for name in HOOKS})
    assert record_of(load_plugins(extra=[("all", plugin)]), "all").hooks == HOOKS
    assert "rbl_attacks" in HOOKS
    assert "rbl_run_observers" in HOOKS
