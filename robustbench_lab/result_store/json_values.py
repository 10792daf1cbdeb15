"""Python values to JSON and back, exactly: JSON itself has no tuples, and no NaN or infinity.

Those are written as `{"$tuple": [...]}` and `{"$float": "nan"}`; everything else as itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from robustbench_lab.errors import StoreError

TUPLE, FLOAT, MAPPING = "$tuple", "$float", "$mapping"
_MARKS = {TUPLE, FLOAT, MAPPING}


def to_json(value: Any) -> Any:
    """A value made of None, bool, int, float, str, lists, tuples and mappings with str keys, as JSON can hold it.

    Raises StoreError for anything else.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {FLOAT: repr(float(value))}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, tuple):
        return {TUPLE: [to_json(item) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        plain = {key: to_json(item) for key, item in value.items()}
        # A user's own mapping that looks like one of the marks is written as pairs.
        return {MAPPING: [[key, item] for key, item in plain.items()]} if _MARKS & plain.keys() else plain
    raise StoreError(f"a {type(value).__name__} cannot be stored as a parameter: use numbers, text, lists or mappings")


def from_json(value: Any) -> Any:
    """What `to_json` was given."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TUPLE in value:
        return tuple(from_json(item) for item in value[TUPLE])
    if FLOAT in value:
        return float(value[FLOAT])
    if MAPPING in value:
        return {key: from_json(item) for key, item in value[MAPPING]}
    return {key: from_json(item) for key, item in value.items()}
