"""What pydantic found wrong, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

SHOWN = 40
"""Characters of a wrong value that a message repeats."""


def first_problem(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """Where the first problem is, and what: `must be a valid integer, not 'many' (and 2 more)`."""
    problems = error.errors(include_url=False)
    first = problems[0]
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith("Input should "):
        given = repr(first["input"])
        given = given if len(given) <= SHOWN else f"{given[: SHOWN - 3]}..."
        message = f"must {message.removeprefix('Input should ')}, not {given}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return first["loc"], message + more
