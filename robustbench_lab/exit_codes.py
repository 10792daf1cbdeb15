"""Every exit status of `rbl`, in one place."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells the shell."""

    OK = 0
    INTERNAL = 1
    """A bug in rbl or in a plugin's listing code: the traceback is shown."""
    USAGE = 2
    """The request cannot be carried out as written; nothing was run."""
    SOME_CELLS_FAILED = 3
    """The run ended, and at least one of its cells failed."""
    STORE = 4
    """The result database cannot be read or written."""
    INTERRUPTED = 130
    """Ctrl-C: what was finished is stored."""
