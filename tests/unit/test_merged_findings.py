"""Findings of work units to those of their cell."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lab.diagnostics.merge import merge_findings
from robustbench_lab.records import Finding, Severity, Share, finding_json, finding_of

INFO, SUSPECT, FATAL = Severity.INFO, Severity.SUSPECT, Severity.FATAL


def counted(total: float, samples: int) -> Finding:
    return Finding("rises", INFO, "it rises", total, Share(total, samples, 0.1, above=SUSPECT, below=INFO))


def test_counts_are_added_and_the_severest_stands() -> None:
    merged = merge_findings([Finding("a", INFO, "x", 1.0), Finding("b", INFO, "y"), Finding("a", FATAL, "z", 2.0)])
    assert merged == (Finding("a", FATAL, "z", 3.0), Finding("b", INFO, "y"))


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
def test_a_share_judges_all_samples_together_however_they_are_cut(broken: list[bool], data: st.DataObject) -> None:
    edges = sorted({0, len(broken), *data.draw(st.lists(st.integers(0, len(broken)), max_size=5))})
    parts = [broken[start:stop] for start, stop in pairwise(edges)]
    whole = merge_findings([counted(sum(broken), len(broken))])
    assert merge_findings(counted(sum(part), len(part)) for part in parts) == whole
    if sum(broken) == 0:
        assert whole == ()
    else:
        assert whole[0].severity is (SUSPECT if sum(broken) > 0.1 * len(broken) else INFO)


@pytest.mark.parametrize(("total", "severity"), [(1, INFO), (2, SUSPECT)])
def test_few_samples_need_more_than_a_share(total: int, severity: Severity) -> None:
    share = Share(total, 5, 1 / 500, above=SUSPECT, below=INFO, more_than=1)
    assert merge_findings([Finding("x", INFO, "x", float(total), share)])[0].severity is severity


def test_evidence_below_its_limit_may_be_no_finding_at_all() -> None:
    assert merge_findings([Finding("x", INFO, "x", 1.0, Share(1, 1000, 0.002, above=SUSPECT, below=None))]) == ()


@pytest.mark.parametrize("below", [INFO, None])
def test_a_finding_survives_json(below: Severity | None) -> None:
    finding = Finding("x", INFO, "x", 1.0, Share(1, 5, 0.1, above=FATAL, below=below, more_than=1))
    for one in (finding, Finding("y", SUSPECT, "y")):
        assert finding_of(json.loads(json.dumps(finding_json(one)))) == one
    assert "share" not in finding_json(Finding("y", SUSPECT, "y"))
