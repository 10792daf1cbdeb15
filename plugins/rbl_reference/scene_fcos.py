"""The bundled detectors: one small anchor-free network (FCOS, Tian et al. 2019) with two sets of weights."""

import math
from functools import partial
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference.digits import CLASSES
from rbl_reference.fcos_loss import fcos_loss
from robustbench_lab.tasks.detector_output import DetectorOutput

PIXEL_MEAN, PIXEL_STD = 0.5, 0.28
"""Of the training scenes, about."""
STRIDE = 4
"""Pixels between neighbouring cells."""
FIRST_SCORE = 0.01
"""Of every class before training (Lin et al. 2017, section 3.3)."""
LONGEST_LOG = 3.0
"""A box reaches at most e to this many strides from its cell to each side."""


class SceneFCOS(nn.Module):
    """Images `[B, 3, H, W]` in [0, 1], sides in multiples of 8, to a `DetectorOutput`; normalisation inside.

    Features at strides 4 and 8 are added up at stride 4, and every cell there is a candidate. There is no batch
    normalisation: the network is the same in training and in evaluation, and images do not see each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 16, 2), convolution(16, 32, 2))
        self.fine = convolution(32, 32)
        self.down = convolution(32, 64, 2)
        self.coarse = nn.ModuleList([convolution(64, 64), convolution(64, 64)])
        self.from_fine, self.from_coarse = nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 1)
        self.head = convolution(64, 64)
        self.classes, self.edges = nn.Conv2d(64, CLASSES, 1), nn.Conv2d(64, 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                start(layer, layer.weight[0].numel() ** -0.5 * math.sqrt(2))
        start(self.classes, 0.01, bias=math.log(FIRST_SCORE / (1 - FIRST_SCORE)))
        start(self.edges, 0.01)

    def forward(self, images: Tensor) -> DetectorOutput:
        fine = self.stem((images - PIXEL_MEAN) / PIXEL_STD)
        fine = fine + self.fine(fine)
        coarse = self.down(fine)
        for block in self.coarse:
            coarse = coarse + block(coarse)
        merged = self.from_fine(fine) + functional.interpolate(self.from_coarse(coarse), scale_factor=2.0)
        features = self.head(merged.relu())
        points = cell_centres(*features.shape[2:]).to(images)
        logits = self.classes(features).flatten(2).transpose(1, 2)
        reach = STRIDE * self.edges(features).flatten(2).transpose(1, 2).clamp_max(LONGEST_LOG).exp()
        candidates = torch.cat([points - reach[..., :2], points + reach[..., 2:]], dim=2)
        loss = partial(fcos_loss, points, STRIDE, candidates, logits)
        return DetectorOutput.from_candidates(candidates, logits, training_loss=loss, features=features.flatten(1))


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3, then ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1), nn.ReLU())


def start(layer: nn.Conv2d, std: float, bias: float = 0.0) -> None:
    """Normal weights and one bias for all, before training."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def cell_centres(rows: int, columns: int) -> Tensor:
    """X and y in pixels of all cells, row by row, `[rows * columns, 2]`."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return STRIDE * (torch.stack([x, y], dim=2).flatten(0, 1) + 0.5)


def scene_fcos() -> SceneFCOS:
    """Trained on clean scenes only."""
    return _with_weights("scene-fcos.safetensors")


def scene_fcos_at() -> SceneFCOS:
    """Trained on PGD adversarial examples of its whole training loss (Zhang & Wang 2019)."""
    return _with_weights("scene-fcos-at.safetensors")


def _with_weights(name: str) -> SceneFCOS:
    model = SceneFCOS()
    model.load_state_dict(load((files("rbl_reference") / "weights" / name).read_bytes()))
    return model.eval()
