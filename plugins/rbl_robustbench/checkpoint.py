"""Weights as the authors of RobustBench's entries have saved them, fitted to the zoo's architectures.

What is stripped and added here is what `robustbench.utils.load_model` strips and adds. Unlike there, a file may leave
out nothing but constants of the normalisation, and may hold nothing more than what is known to go unused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rbl_robustbench.zoo import ZooEntry
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.weights import load_state_dict, name_problem

if TYPE_CHECKING:
    from torch import Tensor, nn

LAST = re.compile(r"Kireev2021Effectiveness|Andriushchenko2020Understanding$")
"""Of models whose files hold the checkpoints `last` and `best`; the published figures are of the last."""
WITH_NORMALISATION = re.compile(
    r"Singh2023Revisiting_(ConvNeXt|ViT-B)|Peng2023Robust$|Chen2024Data_WRN_50_2$|Xu2024MIMIR_"
)
"""ImageNet models whose files have the architecture's own names, not those of the net behind a normalisation."""
OLD_SWIN = re.compile(r"(Liu2023Comprehensive|Mo2022When|RodriguezMunoz2024Characterizing)_Swin-")
"""Files with the tensor names that timm gave Swin before 0.9."""
FILTERS = {"debenedetti2022light_xcit": "timm.models.xcit", "tian2022deeper_deit": "timm.models.deit"}
"""Beginnings of timm names to where timm adapts their files."""
CONSTANTS = re.compile(r"(normalize\.)?(mean|std|mu|sigma)")
"""Buffers that a file may lack: the architecture has their values."""
LEARNT_CONSTANTS = "Modas2021PRIMEResNet18"
"""But here they are placeholders, and the file has the values."""
UNUSED = re.compile(r"(^|\.)(model_preact_hl1|normalizer?|attacker)\.|(^|\.)scores$")
"""What files hold beside the weights: a head and scores of training, other libraries' normalisation."""


def load_published(net: nn.Module, entry: ZooEntry, files: list[str], source: str) -> None:
    """Load the files, one for each of the entry's addresses, into the net. Raises UsageError."""
    wanted = len(entry.addresses)
    if len(files) != wanted:
        raise UsageError(f"{source}: its weights are {wanted} file(s), in RobustBench's order; {len(files)} are given")
    for part, (member, file) in enumerate(zip(_members(net, entry), files, strict=True)):
        tensors = load_state_dict(file, "last" if LAST.match(entry.name) else None)
        _load(member, _adapted(tensors, member, entry, part), entry, f"weights '{file}' do not fit {source}")


def _members(net: Any, entry: ZooEntry) -> list[nn.Module]:
    """The networks that have a file each."""
    if len(entry.addresses) == 1:
        return [net]
    return [net.std_model, net.rob_model] if entry.name.startswith("Bai2024") else list(net.models)


def _adapted(tensors: Mapping[str, Tensor], net: Any, entry: ZooEntry, part: int) -> Mapping[str, Tensor]:
    """The tensors under the names that the architecture has for them."""
    found = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if entry.timm_name is not None:
        return _as_timm_adapts(found, net, entry.timm_name)
    mixed = entry.name.startswith("Bai2024")
    if not mixed:
        found = {name.removeprefix("model."): tensor for name, tensor in found.items()}
    if entry.data != "imagenet" or (mixed and part == 0):
        return found
    if OLD_SWIN.match(entry.name) or mixed:
        found = _filtered(found, net.model, "timm.models.swin_transformer")
    if WITH_NORMALISATION.match(entry.name):
        return found
    return {f"model.{name}": tensor for name, tensor in found.items()}


def _as_timm_adapts(tensors: Mapping[str, Tensor], net: Any, name: str) -> Mapping[str, Tensor]:
    """As timm does, which fills a model before its normalisation is put in front."""
    behind = [one for one, _ in net.named_children()] == ["normalize", "model"]
    module = next((module for start, module in FILTERS.items() if name.startswith(start)), None)
    found = _filtered(tensors, net.model if behind else net, module) if module else tensors
    return {f"model.{one}": tensor for one, tensor in found.items()} if behind else found


def _filtered(tensors: Mapping[str, Tensor], net: nn.Module, module: str) -> dict[str, Tensor]:
    """By timm's own filter; where that cannot make sense of a file, what is wrong with it is said later."""
    try:
        return dict(import_module(module).checkpoint_filter_fn(dict(tensors), net))
    except (KeyError, ValueError, RuntimeError, AttributeError):
        return dict(tensors)


def _load(net: nn.Module, tensors: Mapping[str, Tensor], entry: ZooEntry, failed: str) -> None:
    target = net.state_dict()
    used = {name: tensor for name, tensor in tensors.items() if name in target or not UNUSED.search(name)}
    if entry.name != LEARNT_CONSTANTS:
        used = {name: target[name] for name in target if CONSTANTS.fullmatch(name)} | used
    if problem := name_problem(target, used):
        raise UsageError(f"{failed}: {problem}")
    try:
        net.load_state_dict(used, strict=False)
    except RuntimeError as error:  # a tensor that the module computes from others, of values that it refuses
        raise UsageError(f"{failed}: {describe_error(error)}") from error
