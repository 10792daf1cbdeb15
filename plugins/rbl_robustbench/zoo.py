"""RobustBench's model zoo: which architecture belongs to which name, and where its authors keep the weights."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import distributions
from importlib.util import find_spec, module_from_spec
from typing import Any, Literal

import timm
from torch import nn

from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.local_files import listed

Data = Literal["cifar10", "cifar100", "imagenet"]
Threat = Literal["Linf", "L2", "corruptions"]
CLASSES: Mapping[str, int] = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
DRIVE = "https://drive.google.com/uc?id="
ELSEWHERE: Mapping[str, str] = {
    "Standard_R50": "it is torchvision's own: torchvision:resnet50(pretrained=True)",
    "Bai2023Improving_edm": "it can be assembled by RobustBench's own loader only",
    "Bai2023Improving_trades": "it can be assembled by RobustBench's own loader only",
}
"""Entries that are not offered, and why."""


@dataclass(frozen=True)
class ZooEntry:
    """One model of the zoo."""

    name: str
    data: str
    build: Callable[[], nn.Module]
    """Makes it with random weights."""
    addresses: tuple[str, ...]
    """Where its weights can be downloaded: of an ensemble a file for each member."""
    timm_name: str | None
    """Of those that RobustBench leaves to timm, which strips its checkpoints in its own way."""


def zoo_entry(name: str, data: Data, threat: Threat, source: str) -> ZooEntry:
    """The entry of that name. Raises UsageError where there is none, or it cannot be had."""
    known: Mapping[str, Any] = _zoo()[data].get(threat, {})
    if name not in known:
        raise UsageError(f"{source}: {_unknown(name, data, threat, known)}")
    if name in ELSEWHERE:
        raise UsageError(f"{source} is not offered: {ELSEWHERE[name]}")
    timm_name = f"{name.lower().replace('-', '_')}_{data}_{threat.lower()}"
    if timm.is_model(timm_name):
        build = partial(timm.create_model, timm_name, num_classes=CLASSES[data], pretrained=False)
        trained: Any = timm.get_pretrained_cfg(timm_name)
        return ZooEntry(name, data, build, (str(trained.url),), timm_name)
    ids = known[name]["gdrive_id"]
    addresses = tuple(DRIVE + one for one in (ids if isinstance(ids, list) else [ids]))
    return ZooEntry(name, data, known[name]["model"], addresses, None)


def _unknown(name: str, data: str, threat: str, known: Mapping[str, Any]) -> str:
    held = [
        f"dataset='{one}', threat_model='{kind}'"
        for one, kinds in _zoo().items()
        for kind, names in kinds.items()
        if name in names
    ]
    if held:
        return f"not for dataset='{data}' and threat_model='{threat}', but for {listed(held, 5)}"
    return f"RobustBench has no such model for {data} and {threat}.{did_you_mean(name, known)}"


@cache
def _zoo() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Dataset to threat model to name to RobustBench's own dict.

    The package's `__init__` is left out: it imports the downloader, and a module `autoattack` that PyPI does not have.
    """
    found = find_spec("robustbench")
    if found is None or not [*distributions(name="robustbench")]:
        # torchattacks brings an old copy of the package, without its tables and newer models.
        raise UsageError("RobustBench itself is not installed: pip install --no-deps robustbench")
    bare = "robustbench" not in sys.modules
    if bare:
        sys.modules["robustbench"] = module_from_spec(found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of timm, about where the package imports from
            from robustbench.model_zoo.models import model_dicts
    finally:
        if bare:
            del sys.modules["robustbench"]
    return {data.value: {threat.value: names for threat, names in kinds.items()} for data, kinds in model_dicts.items()}
