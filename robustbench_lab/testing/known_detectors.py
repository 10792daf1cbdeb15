"""A detector on which the best attack is known in closed form."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.detection import Detection
from robustbench_lab.tasks.detector_output import DetectorOutput

CELL = 4
"""Pixels along a cell's side."""
CELLS = 2
"""Along the image's side."""
CLASSES = 2
SHAPE = (1, CELL * CELLS, CELL * CELLS)


class GridDetector(nn.Module):
    """Each cell of a grid is a box, whose log-odds of each class are linear in the cell's own pixels.

    In a linf ball of radius eps the lowest log-odds of a cell and class are those of the clean image minus eps times
    the l1 norm of the class's weights, wherever the bounds are not in the way.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(CLASSES, CELL * CELL, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.boxes = nn.Buffer(cell_boxes())

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 1, 8, 8]` to 4 candidates with 2 classes each."""
        pixels = F.unfold(images - 0.5, CELL, stride=CELL).transpose(1, 2)  # [B, cells, pixels]
        logits = pixels @ self.weight.T
        boxes = self.boxes.expand(len(images), -1, -1)
        loss = partial(_cross_entropy, boxes, logits)
        return DetectorOutput.from_candidates(boxes, logits, training_loss=loss, features=pixels.flatten(1))


def cell_boxes() -> Tensor:
    """The cells, row by row, `[4, 4]`."""
    y, x = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
    corner = CELL * torch.stack([x, y], dim=2).flatten(0, 1).float()
    return torch.cat([corner, corner + CELL], dim=1)


def grid_setting(
    threat_model: ThreatModel, objective: Objective, *, samples: int = 6, batch_size: int = 4, seed: int = 0
) -> ProblemSetting:
    """A problem on a `GridDetector`: two objects an image, at cells 0 and 3, which it finds in every clean image."""
    model = GridDetector(seed).eval()
    labels = torch.arange(2 * samples).reshape(samples, 2) % CLASSES
    clean = _images(model, labels, torch.Generator().manual_seed(seed + 1))
    task = Detection()
    targets = {
        "boxes": model.boxes[[0, 3]].expand(samples, -1, -1).clone(),
        "labels": labels,
        "crowd": torch.zeros_like(labels, dtype=torch.bool),
    }
    prediction = model(clean)
    goal = objective.prepare(prediction, targets)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=goal,
        open=torch.ones(samples, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "check", [str(index) for index in range(samples)], clean.device),
        batch_size=batch_size,
        task=task,
        targets=targets,
        right=task.intact(prediction, targets),
        clean_measure={**task.measure(prediction, targets), "damage": objective.damage(prediction, goal)},
    )


def _images(model: GridDetector, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Grey images; at cells 0 and 3 the weights of their object's class, at the others those of none."""
    strength = torch.tensor([1.0, 0.0, 0.0, 1.0])
    wanted = torch.stack([labels[:, 0], labels[:, 0], labels[:, 0], labels[:, 1]], dim=1)
    direction = model.weight[wanted] - model.weight[1 - wanted]
    absent = -model.weight.sum(0).expand_as(direction)
    pixels = torch.where(strength[None, :, None] > 0, direction, absent)
    pixels = 0.06 * pixels + 0.01 * torch.randn(pixels.shape, generator=generator)
    return 0.5 + F.fold(pixels.transpose(1, 2).clamp(-0.3, 0.3), SHAPE[1:], CELL, stride=CELL)


def _cross_entropy(candidates: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every cell and class, `[B]`; a cell holds the object whose box it is."""
    same = (candidates[:, :, None] == boxes[:, None]).all(3) & (labels >= 0)[:, None]
    wanted = (same[..., None] & (labels[:, None, :, None] == torch.arange(CLASSES))).any(2)
    losses = F.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="none")
    return losses.flatten(1).sum(1)
