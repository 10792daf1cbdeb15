"""The network of `sac`: a small U-Net (Ronneberger et al. 2015) that tells which pixels are an adversarial patch's."""

from importlib.resources import files

from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

PIXEL_MEAN, PIXEL_STD = 0.5, 0.28
"""Of the scenes that it is trained on, about."""
MULTIPLE = 8
"""Pixels of the coarsest features' cells; other sides are filled up."""


class PatchSegmenter(nn.Module):
    """Images `[B, 3, H, W]` in [0, 1] to the log-odds that each pixel is a patch's, `[B, 1, H, W]`.

    Features at strides 2, 4 and 8; on the way up each is added to the one below it. There is no batch normalisation:
    the network is the same in training and in evaluation, and images do not see each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = convolution(3, 16, 2)
        self.down = nn.ModuleList([halved(16, 32), halved(32, 48)])
        self.across = nn.ModuleList([nn.Conv2d(48, 32, 1), nn.Conv2d(32, 16, 1)])
        self.up = nn.ModuleList([convolution(32, 32), convolution(16, 16)])
        self.patch = nn.Conv2d(16, 1, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        whole = functional.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        levels = [self.first((whole - PIXEL_MEAN) / PIXEL_STD)]
        for down in self.down:
            levels.append(down(levels[-1]))
        features = levels.pop()
        for across, up in zip(self.across, self.up, strict=True):
            features = up(levels.pop() + functional.interpolate(across(features), scale_factor=2.0))
        odds = functional.interpolate(self.patch(features), scale_factor=2.0, mode="bilinear")
        return odds[:, :, :height, :width]


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3, then ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1), nn.ReLU())


def halved(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, the first with stride 2."""
    return nn.Sequential(convolution(inputs, outputs, 2), convolution(outputs, outputs))


def patch_segmenter() -> PatchSegmenter:
    """With the weights of train_patch_segmenter.py."""
    model = PatchSegmenter()
    model.load_state_dict(load((files("rbl_defenses") / "weights" / "patch-segmenter.safetensors").read_bytes()))
    return model.eval()
