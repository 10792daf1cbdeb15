"""Boxes and square windows of images as pixels.

Boxes are `[N, M, 4]` xyxy in pixels. Windows are `[N, M, 3]` int64: top, left and side in pixels; side 0: no window.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inside_boxes(boxes: Tensor, chosen: Tensor, height: int, width: int) -> Tensor:
    """The pixels whose centre lies in any of an image's chosen (bool `[N, M]`) boxes, bool `[N, 1, height, width]`."""
    down, across = (torch.arange(length, device=boxes.device) + 0.5 for length in (height, width))
    found = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    # One by one: all at once take M times the memory.
    for box, counts in zip(boxes.unbind(1), chosen.unbind(1), strict=True):
        left, top, right, bottom = (edge[:, None] for edge in box.unbind(1))
        rows = (down >= top) & (down < bottom) & counts[:, None]
        columns = (across >= left) & (across < right)
        found |= rows[:, :, None] & columns[:, None, :]
    return found[:, None]


def inside_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """The pixels within any of an image's windows, bool `[N, 1, height, width]`."""
    top, left, side = windows.unbind(2)
    return inside_boxes(torch.stack([left, top, left + side, top + side], dim=2), side > 0, height, width)


def windows_on(boxes: Tensor, chosen: Tensor, share: float, across: float, down: float) -> Tensor:
    """A window on each chosen box, of `share` of its area, rounded down to a whole number of pixels; `[N, M, 3]`.

    across, down: where the window's centre lies between the box's left and right edge, and its top and bottom; 0 to 1.
    """
    left, top, right, bottom = boxes.double().unbind(2)
    area = (right - left).clamp_min(0) * (bottom - top).clamp_min(0)
    # A share such as 1/25 of 25 pixels must not lose its pixel to rounding.
    side = (share * area * (1 + 1e-6)).sqrt().floor() * chosen
    # Halves are rounded down: to the nearest even number, windows a pixel apart would be none or two apart.
    first_row = (top + down * (bottom - top) - side / 2 - 0.5).ceil()
    first_column = (left + across * (right - left) - side / 2 - 0.5).ceil()
    return torch.stack([first_row, first_column, side], dim=2).long()
