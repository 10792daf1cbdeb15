"""Long lists of ids in parts that every database takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

IDS_A_QUERY = 900
"""Some builds of SQLite take 999 variables in a statement."""


def chunks(ids: Iterable[str], at_once: int = IDS_A_QUERY) -> Iterator[list[str]]:
    """The ids in their order, at most `at_once` at a time."""
    rest = iter(ids)
    while chunk := list(islice(rest, at_once)):
        yield chunk
