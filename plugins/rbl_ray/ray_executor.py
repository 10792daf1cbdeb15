"""Work units on a Ray cluster: an actor for each slot, which Ray puts wherever there is room for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rbl_ray.cluster_slots import cluster_slots
from rbl_ray.connection import connect, disconnect, nodes
from rbl_ray.crew import Crew
from robustbench_lab.catalog.plugin_loading import PluginSource
from robustbench_lab.errors import RblError
from robustbench_lab.executors import ExecutionContext, UnitQueue, check_silence
from robustbench_lab.hardware.device_slots import Slot, SlotRequest
from robustbench_lab.records import UnitRecord


@dataclass
class RayExecutor:
    """Runs units on a cluster's nodes."""

    address: str | None = None
    """`HOST:PORT`; `local`: a cluster on this machine for this run; None: one that is there, or else `local`."""
    silence: float = 300.0
    """Seconds without an answer after which a worker counts as hung."""
    name: str = field(default="ray", init=False)
    _connected: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_silence(self.silence)

    def find_slots(self, wanted: SlotRequest) -> tuple[Slot, ...]:
        """Connect, and cut the cluster into slots. Raises UsageError where there is none, or no room."""
        self._connected = connect(self.address) or self._connected
        try:
            return cluster_slots(nodes(), wanted)
        except RblError:
            self._leave()
            raise

    def run(self, queue: UnitQueue, context: ExecutionContext) -> Iterator[UnitRecord]:
        """Records as units end."""
        crew = None
        self._connected = connect(self.address) or self._connected  # a second call comes after the first has left
        try:
            crew = Crew(queue, context, _plugin_files(context), self.silence)
            yield from crew.work()
        finally:
            if crew:
                crew.dismiss()
            self._leave()

    def _leave(self) -> None:
        if self._connected:
            disconnect()
            self._connected = False


def _plugin_files(context: ExecutionContext) -> tuple[tuple[str, bytes], ...]:
    """Single-file plugins with their contents, which must still be those that the plan was made with."""
    records = [one for one in context.catalog.plugins if one.source is PluginSource.FILE]
    contents = [Path(file).read_bytes() if Path(file).is_file() else b"" for file in context.catalog.files]
    for record, content in zip(records, contents, strict=True):
        if hashlib.sha256(content).hexdigest() != record.version:
            raise RblError(f"{record.name} has changed since the run began: start the run again")
    return tuple((record.name, content) for record, content in zip(records, contents, strict=True))
