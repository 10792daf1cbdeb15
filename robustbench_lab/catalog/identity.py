"""What makes a component the same component: the hash that enters every cell id."""

import importlib.resources
import os
from collections.abc import Mapping
from typing import Any

from robustbench_lab.catalog.entry import Entry
from robustbench_lab.errors import PluginError, UsageError
from robustbench_lab.provenance import content_hash, file_sha256


def component_identity(entry: Entry, name: str, params: Mapping[str, Any]) -> str:
    """Hash, in hex, of a component's kind, full name, version, plain parameters and package files.

    A parameter that names an existing file counts by the file's contents, so moving a file changes nothing and editing
    it does. A folder counts by its name only: what reads a folder (a dataset) has a revision of its own. But the
    name of a model that is a folder (`ModelSpec.names_folders`) counts by the files in it.
    Raises PluginError where one of the plugin's own files is missing.
    """
    return content_hash(
        {
            "kind": entry.kind.name,
            "name": _named(entry, name),
            "version": entry.version,
            "params": {key: _contents(value) for key, value in params.items()},
            "files": [_package_file_sha256(file, entry) for file in getattr(entry.spec, "files", ())],
        }
    )


def _named(entry: Entry, name: str) -> Any:
    """A component's name; of a folder the files in it, since where it lies does not matter."""
    folder = os.path.expanduser(name.removeprefix(entry.spec.name))  # noqa: PTH111
    if not getattr(entry.spec, "names_folders", False) or not os.path.isdir(folder):  # noqa: PTH112
        return name
    with os.scandir(folder) as inside:
        return [entry.spec.name, {file.name: file_sha256(file.path) for file in inside if file.is_file()}]


def _contents(value: Any) -> Any:
    """A value with every file's name, also that of `file.py:object`, replaced by the file's hash."""
    if isinstance(value, list):
        return [_contents(one) for one in value]
    if isinstance(value, dict):
        return {key: _contents(one) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    if os.path.isfile(path := os.path.expanduser(value)):  # noqa: PTH111, PTH113 (any text, also what pathlib refuses)
        return {"sha256": file_sha256(path)}
    path, colon, attribute = path.rpartition(":")
    if colon and path.endswith(".py") and os.path.isfile(path):  # noqa: PTH113
        return {"sha256": file_sha256(path), "object": attribute}
    return value


def _package_file_sha256(file: str, entry: Entry) -> str:
    package, _, inside = file.partition(":")
    try:
        with importlib.resources.as_file(importlib.resources.files(package) / inside) as path:
            return file_sha256(path)
    except (ImportError, OSError, UsageError) as error:
        raise PluginError(f"{entry.title} of {entry.plugin.name}: its file {file} is missing") from error
