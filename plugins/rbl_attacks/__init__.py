"""The attacks of robustbench-lab: one algorithm a file, in one folder for each kind of attack."""

from rbl_attacks import ensembles, fixed_budget, minimum_norm, natural, score_based, transfer, universal
from robustbench_lab import hookimpl
from robustbench_lab.contracts import AttackSpec


@hookimpl
def rbl_attacks() -> list[AttackSpec]:
    """First-party attacks."""
    families = (fixed_budget, ensembles, minimum_norm, transfer, score_based, natural, universal)
    return [spec for family in families for spec in family.SPECS]
