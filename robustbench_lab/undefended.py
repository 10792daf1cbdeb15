"""The defense `none`: the model as it is."""

from torch import nn


def undefended(model: nn.Module) -> nn.Module:
    """The model itself."""
    return model
