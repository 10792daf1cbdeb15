"""A network whose batch normalisations are part of the convolutions before them: the same function in less time.

In eval mode a batch normalisation multiplies each channel by a constant and adds another, which the convolution can do
at no cost (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2; PyTorch: `fuse_conv_bn_weights`). Numbers
change by float32 rounding only. The search runs on such a copy; what it finds is judged on the network as it is.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from robustbench_lab.plugin_tools.quick_gradients import class_of
from robustbench_lab.plugin_tools.right_gradients import has_others_hooks

NORMS: dict[str, Callable[[Any], nn.Module]] = {
    "torch.nn.modules.batchnorm.BatchNorm2d": lambda _: nn.Identity(),
    "torchvision.ops.misc.FrozenBatchNorm2d": lambda _: nn.Identity(),
    "timm.layers.norm_act.BatchNormAct2d": lambda norm: nn.Sequential(norm.drop, norm.act),
}
"""What is left of a normalisation once its factors are in the convolution. By their names: the libraries need not be
there, and of a class that is derived nothing is known."""
TOLERANCE = 1e-4
"""Difference of the outputs, relative to their size, up to which a copy is the same network."""

Pair = tuple[nn.Conv2d, nn.Module]


def with_folded_norms(model: nn.Module, example: Tensor) -> nn.Module | None:
    """A copy in which normalisations are folded; None where there is none to fold, or where that changes the network.

    example: a few inputs `[N, C, H, W]`, on which it is found out which convolution a normalisation follows, and
    whether the copy's outputs are the network's.
    """
    names = {module: name for name, module in model.named_modules()}
    try:
        pairs, before = _observed(model, example)
        if not pairs:
            return None
        folded = copy.deepcopy(model)
        for conv, norm in ((folded.get_submodule(names[one]) for one in pair) for pair in pairs):
            _fold(conv, norm)
            _replace(folded, norm, NORMS[_name(norm)](norm))
        after = _outputs(folded, example)
    except Exception:  # of a user's module, which may not be copied, or looks at its own normalisations
        return None
    same = len(before) == len(after) and all(map(_agree, before, after))
    return folded if same else None


def _observed(model: nn.Module, example: Tensor) -> tuple[list[Pair], list[Tensor]]:
    """The convolutions whose output is always handed to the same normalisation, which gets no other; the outputs."""
    made: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    calls: Counter[nn.Module] = Counter()
    together: Counter[Pair] = Counter()

    def convolved(conv: Any, _: Any, output: Tensor) -> None:
        made[id(output)] = conv, output, output._version  # kept, so that no other tensor gets its id
        calls[conv] += 1

    def normalised(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[norm] += 1
        if found := made.get(id(inputs[0])):
            conv, output, version = found
            together[conv, norm] += output._version == version  # otherwise something was done in place in between

    with _watched(model, convolved, normalised):
        outputs = _outputs(model, example)
    return [pair for pair, count in together.items() if count == calls[pair[0]] == calls[pair[1]]], outputs


@contextmanager
def _watched(model: nn.Module, convolved: Callable[..., None], normalised: Callable[..., None]) -> Iterator[None]:
    hooks = []
    for module in model.modules():
        if has_others_hooks(module):
            continue
        if class_of(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(convolved))
        elif _name(module) in NORMS and not module.training and getattr(module, "running_mean", None) is not None:
            hooks.append(module.register_forward_pre_hook(normalised))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fold(conv: Any, norm: Any) -> None:
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = (nn.Parameter(one.detach(), requires_grad=False) for one in (weight, bias))


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Wherever it stands: a module can have several parents."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new.eval()


def _outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    """Logits, and of a detector its candidates as well."""
    with torch.no_grad():
        prediction = model(example)
    if isinstance(prediction, Tensor):
        return [prediction]
    return [prediction.logits, prediction.candidates]


def _agree(before: Tensor, after: Tensor) -> bool:
    """NaN agrees with nothing."""
    return before.shape == after.shape and bool((after - before).norm() <= TOLERANCE * before.norm())


def _name(module: nn.Module) -> str:
    kind = class_of(module)
    return f"{kind.__module__}.{kind.__qualname__}"
