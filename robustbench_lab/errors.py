"""Errors a user can cause. Each is one line that says what to do next, and carries the exit code."""

from collections.abc import Iterable
from difflib import get_close_matches

from robustbench_lab.exit_codes import ExitCode


class RblError(Exception):
    """An expected error: shown as one line, without a traceback."""

    exit_code = ExitCode.USAGE


class UsageError(RblError):
    """The request names something that does not exist or does not fit."""


class MissingLibraryError(RblError):
    """A component needs a library that is not installed or does not load."""


class StoreError(RblError):
    """The result database cannot be opened, read or written."""

    exit_code = ExitCode.STORE


class NothingStoredError(StoreError):
    """There is no result database yet, or an empty one."""


class PluginError(RblError):
    """A plugin breaks the rules of the registry (a name taken twice, an unknown hook)."""


class AttackContractError(RblError):
    """An attack handed the core something that is no set of candidate inputs."""


class SkipCell(RblError):  # noqa: N818 (no error: a way to end)
    """A cell cannot be evaluated meaningfully; its message is the stored reason."""


LONGEST = 300
"""Characters of a stranger's message that are shown."""
LONGEST_OWN = 600
"""Of an expected error's: what to do next stands at its end."""


def describe_error(error: BaseException) -> str:
    """`ValueError: what it says`, on one line and not too long; an expected error by its message alone."""
    text = " ".join(str(error).split())
    if isinstance(error, RblError):
        return _shortened(text, LONGEST_OWN)
    return f"{type(error).__name__}: {_shortened(text, LONGEST)}" if text else type(error).__name__


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'pgd'?"` for the nearest known name, or what there is when nothing is near."""
    choices = sorted(set(known))
    close = get_close_matches(name, choices, n=3, cutoff=0.5)
    if close:
        swapped = [one for one in close if sorted(one) == sorted(name)]  # the commonest slip, which difflib rates low
        return f" Did you mean '{(swapped or close)[0]}'?"
    if not choices:
        return ""
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f" There is: {shown}."
