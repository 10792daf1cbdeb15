"""Bit-depth reduction: feature squeezing of Xu, Evans & Qi 2018 (https://arxiv.org/abs/1704.01155, section 4.1)."""

from typing import Annotated

from pydantic import Field
from torch import nn

from rbl_defenses.preprocessed import Preprocessed
from robustbench_lab.plugin_tools.bpda import straight_through


def bit_depth(model: nn.Module, *, bits: Annotated[int, Field(ge=1, le=8)] = 4) -> nn.Module:
    """Round inputs in [0, 1] to 2**bits levels; the backward pass takes the rounding as the identity."""
    levels = 2**bits - 1
    return Preprocessed(model, lambda x: straight_through(x, lambda raw: (raw * levels).round() / levels))
