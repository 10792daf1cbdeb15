"""The batch sizes that have worked: a cell like one that ran out of memory begins with what worked there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustbench_lab.provenance import content_hash
from robustbench_lab.records import Cell, Status, UnitRecord


@dataclass
class BatchMemory:
    """Of cells that ran out of memory; others begin with what their device allows."""

    path: Path | None = None
    """Keeps them for later runs, by the name of the machine; None: nothing does."""
    _sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sizes |= self._kept().get(platform.node(), {})

    def limit(self, cell: Cell, device_kind: str, share: float = 1.0) -> int | None:
        """What worked for cells like this one; None where none ran out of memory.

        device_kind: `cpu`, `cuda`. share: of the device's memory that is the unit's to use.
        """
        return self._sizes.get(_alike(cell, device_kind, share))

    def learn(
        self, cell: Cell, record: UnitRecord, device_kind: str, share: float = 1.0, batch_divisor: int = 1
    ) -> None:
        """A unit of this cell has ended. batch_divisor: above 1 where its worker was killed at the usual size."""
        if record.status is not Status.OK or not (record.memory_ran_out or batch_divisor > 1):
            return
        # A unit that began before this was known may end after it, with more.
        size = min(record.batch_size, self.limit(cell, device_kind, share) or record.batch_size)
        self._sizes[_alike(cell, device_kind, share)] = size
        self._keep()

    # ------------------------------------------------------------ inside

    def _kept(self) -> dict[str, dict[str, int]]:
        """Of all machines. What is no such file counts as empty: at worst memory runs out once more."""
        if self.path is None:
            return {}
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
            return {str(host): _sizes(sizes) for host, sizes in content.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _keep(self) -> None:
        if self.path is None:
            return
        kept = self._kept()
        kept[platform.node()] = {**kept.get(platform.node(), {}), **self._sizes}
        partial = self.path.with_suffix(f".partial-{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk: the run goes on without
            partial.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.path)


def _sizes(content: Any) -> dict[str, int]:
    return {str(key): size for key, size in content.items() if isinstance(size, int) and size > 0}


def _alike(cell: Cell, device_kind: str, share: float) -> str:
    parts = (cell.model.identity, cell.defense.identity, cell.dataset.identity, cell.attack.name)
    return content_hash((*parts, device_kind, float(share)))[:16]
