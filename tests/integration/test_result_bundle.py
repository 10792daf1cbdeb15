"""Results are handed on in one file, and a file that was changed is found out before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustbench_lab.errors import RblError, StoreError, UsageError
from robustbench_lab.result_store import open_store
from robustbench_lab.trust.result_bundle import MANIFEST, SIGNATURE, opened_bundle, write_bundle

examples = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_results.py"))))
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with open_store(folder / "mine.db") as store:
        run_id = store.begin_run(["rbl", "run"], {}, {})
        store.save_cell(examples.ok_record("a"), run_id, artifacts=(b"first", b"second"))
        store.save_cell(examples.failed_record("b"), run_id)
        store.finish_run(run_id, "finished")
        write_bundle(store, folder / "results.zip")
    return folder


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "mine.db"


@pytest.fixture
def bundle(database: Path) -> Path:
    return database.with_name("results.zip")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(made, check=True)
    return tmp_path / "key"


def rewritten(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same bundle, with other members."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bundle


def test_what_comes_out_is_what_went_in(database: Path, bundle: Path) -> None:
    with (
        opened_bundle(bundle) as opened,
        open_store(opened.database, create=False) as copy,
        open_store(database) as own,
    ):
        assert opened.signed_by is None
        assert list(copy.check({})) == []
        assert [one.cell.cell_id for one in copy.cells()] == [one.cell.cell_id for one in own.cells()]
        assert copy.artifacts("a") == own.artifacts("a")
        unpacked = opened.database
    assert not unpacked.exists()


def test_the_hash_is_the_manifests_and_the_database_is_one_file(database: Path, bundle: Path) -> None:
    with open_store(database) as store:
        digest = write_bundle(store, bundle)
    with zipfile.ZipFile(bundle) as archive:
        assert hashlib.sha256(archive.read(MANIFEST)).hexdigest() == digest
        listed = {one["path"] for one in json.loads(archive.read(MANIFEST))["files"]}
        assert listed | {MANIFEST} == set(archive.namelist())
    assert len(listed) == 3
    assert not list(bundle.parent.glob("*.partial*"))


@needs_ssh
def test_a_signature_names_its_key(database: Path, tmp_path: Path, key: Path) -> None:
    with open_store(database) as store:
        write_bundle(store, tmp_path / "signed.zip", key)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", f"{key}.pub"], capture_output=True, text=True, check=True)
    with opened_bundle(tmp_path / "signed.zip") as opened:
        assert opened.signed_by == f"ED25519 key {shown.stdout.split()[1]}"


@needs_ssh
def test_a_signature_of_something_else_is_refused(database: Path, tmp_path: Path, key: Path) -> None:
    file = tmp_path / "signed.zip"
    with open_store(database) as store:
        write_bundle(store, file, key)
    rewritten(
        file, lambda members: members.update({MANIFEST: members[MANIFEST].replace(b"made_by", b"made_by", 1) + b" "})
    )
    with pytest.raises(StoreError, match="signature"), opened_bundle(file):
        pass


@needs_ssh
def test_a_key_that_cannot_sign_is_one_line_and_leaves_no_file(database: Path, tmp_path: Path) -> None:
    with open_store(database) as store, pytest.raises(UsageError, match=r"^cannot sign: .*no-such-key"):
        write_bundle(store, tmp_path / "signed.zip", tmp_path / "no-such-key")
    assert not (tmp_path / "signed.zip").exists()


def _artifact(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.startswith("rbl-artifacts/"))


def _change_file(members: dict[str, bytes]) -> None:
    members[_artifact(members)] += b"!"


def _shorten_file(members: dict[str, bytes]) -> None:
    members[_artifact(members)] = b""


def _drop_file(members: dict[str, bytes]) -> None:
    del members[_artifact(members)]


def _add_file(members: dict[str, bytes]) -> None:
    members["rbl-artifacts/more"] = b"!"


def _list(path: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        manifest = json.loads(members[MANIFEST])
        manifest["files"].append({"path": path, "sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1})
        members[MANIFEST], members[path] = json.dumps(manifest).encode(), b"x"

    return change


def _huge(members: dict[str, bytes]) -> None:
    manifest = json.loads(members[MANIFEST])
    manifest["files"][0]["bytes"] = 1 << 60
    members[MANIFEST] = json.dumps(manifest).encode()


def _bomb(members: dict[str, bytes]) -> None:
    members[_artifact(members)] = bytes(1 << 24)


FORGERIES = {
    "a changed file": (_change_file, "was changed"),
    "a shorter file": (_shorten_file, "was changed"),
    "a missing file": (_drop_file, "was changed"),
    "a file more": (_add_file, "was changed"),
    "a file outside": (_list("../outside"), "was changed"),
    "a file outside within": (_list("rbl-artifacts/../../outside"), "was changed"),
    "an absolute path": (_list("/tmp/outside"), "was changed"),  # noqa: S108
    "a log of SQLite": (_list("rbl.db-wal"), "was changed"),
    "a huge file": (_huge, "disk has room"),
    "a bomb": (_bomb, "was changed"),
    "no manifest": (lambda members: members.pop(MANIFEST), "no bundle"),
    "no JSON": (lambda members: members.update({MANIFEST: b"{"}), "no bundle"),
    "another manifest": (lambda members: members.update({MANIFEST: b"{}"}), "no bundle"),
    "a signature that is none": (lambda members: members.update({SIGNATURE: b"me"}), "signature|ssh-keygen"),
}


@pytest.mark.parametrize(("change", "said"), FORGERIES.values(), ids=list(FORGERIES))
def test_a_bundle_that_was_changed_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], said: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RblError, match=said) as error, opened_bundle(rewritten(bundle, change)):
        pass
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_zip_and_what_is_not_there_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "some.zip").write_bytes(b"hello")
    for name in ("some.zip", "none.zip"):
        with pytest.raises(UsageError, match="rbl bundle"), opened_bundle(tmp_path / name):
            pass


def test_a_bundle_needs_every_file(database: Path, tmp_path: Path) -> None:
    with open_store(database) as store:
        (store.artifacts_folder / store.artifacts("a")[0].path).unlink()
        with pytest.raises(StoreError, match="needs every file"):
            write_bundle(store, tmp_path / "less.zip")
    assert not (tmp_path / "less.zip").exists()
