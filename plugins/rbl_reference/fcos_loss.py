"""The training loss of FCOS for one feature level, image by image.

Source: Z. Tian, C. Shen, H. Chen, T. He, FCOS: Fully Convolutional One-Stage Object Detection, ICCV 2019
(https://arxiv.org/abs/1904.01355): each cell inside an object predicts its class and its distances to the object's
four edges. As in the authors' later version only cells near an object's centre do (centre sampling), and boxes are
trained by GIoU (Rezatofighi et al. 2019). Without the centerness branch: scores are those of the classes alone.
"""

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lab.tasks.boxes import area

CENTRE_RADIUS = 1.5
"""Cells whose centre lies within this many strides of an object's centre, along both axes, are its own."""
FOCAL_ALPHA, FOCAL_GAMMA = 0.5, 2.0
"""Lin et al. 2017 (https://arxiv.org/abs/1708.02002). FCOS has an alpha of .25: few scores then get above .5."""
BOX_WEIGHT = 2.0
"""Of the boxes' loss beside the classes', as in Generalized Focal Loss (Li et al. 2020). FCOS has 1."""


def fcos_loss(points: Tensor, stride: int, candidates: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Focal loss of the classes plus GIoU loss of the boxes, each over the number of the image's own cells, `[B]`.

    points `[A, 2]`: centres of the cells, x and y. candidates `[B, A, 4]`, logits `[B, A, K]`: what each cell predicts.
    boxes `[B, M, 4]`, labels `[B, M]`: the objects, -1 where there is none.
    """
    wanted, own_boxes = assigned(points, stride, boxes, labels)
    own = wanted >= 0
    count = own.sum(1).clamp_min(1)
    classes = functional.one_hot(wanted.clamp_min(0), logits.shape[2]).to(logits.dtype) * own[:, :, None]
    classification = focal_loss(logits, classes).sum((1, 2))
    localisation = ((1 - generalised_iou(candidates, own_boxes)) * own).sum(1)
    return (classification + BOX_WEIGHT * localisation) / count


def assigned(points: Tensor, stride: int, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The class `[B, A]` (-1: background) and box `[B, A, 4]` that each cell is to predict: its smallest object's."""
    # One empty place more, so that there may be no objects at all.
    boxes, labels = functional.pad(boxes, (0, 0, 0, 1)), functional.pad(labels, (0, 1), value=-1)
    x, y = points[None, :, None, 0], points[None, :, None, 1]
    left, top, right, bottom = (edge[:, None, :] for edge in boxes.unbind(2))
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    reach = CENTRE_RADIUS * stride
    central = ((x - (left + right) / 2).abs() <= reach) & ((y - (top + bottom) / 2).abs() <= reach)
    own = inside & central & (labels >= 0)[:, None, :]
    size, place = area(boxes)[:, None, :].masked_fill(~own, torch.inf).min(2)
    wanted = labels.gather(1, place).masked_fill(size.isinf(), -1)
    return wanted, boxes.gather(1, place[:, :, None].expand(-1, -1, 4))


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary focal loss of each logit towards 0 or 1 (Lin et al. 2017, eq. 5); all of one shape."""
    unsigned = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    wrong = (wanted - logits.sigmoid()).abs()
    weight = FOCAL_ALPHA * wanted + (1 - FOCAL_ALPHA) * (1 - wanted)
    return weight * wrong**FOCAL_GAMMA * unsigned


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU of boxes pair by pair, `[..., 4]` and `[..., 4]` to `[...]` in (-1, 1] (Rezatofighi et al. 2019)."""
    common = sides(torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:]))
    hull = sides(torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:]))
    union = area(first) + area(second) - common
    return common / union.clamp_min(1e-6) - (hull - union) / hull.clamp_min(1e-6)


def sides(low: Tensor, high: Tensor) -> Tensor:
    """Area between two corners `[..., 2]`; 0 where they are swapped."""
    width, height = (high - low).clamp_min(0).unbind(-1)
    return width * height
