"""Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980), for the inputs of samples that may drop out."""

import math

import torch
from torch import Tensor

_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8


class Adam:
    """The moments of the gradients seen so far, `[A, ...]`; a sample's step depends on its own gradients only."""

    def __init__(self, like: Tensor) -> None:
        self._mean = torch.zeros_like(like)
        self._square = torch.zeros_like(like)
        self._count = 0

    def step(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the gradients and the root of the mean of their squares, both without bias, `[A, ...]`.

        The step of Adam is minus the learning rate times the first over the second, which is above 0.
        """
        self._count += 1
        self._mean.lerp_(gradient, 1 - _BETA_1)
        self._square.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
        size = self._square.sqrt().div_(math.sqrt(1 - _BETA_2**self._count)).add_(_TINY)
        return self._mean / (1 - _BETA_1**self._count), size

    def keep(self, index: Tensor) -> None:
        """Go on with some of the samples only: int64 `[B]`."""
        self._mean, self._square = self._mean[index], self._square[index]
