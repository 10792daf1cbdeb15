"""The moves of the Square Attack in linf: every pixel stands at a corner of its box (Algorithm 2 of the paper)."""

from __future__ import annotations

from torch import Tensor

from rbl_attacks.score_based.image_windows import ImageShape, signs
from robustbench_lab.attack_problem import AttackProblem


class Corners:
    """Each change sets a window to `clean + eps` or `clean - eps`, one sign for each channel.

    Only the window is touched: the inputs are kept flat, and a change that does not pay is written back.
    """

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
        x = self._at_corner(clean, stripes)
        self.state = (x.flatten(1),)
        return x

    def change(self, share: float, numbers: Tensor) -> Tensor:
        """A window of each sample, moved by its signs."""
        (x,) = self.state
        place = self._image.positions(self._image.window(share), numbers[:, :2])
        sign = signs(numbers[:, 2:, None, None]).expand(place.shape).flatten(1)
        self._place = place.flatten(1)
        self._before = x.gather(1, self._place)
        self._after = self._at_corner(self._problem.clean.flatten(1).gather(1, self._place), sign)
        return x.scatter_(1, self._place, self._after).view_as(self._problem.clean)

    def settle(self, better: Tensor) -> None:
        """Write back what was there before the changes that are not better."""
        self.state[0].scatter_(1, self._place, self._after.where(better[:, None], self._before))

    def best(self) -> Tensor:
        """The inputs kept so far."""
        return self.state[0].view_as(self._problem.clean)

    def _at_corner(self, clean: Tensor, sign: Tensor) -> Tensor:
        bounds = self._problem.bounds
        return clean.add(sign, alpha=self._problem.eps).clamp_(bounds.low, bounds.high)
