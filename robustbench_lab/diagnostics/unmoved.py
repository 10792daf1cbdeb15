"""Whether an attack tried anything at all: one that did not has shown nothing."""

from torch import Tensor

from robustbench_lab.records import Finding, Severity


def unmoved_finding(unmoved: Tensor, attacked: Tensor) -> list[Finding]:
    """A finding where samples were never queried anywhere but at their clean inputs; fatal where most were not.

    unmoved, attacked: bool `[N]`.
    """
    count = int((unmoved & attacked).sum())
    if count == 0:
        return []
    severity = Severity.FATAL if count * 2 > int(attacked.sum()) else Severity.SUSPECT
    text = "the attack tried nothing but the clean input: no gradient to follow, or nothing handed in"
    return [Finding("unmoved", severity, text, float(count))]
