"""What plugins that wrap another library share."""

from importlib.metadata import PackageNotFoundError, version


def wrapper_version(own: str, distribution: str) -> str:
    """The version of a wrapped component: the wrapper's own and the library's, since both decide its numbers."""
    try:
        return f"{own}+{distribution}-{version(distribution)}"
    except PackageNotFoundError:
        return own
