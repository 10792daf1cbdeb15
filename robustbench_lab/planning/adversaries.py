"""Which model an adversary attacks: the one that is judged, with its defense or without, or another one.

This module imports no torch.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

from robustbench_lab.catalog.component_syntax import Component, parse_component
from robustbench_lab.contracts import Objective
from robustbench_lab.errors import SkipCell, UsageError

ADAPTIVE = "adaptive"
"""Through the defense."""
OBLIVIOUS = "oblivious"
"""On the model without its defense."""
TRANSFER = "transfer"
"""On another model: `transfer(model='...')`, where the model is named as for `--model`."""


def canonical(text: str) -> str:
    """The name of an adversary as cells have it. Raises UsageError, which says what there is."""
    if text in (ADAPTIVE, OBLIVIOUS):
        return text
    named = parse_component(text)
    if named.name != TRANSFER or named.params.keys() != {"model"} or not isinstance(named.params["model"], str):
        raise UsageError(f"must be '{ADAPTIVE}', '{OBLIVIOUS}' or {TRANSFER}(model='...'), not {text!r}")
    return Component(TRANSFER, {"model": parse_component(named.params["model"]).label}).label


def source_of(adversary: str) -> Component | None:
    """The model that adversarial inputs are made on, where it is another one than is judged."""
    if adversary in (ADAPTIVE, OBLIVIOUS):
        return None
    model: str = parse_component(adversary).params["model"]
    return parse_component(model)


def unstopped(objective: Objective) -> Objective:
    """The objective pursued to the end: what has just broken one model will hardly break another.

    So the steps are run out, and the most damaging input is kept, as transfer attacks do (Dong et al. 2018). Raises
    SkipCell where the objective has no `stop_on_success` to turn off.
    """
    if not objective.stop_on_success:
        return objective
    if is_dataclass(objective) and any(one.name == "stop_on_success" and one.init for one in fields(objective)):
        running: Objective = replace(objective, stop_on_success=False)
        return running
    raise SkipCell(
        "the objective stops at the first success, and what breaks one model hardly breaks another: give it "
        "a parameter stop_on_success"
    )
