"""Passwords stay out of what is shown and stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_USER_AND_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/]+@")
_PASSWORD_SETTING = re.compile(r"([?&](?:ssl)?password=)[^\s&#]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Text with `***` for the passwords of the URLs in it."""
    return _PASSWORD_SETTING.sub(r"\1***", _USER_AND_PASSWORD.sub(r"\1***@", text))


def redacted(value: Any) -> Any:
    """A value made of mappings, lists and tuples, with `without_passwords` for every text in it."""
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(redacted(item) for item in value)
    return value
