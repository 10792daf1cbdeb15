"""What pydantic found wrong, in one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

UNION_TYPE = re.compile(r"(constrained-)?(int|float|str|bool|none)$|literal\[")
SHOWN = 40
"""Characters of a wrong value that a message repeats."""


def first_problem(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """Where the first problem is, and what: `must be a valid integer, not 'many' (and 2 more)`."""
    problems = error.errors(include_url=False)
    first = problems[0]
    same = [one for one in problems if _is_same_value(first, one)]
    place = first["loc"] if len(same) == 1 else first["loc"][:-1]
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith("Input should "):
        given = repr(first["input"])
        given = given if len(given) <= SHOWN else f"{given[: SHOWN - 3]}..."
        wanted = dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in same)
        message = f"must be {', or '.join(wanted)}, not {given}".replace("be Input should ", "")
    more = f" (and {len(problems) - len(same)} more)" if len(problems) > len(same) else ""
    return place, message + more


def _is_same_value(one: ErrorDetails, other: ErrorDetails) -> bool:
    """Whether two problems are those of one value with the types of a union, which pydantic names last."""
    if one is other:
        return True
    places = one["loc"], other["loc"]
    return places[0][:-1] == places[1][:-1] and all(place and UNION_TYPE.match(str(place[-1])) for place in places)
