"""Regions of separate points, in which small steps lead nowhere: they are searched between the points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from robustbench_lab.contracts import Region


@runtime_checkable
class Discrete(Protocol):
    """A region that may have only separate points, such as whole numbers."""

    @property
    def relaxed(self) -> Region | None:
        """The region with what lies between its points, where attacks move; None where it has no separate points."""
        ...
