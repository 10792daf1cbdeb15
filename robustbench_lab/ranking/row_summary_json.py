"""Row summaries to text and back, without the outcomes, compactly: a large database has thousands of them.

The text is for this very code alone; any other makes its own from the cells.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.comparable_cells import ComponentName, RowSubject
from robustbench_lab.contracts import Access, Estimate
from robustbench_lab.ranking.row_summary import AbsentAttack, AttackName, AttackResult, AttackTraits, RowSummary
from robustbench_lab.records import Finding, Severity, Verdict

_NAMES = [field.name for field in fields(RowSubject) if field.type == "ComponentName"]
_FACTS = [field.name for field in fields(RowSubject) if field.type != "ComponentName"]
_PLAIN = ("forward_per_sample", "backward_per_sample", "wall_seconds", "minimum_norm")
ROUNDING = 1e-6


def summary_to_json(summary: RowSummary) -> str:
    """Text. NaN and infinity stand in it as Python's json writes them."""
    document = {
        "names": [_name(getattr(summary.subject, kind)) for kind in _NAMES],
        "facts": [getattr(summary.subject, fact) for fact in _FACTS],
        "metrics": _metrics(summary.metrics),
        "robust": None if summary.robust is None else _bits(summary.robust),
        "replicates": None if summary.replicates is None else _numbers(summary.replicates),
        "tried": summary.tried,
        "traits": dict(summary.traits),
        "attacks": _text([_attack(one, summary.cell_ids) for one in summary.attacks]),
        "lost": [[one.label, one.status, one.reason] for one in summary.lost],
        "verdict": summary.verdict,
        "findings": [[one.code, one.severity, one.message, one.value] for one in summary.findings],
        "cell_ids": summary.cell_ids,
        "seeds": summary.seeds,
        **{name: getattr(summary, name) for name in _PLAIN},
    }
    return _text(document)


def summary_from_json(text: str) -> RowSummary:
    """What `summary_to_json` was given, without its outcomes."""
    stored = json.loads(text)
    names: dict[str, Any] = {kind: ComponentName(*name) for kind, name in zip(_NAMES, stored["names"], strict=True)}
    facts: dict[str, Any] = dict(zip(_FACTS, stored["facts"], strict=True))
    return RowSummary(
        subject=RowSubject(**names, **facts),
        metrics=_read_metrics(stored["metrics"]),
        robust=None if stored["robust"] is None else _read_bits(*stored["robust"]),
        replicates=None if stored["replicates"] is None else _read_numbers(stored["replicates"]),
        outcomes=None,
        tried=tuple(AttackName(*one) for one in stored["tried"]),
        traits={name: _traits(traits) for name, traits in stored["traits"].items()},
        attacks=_Attacks(stored["attacks"], stored["cell_ids"]),
        lost=tuple(AbsentAttack(*one) for one in stored["lost"]),
        verdict=None if stored["verdict"] is None else Verdict(stored["verdict"]),
        findings=tuple(
            Finding(code, Severity(severity), text, value) for code, severity, text, value in stored["findings"]
        ),
        cell_ids=tuple(stored["cell_ids"]),
        seeds=tuple(stored["seeds"]),
        **{name: stored[name] for name in _PLAIN},
    )


def same_summary(one: str, other: str) -> bool:
    """Whether two texts of `summary_to_json` say the same, up to the rounding of numbers on different machines."""
    return _alike(_opened(one), _opened(other))


def _opened(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    replicates = document["replicates"]
    return {
        **document,
        "attacks": json.loads(document["attacks"]),
        "replicates": None if replicates is None else _read_numbers(replicates).tolist(),
    }


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def _name(component: ComponentName) -> list[str]:
    return [component.name, component.label, component.identity]


def _metrics(metrics: Mapping[str, Estimate]) -> list[list[Any]]:
    return [[name, one.value, one.low, one.high] for name, one in metrics.items()]


def _read_metrics(stored: list[list[Any]]) -> dict[str, Estimate]:
    return {name: Estimate(value, low, high) for name, value, low, high in stored}


class _Attacks(Sequence[AttackResult]):
    """Read when somebody looks, one by one: there are many times more attacks than rows, and a terminal names few."""

    def __init__(self, text: str, cell_ids: list[str]) -> None:
        self._text = text
        self._cell_ids = cell_ids

    @functools.cached_property
    def _stored(self) -> list[Any]:
        return json.loads(self._text)  # type: ignore[no-any-return]

    @overload
    def __getitem__(self, place: int) -> AttackResult: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[AttackResult]: ...

    def __getitem__(self, place: int | slice) -> AttackResult | Sequence[AttackResult]:
        if isinstance(place, slice):
            return tuple(_read_attack(one, self._cell_ids) for one in self._stored[place])
        return _read_attack(self._stored[place], self._cell_ids)

    def __len__(self) -> int:
        return len(self._stored)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _attack(one: AttackResult, cell_ids: Sequence[str]) -> list[Any]:
    """Its cells by their places among the row's: their ids are the largest part of the text."""
    numbers = [one.forward_per_sample, one.backward_per_sample, one.wall_seconds, one.seeds]
    places = [cell_ids.index(cell_id) for cell_id in one.cell_ids]
    return [one.label, _metrics(one.metrics), one.baseline, *numbers, places]


def _read_attack(stored: list[Any], cell_ids: list[str]) -> AttackResult:
    label, metrics, baseline, forward, backward, seconds, seeds, places = stored
    ids = tuple(cell_ids[place] for place in places)
    return AttackResult(label, _read_metrics(metrics), baseline, forward, backward, seconds, tuple(seeds), ids)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _traits(stored: list[Any] | None) -> AttackTraits | None:
    return None if stored is None else AttackTraits(stored[0], Access(stored[1]))


def _bits(robust: NDArray[np.bool_]) -> list[Any]:
    return [len(robust), base64.b64encode(np.packbits(robust).tobytes()).decode("ascii")]


def _read_bits(count: int, packed: str) -> NDArray[np.bool_]:
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    if count > 8 * len(bits):  # what is missing would be made up, in as much memory as is asked for
        raise ValueError(f"{count} samples in {len(bits)} bytes")
    return np.unpackbits(bits, count=count).astype(np.bool_)


def _numbers(values: NDArray[np.float64]) -> str:
    """In half the bytes: seven digits are many for what a resample gives."""
    return base64.b64encode(values.astype(np.float32).tobytes()).decode("ascii")


def _read_numbers(text: str) -> NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(text), np.float32).astype(np.float64)
