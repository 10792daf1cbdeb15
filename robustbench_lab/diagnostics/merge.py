"""The findings of a cell's work units to those of the cell, whatever way it was cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from robustbench_lab.records import Finding, Severity, Share

ORDER = (Severity.INFO, Severity.SUSPECT, Severity.FATAL)


def merge_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding a code: counts and shares are added, and the severest stands where no share decides."""
    merged: dict[str, Finding] = {}
    for finding in findings:
        known = merged.get(finding.code)
        merged[finding.code] = finding if known is None else _both(known, finding)
    return tuple(judged for finding in merged.values() if (judged := _judged(finding)))


def _both(one: Finding, other: Finding) -> Finding:
    severest = max(one, other, key=lambda finding: ORDER.index(finding.severity))
    counted = one.value is not None and other.value is not None
    value = (one.value or 0) + (other.value or 0) if counted else severest.value
    return replace(severest, value=value, share=_added(one.share, other.share))


def _added(one: Share | None, other: Share | None) -> Share | None:
    if one is None or other is None:
        return one or other
    return replace(one, total=one.total + other.total, samples=one.samples + other.samples)


def _judged(finding: Finding) -> Finding | None:
    """With the severity that its share gives it; None where the evidence of all samples together is none."""
    if finding.share is None:
        return finding
    severity = finding.share.severity
    return replace(finding, severity=severity, share=None) if severity and finding.value else None
