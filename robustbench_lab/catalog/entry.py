"""The kinds of component there are, and one entry of the catalog."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustbench_lab.catalog.plugin_loading import PluginRecord, PluginSource
from robustbench_lab.contracts import (
    AttackSpec,
    CommandSpec,
    ComponentSpec,
    DatasetSpec,
    DefenseSpec,
    ExecutorSpec,
    MetricSpec,
    ModelSpec,
    ObjectiveSpec,
    ReportSpec,
    TaskSpec,
    ThreatModelSpec,
)


@dataclass(frozen=True)
class Kind:
    """A kind of component. `supplied`: how many positional arguments its factories get from the core."""

    name: str
    singular: str
    spec: type[ComponentSpec]
    supplied: int = 0

    @property
    def hook(self) -> str:
        return f"rbl_{self.name}"


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("models", "model", ModelSpec),
        Kind("datasets", "dataset", DatasetSpec),
        Kind("attacks", "attack", AttackSpec, supplied=1),
        Kind("defenses", "defense", DefenseSpec, supplied=1),
        Kind("tasks", "task", TaskSpec),
        Kind("objectives", "objective", ObjectiveSpec),
        Kind("threat_models", "threat model", ThreatModelSpec),
        Kind("metrics", "metric", MetricSpec, supplied=1),
        Kind("executors", "executor", ExecutorSpec),
        Kind("reports", "report", ReportSpec, supplied=1),
        Kind("commands", "command", CommandSpec),
    )
}


@dataclass(frozen=True)
class Entry:
    """A component of the catalog, and the plugin it comes from."""

    kind: Kind
    spec: Any
    """An object of the kind's own class: `AttackSpec` for attacks, and so on."""
    plugin: PluginRecord

    @property
    def title(self) -> str:
        """`attack 'pgd'`, as messages name it."""
        return f"{self.kind.singular} '{self.spec.name}'"

    @property
    def is_family(self) -> bool:
        """Whether the name stands for any name that begins with it: `timm:` for `timm:resnet50`."""
        return bool(self.spec.name.endswith(":"))

    @property
    def supplied(self) -> int:
        """How many positional arguments the core gives to the factory; a family's first is the rest of its name."""
        return self.kind.supplied + self.is_family

    @property
    def version(self) -> str:
        """What is part of every identity. A single file's is always its hash: any change in it may change numbers."""
        if self.plugin.source is PluginSource.FILE:
            return self.plugin.version
        return self.spec.version or self.plugin.version

    @property
    def problem(self) -> str | None:
        """The libraries that are missing and what installs them, or None. Imports none of them."""
        missing = [name.partition(".")[0] for name in self.spec.requires if not _is_installed(name)]
        if not missing:
            return None
        return f"needs {', '.join(missing)}, which is not installed: {self.install_command(missing[0])}"

    def install_command(self, missing: str) -> str:
        """The pip command that brings what a component requires. missing: its import name, the last resort."""
        if self.spec.install:
            return str(self.spec.install)
        if self.spec.extra:
            return f'pip install "robustbench-lab[{self.spec.extra}]"'
        return f"pip install {self.plugin.distribution or missing}"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # it is imported, by a loader that leaves no spec
        return True
