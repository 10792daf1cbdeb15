"""The two forms in which detectors leave their training library, as detectors of the lab."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rbl_onnx.inference import Inference
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers
from robustbench_lab.plugin_tools.local_files import listed
from robustbench_lab.tasks.detector_output import DetectorOutput

ABSENT = -50.0
"""Log-odds of a class that a detection does not name."""
SURE = 1 - 1e-6
"""The highest probability whose log-odds are taken."""
TINY = 1e-30


class Resized(nn.Module):
    """Images brought to the network's size (bilinear), and boxes back."""

    def __init__(self, net: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.net = net
        self.size = size

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]` in [0, 1]."""
        height, width = images.shape[-2:]
        inner: DetectorOutput = self.net(interpolate(images, self.size, mode="bilinear", align_corners=False))
        if inner.candidates is None or self.size == (height, width):
            return inner
        ratio = inner.candidates.new_tensor([width / self.size[1], height / self.size[0]] * 2)

        def detections() -> dict[str, Tensor]:
            return {**inner.detections, "boxes": inner.detections["boxes"] * ratio}

        return DetectorOutput(detections, inner.candidates * ratio, inner.logits, suppression=inner.suppression)


class Reporter(nn.Module):
    """A black box that reports boxes, labels and scores: its candidates are what it reports, without gradient."""

    def __init__(self, inference: Inference, classes: ClassNumbers, score_threshold: float) -> None:
        super().__init__()
        self.inference = inference
        self.classes = classes
        self.score_threshold = score_threshold

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]`, as the network takes them; they go through one by one."""
        found = self.classes.detections([self._found(images[index : index + 1]) for index in range(len(images))])
        odds = torch.where(found["labels"] >= 0, log_odds_of(found["scores"]), ABSENT)
        logits = torch.full((*odds.shape, len(self.classes.numbers)), ABSENT, device=images.device)
        logits.scatter_(2, found["labels"].clamp_min(0)[..., None], odds[..., None])
        return DetectorOutput(lambda: found, found["boxes"], logits)

    def _found(self, image: Tensor) -> dict[str, Tensor]:
        boxes, labels, scores = in_roles(self.inference(image), self.inference.source)
        outputs = len(self.classes.labels)
        if labels.numel() and int(labels.max()) >= outputs:
            raise UsageError(
                f"{self.inference.source}: reports label {int(labels.max())}; classes={outputs} is too few"
            )
        kept = scores > self.score_threshold
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def in_roles(outputs: list[Tensor], source: str) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes `[D, 4]`, labels `[D]` and scores `[D]` of one image, in any order, with or without an axis for it."""
    labels = [one for one in outputs if not one.is_floating_point()]
    rest = [one for one in outputs if one.is_floating_point()]
    if labels and labels[0].ndim == 2:
        rest = [one[0] for one in rest]
    boxes = [one for one in rest if one.ndim == 2 and one.shape[1] == 4]
    scores = [one for one in rest if one.ndim == 1]
    if not len(labels) == len(boxes) == len(scores) == 1:
        shapes = listed((f"{list(one.shape)} {one.dtype}" for one in outputs), 6)
        raise UsageError(
            f"{source}: its outputs are {shapes}; boxes [D, 4], whole labels [D] and scores [D] are needed"
        )
    return boxes[0], labels[0].flatten().long(), scores[0]


class Yolo(nn.Module):
    """A network with one output: for each of A cells a box and the probability of each class."""

    def __init__(
        self, grid: Callable[[Tensor], Tensor], classes: ClassNumbers, score_threshold: float, nms_threshold: float
    ) -> None:
        super().__init__()
        self.grid = grid
        self.classes = classes
        self.thresholds = score_threshold, nms_threshold

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images `[B, 3, H, W]`, as the network takes them."""
        cells = self.grid(images)
        centre, half = cells[..., :2], cells[..., 2:4] / 2
        boxes = torch.cat([centre - half, centre + half], dim=-1)
        logits = self.classes.chosen(log_odds_of(cells[..., 4:]))
        least, most = self.thresholds
        return DetectorOutput.from_candidates(boxes, logits, least_score=least, most_overlap=most)


def by_cell(output: Tensor) -> Tensor:
    """`[B, 4 + outputs, A]`, or its transpose, to `[B, A, 4 + outputs]`: there are more cells than classes."""
    return output.transpose(1, 2) if output.ndim == 3 and output.shape[1] < output.shape[2] else output


def log_odds_of(probability: Tensor) -> Tensor:
    """`log p - log(1 - p)`, with a gradient also where p is very small."""
    return probability.clamp_min(TINY).log() - torch.log1p(-probability.clamp_max(SURE))
