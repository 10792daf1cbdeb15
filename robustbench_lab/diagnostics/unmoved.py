"""Whether an attack tried anything at all: one that did not has shown nothing."""

from torch import Tensor

from robustbench_lab.records import Finding, Severity, Share


def unmoved_finding(unmoved: Tensor, attacked: Tensor) -> list[Finding]:
    """A finding on samples that were never queried anywhere but at their clean inputs; fatal where most were not.

    unmoved, attacked: bool `[N]`.
    """
    count, all_of_them = int((unmoved & attacked).sum()), int(attacked.sum())
    if all_of_them == 0:
        return []
    share = Share(count, all_of_them, 0.5, above=Severity.FATAL, below=Severity.SUSPECT)
    text = "the attack tried nothing but the clean input: no gradient to follow, or nothing handed in"
    return [Finding("unmoved", Severity.INFO, text, float(count), share)]
