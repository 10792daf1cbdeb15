"""Samples that a threat model lets nobody change: an image without a person has no patch on one."""

from torch import Tensor

from robustbench_lab.records import Finding, Severity, Share

ALL_BUT_NONE = 1 - 1e-9
"""The share above which it is all of the samples."""


def out_of_reach_finding(worth: Tensor, attacked: Tensor) -> Finding:
    """How many samples were not attacked for this reason; fatal where it is all of them.

    worth: the samples that an attack would be tried on, attacked: those that it was tried on; bool `[N]`.
    """
    count = int((worth & ~attacked).sum())
    share = Share(count, int(worth.sum()), ALL_BUT_NONE, above=Severity.FATAL, below=Severity.INFO)
    text = "the threat model lets nothing change here: no object of its classes, or a mask that leaves no pixel"
    return Finding("out-of-reach", Severity.INFO, text, float(count), share)
