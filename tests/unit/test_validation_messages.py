"""What pydantic found wrong, in one line."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from robustbench_lab.catalog.validation_messages import first_problem


class Settings(BaseModel):
    steps: int = 1
    seeds: list[int] = []
    target: Annotated[int, Field(ge=0)] | Literal["next", "second"] = "next"


def problem(annotation: Any, value: object) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value, strict=True)
    return first_problem(caught.value)


def test_a_value_of_several_types_is_told_all_of_them() -> None:
    said = "must be a valid integer, or 'next' or 'second', not 'nxt'"
    assert problem(int | Literal["next", "second"], "nxt") == ((), said)
    assert problem(Settings, {"target": "nxt"}) == (("target",), said)


def test_several_problems_are_counted_and_the_first_is_told() -> None:
    two = {"steps": "many", "target": "nxt"}
    assert problem(Settings, two) == (("steps",), "must be a valid integer, not 'many' (and 2 more)")
    lists = {"seeds": ["x", "x"]}
    assert problem(Settings, lists) == (("seeds", 0), "must be a valid integer, not 'x' (and 1 more)")
