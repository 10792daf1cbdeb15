"""What every threat model must keep to. Shipped for authors of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robustbench_lab.contracts import Bounds, Region, ThreatModel, lacking
from robustbench_lab.errors import RblError, UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.testing.known_models import half_space_setting

BUDGETS = (0.1, 1.0, 3.0)
"""Tried until one makes sense to the threat model: a distance, a count or severity."""
ROUNDING = 1e-4


def check_threat_model(made: Callable[[float], ThreatModel]) -> list[str]:
    """What is wrong with a threat model on small images in the bounds 0..1, a line each. made: from a budget."""
    threat_model = _with_a_budget(made)
    if threat_model is None:
        return [f"check refuses every budget that was tried for the bounds 0..1: {', '.join(map(str, BUDGETS))}"]
    if lacks := lacking(threat_model, ThreatModel):
        return [lacks]
    setting = half_space_setting(threat_model, samples=12)
    clean = setting.clean.clamp(0.02, 0.98)
    clean[:4] = clean[:4].round()  # at the ends of the range, where a ball sticks out of it
    before = clean.clone()
    region = threat_model.around(clean, setting.bounds, setting.targets)
    if lacks := lacking(region, Region):
        return [f"its region: {lacks}"]
    wrong = list(_wrong_measures(region, clean)) or list(_wrong_points(region, setting.rng, clean))
    if not torch.equal(clean, before):
        wrong.append("it overwrites the clean inputs: work on a copy")
    return wrong


def _with_a_budget(made: Callable[[float], ThreatModel]) -> ThreatModel | None:
    for eps in BUDGETS:
        threat_model = made(eps)
        try:
            if hasattr(threat_model, "check"):
                threat_model.check(Bounds())
        except UsageError:
            continue
        return threat_model
    return None


def _wrong_measures(region: Region, clean: Tensor) -> Iterator[str]:
    """Of `distance` and `contains`, on the clean inputs and on one that is far away."""
    far = clean.clone()
    far[1] += 1000
    distance, allowed = region.distance(far), region.contains(far)
    if not isinstance(distance, Tensor) or distance.shape != (len(clean),):
        yield f"distance must return one number for each input, [{len(clean)}], not {_form(distance)}"
    elif bool((region.distance(clean) > ROUNDING).any()):
        yield "distance of the clean inputs must be 0"
    if not isinstance(allowed, Tensor) or allowed.shape != (len(clean),) or allowed.dtype is not torch.bool:
        yield f"contains must return a bool for each input, [{len(clean)}], not {_form(allowed)}"
    elif bool(allowed[1]):
        yield "contains allows an input that is 1000 away from its clean one"
    elif not bool(region.contains(clean).all()):
        yield "contains does not allow the clean inputs"


def _wrong_points(region: Region, rng: SampleRng, clean: Tensor) -> Iterator[str]:
    """Of the points that the region makes, and of the region around some of the samples."""
    wild = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    points = {
        "project": _offered(lambda: region.project(wild.clone())),
        "random_start": _offered(lambda: region.random_start(rng, "check")),
    }
    for name, x in points.items():
        if x is None:
            continue
        if not isinstance(x, Tensor) or x.shape != clean.shape or x.dtype is not clean.dtype:
            yield f"{name} must return float32 inputs {list(clean.shape)}, not {_form(x)}"
        elif not bool(((x >= -ROUNDING) & (x <= 1 + ROUNDING)).all()):
            yield f"{name} leaves the bounds 0..1 of the data, or is NaN"
        elif not bool(region.contains(x).all()):
            yield f"{name} returns inputs that contains does not allow"
    gradient = torch.cat([wild[:6], torch.zeros_like(wild[6:])])
    step = _offered(lambda: region.steepest(gradient, clean))
    if step is not None and not _fits(step, clean):
        yield f"steepest must return finite numbers {list(clean.shape)}, also where the gradient is 0"
    few = torch.tensor([7, 2])
    if not torch.allclose(region.select(few).distance(wild[few]), region.distance(wild)[few]):
        yield "select(index) must give the region around those samples: distances from it are others"


def _offered(call: Callable[[], Tensor]) -> Tensor | None:
    """None where the region says that it has no such thing, and what to use instead."""
    try:
        return call()
    except RblError:
        return None


def _fits(step: object, clean: Tensor) -> bool:
    return isinstance(step, Tensor) and step.shape == clean.shape and bool(step.isfinite().all())


def _form(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
