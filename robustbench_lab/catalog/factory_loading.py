"""From a factory's name to the object, and library trouble on the way to one line that says what to install."""

import contextlib
import importlib
import importlib.metadata
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from robustbench_lab.catalog.entry import Entry
from robustbench_lab.errors import MissingLibraryError, PluginError, RblError, describe_error

MISMATCH = re.compile(r"torchvision::\w+|partially initialized module 'torchvision'|torchvision[/\\]_C")
"""How a torchvision that was built for another torch fails: RuntimeError, AttributeError or OSError, by version."""


def load_factory(entry: Entry) -> Callable[..., Any]:
    """Import what an entry's factory names.

    Raises MissingLibraryError where a library is missing or does not load, PluginError where the plugin is at fault.
    """
    factory = entry.spec.factory
    if entry.problem:
        raise MissingLibraryError(f"{entry.title} {entry.problem}")
    if not isinstance(factory, str):
        return _callable(factory, entry)
    module_name, _, attribute = factory.partition(":")
    try:
        with library_trouble(entry):
            module = importlib.import_module(module_name)
    except RblError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{entry.title} of {entry.plugin.name} does not load: {describe_error(error)}") from error
    try:
        return _callable(operator.attrgetter(attribute)(module), entry)
    except AttributeError:
        raise PluginError(f"{entry.title} of {entry.plugin.name}: there is no {factory}") from None


@contextlib.contextmanager
def library_trouble(entry: Entry) -> Iterator[None]:
    """Turn a library that is missing or does not load into MissingLibraryError; every other error passes through."""
    try:
        yield
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        if MISMATCH.search(str(error)):
            raise MissingLibraryError(f"{entry.title} does not load: {_mismatch(error)}") from error
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise _missing(entry, error.name) from error
        if isinstance(error, ImportError):
            raise MissingLibraryError(f"{entry.title} does not load: {describe_error(error)}") from error
        raise


def _missing(entry: Entry, module: str) -> RblError:
    library, dot, _ = module.partition(".")
    if dot and re.match(rf"{re.escape(library)}[.:]", str(entry.spec.factory)):
        return PluginError(f"{entry.title} of {entry.plugin.name}: there is no module {module}")
    declared = entry.spec.extra or library in entry.spec.requires
    remedy = entry.install_command(library) if declared else "install the package that brings it"
    return MissingLibraryError(f"{entry.title} needs {library}, which is not installed: {remedy}")


def _mismatch(error: Exception) -> str:
    return (
        f"torch {_version('torch')} and torchvision {_version('torchvision')} do not match ({describe_error(error)}). "
        "Install both from one place: pip install --force-reinstall torch torchvision"
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown)"


def _callable(factory: object, entry: Entry) -> Callable[..., Any]:
    if not callable(factory):
        raise PluginError(f"{entry.title} of {entry.plugin.name}: its factory {factory!r} cannot be called")
    return factory
