"""Where a number came from: hashes of what defines it, and the environment it was computed in."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustbench_lab import __version__
from robustbench_lab.errors import UsageError

ENTRY_POINT_GROUP = "robustbench_lab"
ALWAYS_REPORTED = ("numpy", "torch")
"""Reported even where rbl runs from a source folder, so that no installed distribution declares them."""
GIT_SECONDS = 5.0
NOT_FOR_RUNNING = frozenset({"dev", "docs", "lint", "test", "testing", "tests"})
"""Extras, by their usual names, that no result depends on."""


def content_hash(value: Any) -> str:
    """SHA-256, in hex, of a value made of None, bool, int, float, str, lists, tuples and mappings with str keys.

    The hash is of the canonical JSON text: sorted keys, floats in their shortest exact form, tuples as lists. It does
    not depend on the order of a mapping, the platform or the process. Raises UsageError for NaN, which equals nothing,
    and for anything else that has no such text.
    """
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: Any) -> Any:
    """`value`, checked: `json.dumps` alone would accept NaN and make keys 1 and "1" the same."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise UsageError("NaN cannot be part of what defines a result: give a number")
        return value
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"a mapping that defines a result must have text keys, not {key!r}: write it as text")
        return {key: _canonical(item) for key, item in value.items()}
    raise UsageError(
        f"a {type(value).__name__} cannot be part of what defines a result: give numbers, text, lists or mappings"
    )


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's contents, in hex. Raises UsageError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {os.fspath(path)}: {error.strerror}. Check the path.") from error


def environment() -> dict[str, Any]:
    """What results depend on besides their definition: JSON-able, and the same for every run on unchanged software."""
    return {
        "rbl": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": {"model": _cpu_model(), "count": os.cpu_count()},
        "libraries": _libraries(),
        "accelerators": _accelerators(),
        "git": _git_state(),
    }


def _cpu_model() -> str:
    """The processor's name; only Linux needs a file for it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def _libraries() -> dict[str, str]:
    """Versions of every installed plugin distribution, and of everything installed that one of them declares."""
    plugins = {point.dist for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP) if point.dist}
    names = set(ALWAYS_REPORTED)
    for plugin in plugins:
        names.add(_normalised(plugin.name))
        names.update(_required_names(plugin))
    versions = {name: _version(name) for name in sorted(names)}
    return {name: version for name, version in versions.items() if version is not None}


def _required_names(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """Names in `Requires-Dist`, most extras included: `onnx>=1.16; extra == "onnx"` gives `onnx`."""
    for requirement in distribution.requires or ():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", requirement)
        if name and not (extra and extra.group(1) in NOT_FOR_RUNNING):
            yield _normalised(name.group())


def _normalised(name: str) -> str:
    """A distribution's name as the packaging standard (PEP 503) compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _version(name: str) -> str | None:
    """None where it is not installed. Python reads and parses the metadata anew every time it is asked."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _accelerators() -> dict[str, Any]:
    """What torch can compute on besides the CPU, or why torch cannot tell."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # OSError: a shared library of torch does not load
        return {"problem": f"torch does not load: {str(error).strip().splitlines()[0]}"}
    gpus = []
    if torch.cuda.is_available():
        properties = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
        gpus = [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in properties]
    return {"torch_build": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus}


def _git_state() -> dict[str, Any] | None:
    """Commit of the working folder, and whether tracked files differ from it; None outside of a git repository."""
    git = shutil.which("git")
    if git is None:
        return None
    # fsmonitor off: asking for the state of a folder must not start a program that the folder names.
    command = [git, "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, timeout=GIT_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None  # no repository, not ours to read, or too slow: the commit is unknown, the run goes on
    lines = done.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), None)
    if commit is None or commit == "(initial)":
        return None
    return {"commit": commit, "changed": any(not line.startswith("#") for line in lines)}
