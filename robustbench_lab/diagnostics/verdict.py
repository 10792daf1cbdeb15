"""Findings to a verdict: was the attack able to work?"""

from collections.abc import Sequence

from robustbench_lab.records import Finding, Severity, Verdict


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """`failed` if any finding is fatal, else `suspect` if any is suspect, else `reliable`."""
    severities = {finding.severity for finding in findings}
    if Severity.FATAL in severities:
        return Verdict.FAILED
    return Verdict.SUSPECT if Severity.SUSPECT in severities else Verdict.RELIABLE
