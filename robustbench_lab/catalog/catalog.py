"""The catalog: every component of every plugin, found by name, checked, and built. Read-only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from robustbench_lab.catalog.component_syntax import NAME, Component
from robustbench_lab.catalog.entry import KINDS, Entry, Kind
from robustbench_lab.catalog.factory_loading import library_trouble, load_factory
from robustbench_lab.catalog.plugin_loading import DISABLE_VARIABLE, LoadedPlugins, PluginRecord, PluginSource
from robustbench_lab.contracts import Access, GradientKind
from robustbench_lab.errors import PluginError, UsageError, describe_error, did_you_mean

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterator, Mapping

    from robustbench_lab.catalog.parameters import Parameters
    from robustbench_lab.records import ResolvedComponent
    from robustbench_lab.run_observer import RunObserver

CHOICES: Mapping[str, type[StrEnum]] = {one.__name__: one for one in (Access, GradientKind)}
"""Types of specs' fields that have members of their own, as annotations name them."""

__all__ = ["Catalog", "Entry"]


@dataclass(frozen=True)
class Catalog:
    """What there is. `plugins` holds every plugin, those that do not work with their error."""

    plugins: tuple[PluginRecord, ...]
    _loaded: LoadedPlugins
    _entries: Mapping[str, Mapping[str, tuple[Entry, ...]]]
    """Kind to name to the entries of that name: more than one where they are for different tasks."""

    @classmethod
    def from_plugins(cls, loaded: LoadedPlugins) -> Catalog:
        """Ask each plugin what it brings.

        An installed plugin whose hook raises, or returns anything but a list of the hook's specs, brings nothing and
        is listed with its error; a file or object that was named for this run raises PluginError. So does a name that
        is given to two components of one kind and task.
        """
        entries: dict[str, dict[str, tuple[Entry, ...]]] = {kind: {} for kind in KINDS}
        records = []
        for record in loaded.records:
            record, found = _ask(loaded, record)
            records.append(record)
            for entry in found:
                _add(entries[entry.kind.name], entry)
        _check_main_metrics(entries["metrics"])
        frozen = {kind: MappingProxyType(dict(sorted(ones.items()))) for kind, ones in entries.items()}
        return cls(tuple(records), loaded, MappingProxyType(frozen))

    @property
    def files(self) -> tuple[str, ...]:
        """Absolute paths of single-file plugins, for a worker to load the same ones."""
        return self._loaded.files

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """All of a kind (`attacks`, `threat_models`, ...), sorted by name."""
        return tuple(entry for ones in self._of(kind).values() for entry in ones)

    def find(self, kind: str, name: str, task: str | None = None) -> Entry:
        """The entry of that name, or of the longest family that the name belongs to. Raises UsageError.

        task: which entry is meant where the name stands for several; the first where it is for none of them.
        """
        entries = self.named(kind, name)
        return next((one for one in entries if task in one.spec.tasks), entries[0])

    def named(self, kind: str, name: str) -> tuple[Entry, ...]:
        """All entries of that name, one for each task or group of tasks. Raises UsageError where there is none."""
        exact = self._of(kind).get(name, ())
        if exact and not exact[0].is_family:
            return exact
        families = {key: ones for key, ones in self._of(kind).items() if ones[0].is_family and name.startswith(key)}
        if not families:
            raise UsageError(self._unknown(KINDS[kind], name))
        family = families[max(families, key=len)]
        if family[0].spec.name == name:
            raise UsageError(f"{family[0].title} is a family: write the rest of the name, {name}...")
        return family

    def load_factory(self, kind: str, name: str, task: str | None = None) -> Callable[..., Any]:
        """Import a factory. Raises UsageError, MissingLibraryError or PluginError."""
        return load_factory(self.find(kind, name, task))

    def parameters(self, kind: str, name: str, task: str | None = None) -> tuple[inspect.Parameter, ...]:
        """What the component can be given by name."""
        return tuple(self._parameters(self.find(kind, name, task)).known.values())

    def resolve(
        self,
        kind: str,
        component: Component,
        *,
        task: str | None = None,
        injected: Mapping[str, Any] = MappingProxyType({}),
    ) -> ResolvedComponent:
        """Check a component's parameters, complete them, and hash all that defines it.

        injected: values the core offers; each is used where the factory has such a parameter and the user gave none.
        Raises UsageError that begins with the component as the user wrote it.
        """
        from robustbench_lab.catalog.identity import component_identity
        from robustbench_lab.records import ResolvedComponent

        entry = self.find(kind, component.name, task)
        parameters = self._parameters(entry)
        offered = {name: value for name, value in injected.items() if name in parameters.known}
        params = parameters.complete({**offered, **component.params}, component.label)
        return ResolvedComponent(
            name=component.name,
            label=component.label,
            params=params,
            plugin=entry.plugin.name,
            version=entry.version,
            identity=component_identity(entry, component.name, params),
        )

    def build(self, kind: str, resolved: ResolvedComponent, *args: Any, task: str | None = None) -> Any:
        """Call the factory: a family's with the rest of its name first, then `args`, then the parameters by name."""
        entry = self.find(kind, resolved.name, task)
        factory = load_factory(entry)
        first = (resolved.name.removeprefix(entry.spec.name),) if entry.is_family else ()
        params = self._parameters(entry).native(resolved.params)
        with library_trouble(entry):
            return factory(*first, *args, **params)

    def observers(self) -> list[RunObserver]:
        """The plugins' observers of a run. A plugin that cannot make its own is left out with a warning."""
        from robustbench_lab.run_observer import RunObserver

        made: list[RunObserver] = []
        for record in self.plugins:
            if record.error:
                continue
            try:
                made += list(_specs(self._loaded, record, "rbl_run_observers", RunObserver))
            except (Exception, SystemExit) as error:  # an observer must not stop a run
                warnings.warn(f"plugin {record.name} observes nothing: {describe_error(error)}", stacklevel=2)
        return made

    def _of(self, kind: str) -> Mapping[str, tuple[Entry, ...]]:
        if kind not in self._entries:
            raise UsageError(f"there is no kind of component called '{kind}'.{did_you_mean(kind, self._entries)}")
        return self._entries[kind]

    def _parameters(self, entry: Entry) -> Parameters:
        from robustbench_lab.catalog.parameters import Parameters

        return Parameters.of(load_factory(entry), entry.supplied, entry.title)

    def _unknown(self, kind: Kind, name: str) -> str:
        _, colon, rest = name.partition(":")
        families = [one for one in self.entries(kind.name) if one.is_family]
        known = [one for one in self._of(kind.name) if not one.endswith(":")]
        known += [one.spec.name + (rest if colon else "") for one in families]
        unused = ", ".join(record.name for record in self.plugins if record.error)
        hint = f" Plugins that did not load: {unused} (see rbl plugins list)." if unused else ""
        return f"there is no {kind.singular} '{name}'.{did_you_mean(name, known)}{hint}"


def _ask(loaded: LoadedPlugins, record: PluginRecord) -> tuple[PluginRecord, list[Entry]]:
    if record.error:
        return record, []
    try:
        return record, list(_entries_of(loaded, record))
    except (Exception, SystemExit) as error:
        if record.source is not PluginSource.INSTALLED:
            raise PluginError(f"plugin {record.name}: {describe_error(error)}") from error
        return replace(record, error=describe_error(error)), []


def _entries_of(loaded: LoadedPlugins, record: PluginRecord) -> Iterator[Entry]:
    for kind in KINDS.values():
        for spec in _specs(loaded, record, kind.hook, kind.spec):
            if not NAME.fullmatch(spec.name):
                raise PluginError(f"{kind.hook}: {spec.name!r} cannot be a name: use letters, digits and - _ . : /")
            if isinstance(spec.factory, str) and spec.factory.count(":") != 1:
                raise PluginError(f"{kind.hook}: the factory of '{spec.name}' must be 'package.module:object'")
            for one in fields(spec):
                choice = CHOICES.get(str(one.type))
                if choice and not isinstance(given := getattr(spec, one.name), choice):
                    known = ", ".join(f"{choice.__name__}.{member.name}" for member in choice)
                    raise PluginError(f"{kind.hook}: {one.name} of '{spec.name}' must be one of {known}, not {given!r}")
                if str(one.type).startswith("tuple[str") and isinstance(given := getattr(spec, one.name), str):
                    raise PluginError(f"{kind.hook}: {one.name} of '{spec.name}' must be a tuple: ({given!r},)")
            yield Entry(kind, spec, record)


def _specs(loaded: LoadedPlugins, record: PluginRecord, hook: str, of: type[Any]) -> Iterator[Any]:
    for returned in loaded.call(record, hook):
        if not isinstance(returned, list | tuple):
            raise PluginError(f"{hook} must return a list of {of.__name__}, not {type(returned).__name__}")
        for one in returned:
            if not isinstance(one, of):
                raise PluginError(f"{hook} must return {of.__name__} objects, not {one!r}")
        yield from returned


def _add(entries: dict[str, tuple[Entry, ...]], entry: Entry) -> None:
    others = entries.get(entry.spec.name, ())
    rival = next((one for one in others if _share_a_task(one, entry)), None)
    if rival is None:
        entries[entry.spec.name] = (*others, entry)
        return
    first, second = rival.plugin.name, entry.plugin.name
    if first == second:
        raise PluginError(f"{entry.title} is provided twice by {first}: rename one")
    raise PluginError(
        f"{entry.title} is provided by both {first} and {second}: rename one, or switch one off ({DISABLE_VARIABLE})"
    )


def _check_main_metrics(metrics: Mapping[str, tuple[Entry, ...]]) -> None:
    """Tables of a task are sorted by one metric: two that say so are refused, as two of one name are."""
    main: dict[str, Entry] = {}
    for entry in (one for ones in metrics.values() for one in ones if one.spec.main):
        for task in entry.spec.tasks:
            first = main.setdefault(task, entry)
            if first is not entry:
                both = f"{first.title} of {first.plugin.name} and {entry.title} of {entry.plugin.name}"
                raise PluginError(f"{both} are both the main one of {task}: one needs main=False")


def _share_a_task(first: Entry, second: Entry) -> bool:
    """Whether a task could mean either; components without tasks are for all of them."""
    tasks = set(first.spec.tasks), set(second.spec.tasks)
    return not all(tasks) or bool(tasks[0] & tasks[1])
