"""All results of a database in one file that can be handed on: a zip with a manifest of hashes, signed if asked for.

The signature is OpenSSH's (`ssh-keygen -Y sign`), as git has it: everybody who reviews code has a key and the program.
A bundle comes from elsewhere, so nothing in it is believed: names, sizes and hashes are checked while it is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustbench_lab import __version__
from robustbench_lab.errors import StoreError, UsageError
from robustbench_lab.provenance import file_sha256
from robustbench_lab.result_store import ResultStore, open_store

DATABASE, ARTIFACTS = "rbl.db", "rbl-artifacts"
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
NAMESPACE = "rbl-bundle"
"""What a signature is for: one made for another purpose does not count here."""
LARGEST_MANIFEST = 1 << 28
LARGEST_SIGNATURE = 1 << 16
FREE_SHARE = 0.9
"""Of the free disk space that unpacking may take."""
EPOCH = (1980, 1, 1, 0, 0, 0)


class _File(BaseModel):
    """A file of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class _Manifest(BaseModel):
    """What a bundle holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1]
    made_by: str
    files: list[_File]


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle whose files are what its manifest says."""

    database: Path
    manifest_sha256: str
    """Of the manifest, and so of everything in the bundle."""
    signed_by: str | None
    """The fingerprint of the key, such as `ED25519 key SHA256:...`; None where it is not signed."""


def write_bundle(store: ResultStore, target: Path, key: Path | None = None) -> str:
    """Write all results of a database, with the files of their adversarial inputs; the manifest's SHA-256.

    key: an SSH private key to sign with, or the public one of a key in the agent. Raises StoreError where files are
    missing, and UsageError where signing fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with open_store(folder / DATABASE) as copy:
            if missing := copy.merge(store).missing_files:
                raise StoreError(f"a bundle needs every file: {missing[0]}")
        _in_one_file(folder / DATABASE)
        paths = sorted([folder / DATABASE, *(one for one in (folder / ARTIFACTS).rglob("*") if one.is_file())])
        files = [
            _File(path=one.relative_to(folder).as_posix(), sha256=file_sha256(one), bytes=one.stat().st_size)
            for one in paths
        ]
        manifest = _Manifest(schema_version=1, made_by=f"robustbench-lab {__version__}", files=files)
        text = (manifest.model_dump_json(indent=1) + "\n").encode()
        signature = None if key is None else _ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE], text)
        _zip(target, folder, paths, text, signature)
    return hashlib.sha256(text).hexdigest()


@contextmanager
def opened_bundle(file: Path) -> Iterator[Bundle]:
    """Unpack a bundle into a folder that is removed afterwards.

    Raises UsageError where it is no bundle, and StoreError where it is not what its manifest or its signature says.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}: name one that `rbl bundle` has written")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            with zipfile.ZipFile(file) as archive:
                text = _content(archive, MANIFEST, LARGEST_MANIFEST)
                manifest = _Manifest.model_validate(json.loads(text))
                signed = SIGNATURE in archive.namelist()
                signature = _content(archive, SIGNATURE, LARGEST_SIGNATURE) if signed else None
                _check_names(archive, manifest, signed=signed)
                if sum(one.bytes for one in manifest.files) > FREE_SHARE * shutil.disk_usage(folder).free:
                    raise StoreError(f"{file} says that it is larger, unpacked, than the disk has room")
                for one in manifest.files:
                    _unpack(archive, one, folder)
        except (zipfile.BadZipFile, KeyError, ValidationError, ValueError, NotImplementedError, RuntimeError) as error:
            raise UsageError(f"{file} is no bundle, or a damaged one: `rbl bundle` writes them") from error
        signed_by = None if signature is None else _signer(text, signature, folder)
        yield Bundle(folder / DATABASE, hashlib.sha256(text).hexdigest(), signed_by)


def _in_one_file(database: Path) -> None:
    """Without the log that SQLite keeps beside it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _zip(target: Path, folder: Path, paths: list[Path], manifest: bytes, signature: bytes | None) -> None:
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST, EPOCH), manifest)
            if signature is not None:
                archive.writestr(zipfile.ZipInfo(SIGNATURE, EPOCH), signature)
            for path in paths:
                archive.write(path, path.relative_to(folder).as_posix())
        partial.replace(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _content(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{name} is too large")
    return content


def _check_names(archive: zipfile.ZipFile, manifest: _Manifest, *, signed: bool) -> None:
    expected = [MANIFEST, *([SIGNATURE] if signed else []), *(one.path for one in manifest.files)]
    if sorted(archive.namelist()) != sorted(expected) or len(set(expected)) < len(expected):
        raise StoreError("the bundle holds other files than its manifest lists: it was changed")
    if not all(_is_ours(one.path) for one in manifest.files) or DATABASE not in expected:
        raise StoreError("the bundle holds files that no bundle has: it was changed")


def _is_ours(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = str(PurePosixPath(*parts)) == path and not {"..", "."} & set(parts) and "\\" not in path and ":" not in path
    return plain and (path == DATABASE or (len(parts) > 1 and parts[0] == ARTIFACTS))


def _unpack(archive: zipfile.ZipFile, file: _File, folder: Path) -> None:
    """At most as many bytes as the manifest says, whatever the archive unfolds to."""
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    found, left = hashlib.sha256(), file.bytes
    with archive.open(file.path) as stream, target.open("wb") as out:
        while left >= 0 and (part := stream.read(1 << 20)):
            left -= len(part)
            found.update(part)
            out.write(part)
    if left != 0 or found.hexdigest() != file.sha256:
        raise StoreError(f"{file.path} in the bundle is not what the manifest says: it was changed")


def _signer(manifest: bytes, signature: bytes, folder: Path) -> str:
    kept = folder / SIGNATURE
    kept.write_bytes(signature)
    said = _ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(kept)], manifest).decode(errors="replace")
    return said.strip().rpartition(" with ")[2]


def _ssh_keygen(arguments: list[str], given: bytes) -> bytes:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError("signatures need ssh-keygen: install OpenSSH")
    done: Any = subprocess.run([program, *arguments], input=given, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip() or "no reason given").splitlines()[-1]
        if "check-novalidate" in arguments:
            raise StoreError(f"the bundle's signature is not one of its manifest: it was changed ({said})")
        raise UsageError(f"cannot sign: {said}")
    output: bytes = done.stdout
    return output
