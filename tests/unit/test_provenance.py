"""Hashes identify what they hash, and nothing else; the environment is described without side effects."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from robustbench_lab.errors import UsageError
from robustbench_lab.provenance import content_hash, environment, file_sha256

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=10,
)


def test_the_hash_is_that_of_the_canonical_text() -> None:
    value = {"b": [1, 2.5, None], "a": {"é": True}}
    text = r'{"a":{"\u00e9":true},"b":[1,2.5,null]}'
    assert content_hash(value) == hashlib.sha256(text.encode()).hexdigest()


@given(VALUES, VALUES)
def test_different_values_have_different_hashes(left: Any, right: Any) -> None:
    assume(repr(left) != repr(right) and left != right)
    assert content_hash(left) != content_hash(right)


@given(st.dictionaries(st.text(), VALUES))
def test_the_order_of_a_mapping_does_not_matter(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert content_hash(backwards) == content_hash(value)
    assert content_hash(MappingProxyType(value)) == content_hash(value)


@given(st.lists(VALUES))
def test_a_tuple_hashes_as_the_list_of_its_items(value: list[Any]) -> None:
    assert content_hash(tuple(value)) == content_hash(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_neighbouring_floats_have_different_hashes(value: float) -> None:
    assert content_hash(math.nextafter(value, math.inf)) != content_hash(value)


@pytest.mark.parametrize("value", [math.nan, [math.nan], {"x": (1, math.nan)}])
def test_nan_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="NaN"):
        content_hash(value)


@pytest.mark.parametrize("value", [object(), b"x", {1, 2}, {1: 2}, {"x": {None: 1}}])
def test_what_has_no_canonical_text_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="defines a result"):
        content_hash(value)


def test_a_file_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "weights.bin").write_bytes(content)
    assert file_sha256(tmp_path / "weights.bin") == hashlib.sha256(content).hexdigest()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*missing\.bin: No such file"):
        file_sha256(tmp_path / "missing.bin")
    with pytest.raises(UsageError, match="cannot read"):
        file_sha256(tmp_path)


def test_the_environment_is_the_same_every_time_and_can_be_hashed() -> None:
    first = environment()
    assert content_hash(first) == content_hash(environment())
    assert json.loads(json.dumps(first)) == first
    assert first["libraries"].keys() >= {"numpy", "torch"}
    assert first["cpu"]["count"] >= 1


def test_what_a_plugin_declares_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["Pluggy (>=1.0)", 'Jinja2>=3; extra == "reports"', 'pytest; extra == "test"', "not-installed-lib"]
    _install(tmp_path, "my_plugin", "1.2.3", requirements)
    (tmp_path / "my_plugin-1.2.3.dist-info" / "entry_points.txt").write_text("[robustbench_lab]\nmine = my_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    libraries: Mapping[str, str] = environment()["libraries"]
    assert libraries["my-plugin"] == "1.2.3"
    assert {"pluggy", "jinja2"} <= libraries.keys()
    assert not {"pytest", "not-installed-lib"} & libraries.keys()


def test_a_torch_that_does_not_load_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch does not load" in environment()["accelerators"]["problem"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_of_the_working_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None
    _git("init", "--quiet")
    assert environment()["git"] is None  # no commit yet
    (tmp_path / "model.py").write_text("one")
    _git("add", "model.py")
    _git("-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "--quiet", "--message", "first")
    commit = _git("rev-parse", "HEAD").strip()
    assert environment()["git"] == {"commit": commit, "changed": False}
    (tmp_path / "model.py").write_text("two")
    assert environment()["git"] == {"commit": commit, "changed": True}


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment()["git"] is None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def _install(folder: Path, name: str, version: str, requirements: list[str]) -> None:
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
