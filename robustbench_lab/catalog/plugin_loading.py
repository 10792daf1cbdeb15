"""Plugins: installed ones, single files and live objects, registered one by one in a manager of their own."""

import functools
import hashlib
import inspect
import os
import secrets
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from robustbench_lab import hookspecs
from robustbench_lab.errors import PluginError, UsageError, describe_error, did_you_mean

ENTRY_POINT_GROUP = "robustbench_lab"
DISABLE_VARIABLE = "RBL_DISABLE_PLUGINS"
"""Environment variable: names of plugins to leave out, separated by commas."""
HOOKS = tuple(sorted(name for name in vars(hookspecs) if name.startswith("rbl_")))


class PluginSource(StrEnum):
    """Where a plugin comes from."""

    INSTALLED = "installed"
    FILE = "file"
    MEMORY = "memory"


@dataclass(frozen=True)
class PluginRecord:
    """A plugin that was found, whether or not it works."""

    name: str
    distribution: str | None
    version: str
    """Of its distribution; a file's SHA-256; an object's `__version__`, or else one that no other load has."""
    source: PluginSource
    hooks: tuple[str, ...] = ()
    error: str | None = None
    """Why it is not used, in one line."""


@dataclass(frozen=True)
class LoadedPlugins:
    """What `load_plugins` found. `records` holds every plugin, those that do not work included."""

    manager: pluggy.PluginManager
    records: tuple[PluginRecord, ...]
    files: tuple[str, ...]
    """Absolute paths of the single files, for a worker to load the same ones."""

    def call(self, record: PluginRecord, hook: str) -> Iterator[Any]:
        """What one plugin's implementation of a hook returns (nothing where it has none); its errors pass through."""
        plugin = self.manager.get_plugin(record.name)
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin is plugin:
                yield implementation.function()


def load_plugins(files: Sequence[str] = (), extra: Sequence[tuple[str, object]] = ()) -> LoadedPlugins:
    """Find and register all plugins: of installed distributions, of `files`, and `extra` (name, object).

    An installed plugin that breaks is kept with its error and stops nothing else. One that was asked for by name,
    in `files` or `extra`, raises PluginError or UsageError.
    """
    manager = _new_manager()
    for name in _disabled():
        manager.set_blocked(name)
    paths = list(dict.fromkeys(Path(file).expanduser().resolve() for file in files))
    owner = functools.cache(_owner)
    records = [_load_installed(manager, point, *owner(point.dist)) for point in _installed()]
    records += [_load_file(manager, path) for path in paths]
    records += [_load_object(manager, name, plugin) for name, plugin in extra]
    return LoadedPlugins(manager, tuple(records), tuple(str(path) for path in paths))


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _disabled() -> list[str]:
    return [name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()]


def _installed() -> Iterable[EntryPoint]:
    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))


def _owner(distribution: Distribution | None) -> tuple[str | None, str]:
    """Name and version of what brings a plugin. Python parses its metadata anew for each of the two properties."""
    if distribution is None:
        return None, "unknown"
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def _load_installed(
    manager: pluggy.PluginManager, point: EntryPoint, distribution: str | None, version: str
) -> PluginRecord:
    record = PluginRecord(point.name, distribution, version, PluginSource.INSTALLED)
    if manager.is_blocked(point.name):
        return _switched_off(record)
    try:
        return _register(manager, point.load(), record)
    except (Exception, SystemExit) as error:  # whatever it is costs this plugin only
        return replace(record, error=describe_error(error))


def _load_file(manager: pluggy.PluginManager, path: Path) -> PluginRecord:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the plugin file {path}: {error.strerror}. Check the path.") from error
    record = PluginRecord(path.name, None, hashlib.sha256(content).hexdigest(), PluginSource.FILE)
    if manager.is_blocked(record.name):
        return _switched_off(record)
    return _register(manager, _import_file(path, content, record.version), record)


def _load_object(manager: pluggy.PluginManager, name: str, plugin: object) -> PluginRecord:
    # Without a version, stored results of one object must never be taken for those of another.
    version = getattr(plugin, "__version__", None) or f"unversioned-{secrets.token_hex(6)}"
    record = PluginRecord(name, None, str(version), PluginSource.MEMORY)
    return _switched_off(record) if manager.is_blocked(name) else _register(manager, plugin, record)


def _switched_off(record: PluginRecord) -> PluginRecord:
    return replace(record, error=f"switched off by {DISABLE_VARIABLE}")


def _import_file(path: Path, content: bytes, sha256: str) -> ModuleType:
    """Run a plugin file as a module of a private name. What runs is what was hashed, never a stale bytecode cache."""
    module = ModuleType(f"_rbl_plugin_{path.stem}_{sha256[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and annotations look their module up there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 (a file the user asked to run)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise PluginError(f"plugin {path.name} does not load: {_place(error, path)}{describe_error(error)}") from error
    return module


def _place(error: BaseException, path: Path) -> str:
    """`line 7: `, the deepest line of the file itself. A SyntaxError names its own."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""


def _register(manager: pluggy.PluginManager, plugin: object, record: PluginRecord) -> PluginRecord:
    if manager.has_plugin(record.name):
        raise PluginError(f"two plugins are called '{record.name}': rename one")
    if manager.is_registered(plugin):
        raise PluginError(f"'{record.name}' is the same object as plugin '{manager.get_name(plugin)}': remove one")
    hooks = tuple(sorted(_hooks(manager, plugin, record.name)))
    try:
        # Tried on a manager of its own first: older versions of pluggy keep what they refuse half registered.
        _new_manager().register(plugin, record.name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin '{record.name}': {' '.join(str(error).split())}") from error
    manager.register(plugin, record.name)
    return replace(record, hooks=hooks)


def _hooks(manager: pluggy.PluginManager, plugin: object, name: str) -> Iterator[str]:
    """Hooks that a plugin implements. Raises PluginError for one that does not exist or would never be called."""
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None and not _looks_like_hook(plugin, attribute):
            continue
        hook = (options and options.get("specname")) or attribute
        if hook not in HOOKS:
            raise PluginError(f"plugin '{name}' implements '{hook}', which is no hook.{did_you_mean(hook, HOOKS)}")
        if options is None:
            raise PluginError(f"plugin '{name}': '{hook}' is never called: put @hookimpl above it")
        yield hook


def _looks_like_hook(plugin: object, attribute: str) -> bool:
    if not attribute.startswith("rbl_"):
        return False
    static = inspect.getattr_static(plugin, attribute, None)
    return inspect.isroutine(static) or isinstance(static, staticmethod | classmethod)
