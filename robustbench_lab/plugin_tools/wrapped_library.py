"""What plugins that wrap another library share."""

import functools
import importlib.metadata

_version = functools.cache(importlib.metadata.version)
"""Python reads and parses the metadata anew every time it is asked, and a catalog asks once a component."""


def wrapper_version(own: str, distribution: str) -> str:
    """The version of a wrapped component: the wrapper's own and the library's, since both decide its numbers."""
    try:
        return f"{own}+{distribution}-{_version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return own
