"""The moves of the Square Attack in linf: every pixel stands at a corner of its box (Algorithm 2 of the paper)."""

from __future__ import annotations

from torch import Tensor

from rbl_attacks.score_based.image_windows import ImageShape, signs
from robustbench_lab.attack_problem import AttackProblem


class Corners:
    """Each change sets a window to `clean + eps` or `clean - eps`, one sign for each channel.

    Only the window is touched: the inputs are kept flat, and a change that does not pay is written back.
    """

    least_gain = 0.0

    def __init__(self, problem: AttackProblem, image: ImageShape) -> None:
        self._problem, self._image = problem, image
        self.state: tuple[Tensor, ...] = ()

    def numbers(self) -> int:
        """Two for the place, and a sign for each channel."""
        return 2 + self._image.channels

    def start(self, draw: str) -> Tensor:
        """Vertical stripes: one sign for each column of each channel."""
        image, clean = self._image, self._problem.clean
        sign = signs(self._problem.uniform(draw, (image.channels, 1, image.width)))
        stripes = sign.expand(-1, -1, image.height, -1).reshape(clean.shape)
        x = clean.add(stripes, alpha=self._problem.eps)
        x.clamp_(self._problem.bounds.low, self._problem.bounds.high)
        self.state = (x.flatten(1),)
        return x

    def plan(self, share: float, numbers: Tensor) -> tuple[Tensor, ...]:
        """Corners of windows, `[A, Q]`, and by how much each channel is moved there, `[A, Q, C]`."""
        window = self._image.window(share)
        self._offsets = self._image.offsets(window, numbers.device)
        return self._image.corners(window, numbers[:, :, :2]), signs(numbers[:, :, 2:]).mul_(self._problem.eps)

    def change(self, *planned: Tensor) -> Tensor:
        """A window of each sample, moved by its signs."""
        (x,), (corner, moved) = self.state, planned
        bounds = self._problem.bounds
        self._place = self._offsets + corner[:, None]
        self._before = x.gather(1, self._place)
        after = self._problem.clean.flatten(1).gather(1, self._place)
        after.view(*moved.shape, -1).add_(moved[:, :, None]).clamp_(bounds.low, bounds.high)
        self._after = after
        return x.scatter_(1, self._place, after).view_as(self._problem.clean)

    def settle(self, better: Tensor) -> None:
        """Write back what was there before the changes that are not better."""
        self.state[0].scatter_(1, self._place, self._after.where(better[:, None], self._before))

    def best(self) -> Tensor:
        """The inputs kept so far."""
        return self.state[0].view_as(self._problem.clean)
