"""The rule of a leaderboard: which results belong to it, what every row must have, and how rows are ordered."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from robustbench_lab.catalog.component_syntax import parse_number
from robustbench_lab.comparable_cells import RowSubject
from robustbench_lab.contracts import Published, PublishedSubject
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.records import Cell


@dataclass(frozen=True, kw_only=True)
class PublishedFigures:
    """What is published about one model. A filter left out holds for every table."""

    model: str
    """Its name or its full label."""
    dataset: str | None = None
    norm: str | None = None
    eps: float | None = None
    figures: Published

    def is_about(self, subject: PublishedSubject) -> bool:
        """Whether a row is about this model, and its table about these data and this budget."""
        return (
            self.model in (subject.model, subject.model.partition("(")[0])
            and self.dataset in (None, subject.dataset, subject.dataset.partition("(")[0])
            and self.norm in (None, subject.norm)
            and (self.eps is None or math.isclose(self.eps, subject.eps, rel_tol=1e-6))
        )


@dataclass(frozen=True, kw_only=True)
class LeaderboardDefinition:
    """What belongs to a leaderboard. A filter left empty admits everything."""

    name: str = "results"
    title: str = "Leaderboard"
    description: str = ""
    task: str | None = None
    dataset: str | None = None
    """A dataset's name (`npz`) or its full label (`npz(path='test.npz')`); the same holds for the two below."""
    norm: str | None = None
    eps: float | None = None
    threat_models: tuple[str, ...] = ()
    required_attacks: tuple[str, ...] = ()
    """A row that lacks the result of one of these is shown, but has no rank."""
    sort: str | None = None
    """A metric's name, `passes`, `seconds` or `model`. Default: the task's main metric."""
    alpha: float = 0.05
    """Family-wise error rate of the paired tests that separate ranks."""
    published: tuple[PublishedFigures, ...] = ()
    """Figures of `[[published]]` tables, shown beside the measured ones."""

    @classmethod
    def from_toml(cls, path: Path) -> LeaderboardDefinition:
        """Read a `leaderboard.toml`. Raises UsageError naming the file and the first thing wrong with it."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"Cannot read the leaderboard {path}: {error.strerror or error}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is no valid TOML: {' '.join(str(error).split())}.") from error
        return cls(**{key: _value(path, key, raw) for key, raw in content.items()})

    def published_of(self, subject: PublishedSubject) -> Published | None:
        """What the definition says is published about a model, for these data and this budget."""
        return next((one.figures for one in self.published if one.is_about(subject)), None)

    def admits(self, subject: Cell | RowSubject) -> bool:
        """Whether a cell, or all cells of a row, belong to this leaderboard."""
        return (
            self.task in (None, subject.task)
            and (self.dataset is None or is_called(subject.dataset, self.dataset))
            and self.norm in (None, subject.norm)
            and (self.eps is None or math.isclose(self.eps, subject.eps, rel_tol=1e-6))
            and (not self.threat_models or any(is_called(subject.threat_model, name) for name in self.threat_models))
        )


class Named(Protocol):
    """A component, as far as its names go."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...


def is_called(component: Named, name: str) -> bool:
    """Whether `name` is a component's name or its full label."""
    return name in (component.name, component.label)


def _value(path: Path, key: str, raw: object) -> Any:
    if key not in _READERS:
        raise UsageError(f"{path}: unknown key '{key}'.{did_you_mean(key, _READERS)}")
    try:
        return _READERS[key](raw)
    except (UsageError, ValueError) as error:
        expected = error if isinstance(error, UsageError) else f"it must be {error}, not {raw!r}"
        raise UsageError(f"{path}: {key}: {expected}.") from error


def _published(raw: object) -> tuple[PublishedFigures, ...]:
    if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
        raise ValueError("tables [[published]]")
    return tuple(_published_figures(one) for one in raw)


def _published_figures(raw: Mapping[str, object]) -> PublishedFigures:
    """All that is not named here is a metric."""
    named = {key: _budget(raw[key]) if key == "eps" else _text(raw[key]) for key in _ABOUT if key in raw}
    metrics = {key: _number(value) for key, value in raw.items() if key not in _ABOUT}
    if "model" not in named or not metrics:
        raise ValueError("tables with a model and a metric, such as robust_accuracy = 0.531")
    filters: dict[str, Any] = {key: value for key, value in named.items() if key != "source"}
    return PublishedFigures(**filters, figures=Published(metrics, str(named.get("source", "the leaderboard's rule"))))


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("a string")
    return raw


def _texts(raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(one, str) for one in raw):
        raise ValueError("a list of strings")
    return tuple(raw)


def _budget(raw: object) -> float:
    budget = parse_number(raw) if isinstance(raw, str) else _number(raw)
    if not 0 <= budget < math.inf:
        raise ValueError("at least 0 and finite")
    return float(budget)


def _rate(raw: object) -> float:
    rate = _number(raw)
    if not 0 < rate < 1:
        raise ValueError("between 0 and 1")
    return float(rate)


def _number(raw: object) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError("a number")
    return raw


_ABOUT = ("model", "dataset", "norm", "eps", "source")
_SPECIAL: Mapping[str, Callable[[object], Any]] = {
    "eps": _budget,
    "threat_models": _texts,
    "required_attacks": _texts,
    "alpha": _rate,
    "published": _published,
}
_READERS = {field.name: _SPECIAL.get(field.name, _text) for field in fields(LeaderboardDefinition)}
