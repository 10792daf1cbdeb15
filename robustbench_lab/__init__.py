"""Adversarial robustness of classifiers, detectors and more, measured so that others can check it."""

from typing import TYPE_CHECKING, Any

from robustbench_lab.hookspecs import hookimpl

if TYPE_CHECKING:
    from robustbench_lab.api import evaluate

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "hookimpl"]


def __getattr__(name: str) -> Any:
    """Import `evaluate` on use: plugins import this package to be listed, and that must not import torch."""
    if name == "evaluate":
        from robustbench_lab.api import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
