"""The bundled segmentation networks: one small U-Net (Ronneberger et al. 2015) with two sets of weights."""

from importlib.resources import files

from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference.scene_fcos import PIXEL_MEAN, PIXEL_STD, convolution
from rbl_reference.scene_masks import CLASSES


class SceneUNet(nn.Module):
    """Images `[B, 3, H, W]` in [0, 1], sides in multiples of 8, to logits `[B, 11, H, W]`; normalisation inside.

    Features at strides 1, 2, 4 and 8; on the way up each is added to the one below it, made larger. There is no batch
    normalisation: the network is the same in training and in evaluation, and images do not see each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = convolution(3, 16)
        self.down = nn.ModuleList([halved(16, 24), halved(24, 48), halved(48, 48)])
        self.across = nn.ModuleList([nn.Conv2d(48, 48, 1), nn.Conv2d(48, 24, 1), nn.Conv2d(24, 16, 1)])
        self.up = nn.ModuleList([convolution(48, 48), convolution(24, 24), convolution(16, 16)])
        self.classes = nn.Conv2d(16, CLASSES, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        levels = [self.first((images - PIXEL_MEAN) / PIXEL_STD)]
        for down in self.down:
            levels.append(down(levels[-1]))
        features = levels.pop()
        for across, up in zip(self.across, self.up, strict=True):
            features = up(levels.pop() + functional.interpolate(across(features), scale_factor=2.0))
        logits: Tensor = self.classes(features)
        return logits


def halved(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, the first with stride 2."""
    return nn.Sequential(convolution(inputs, outputs, 2), convolution(outputs, outputs))


def scene_unet() -> SceneUNet:
    """Trained on clean scenes only."""
    return _with_weights("scene-unet.safetensors")


def scene_unet_at() -> SceneUNet:
    """Trained on PGD adversarial examples (Madry et al. 2018)."""
    return _with_weights("scene-unet-at.safetensors")


def _with_weights(name: str) -> SceneUNet:
    model = SceneUNet()
    model.load_state_dict(load((files("rbl_reference") / "weights" / name).read_bytes()))
    return model.eval()
