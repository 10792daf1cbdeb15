"""The bundled digit classifiers: one small convolutional network with two sets of weights."""

from importlib.resources import files

from safetensors.torch import load
from torch import Tensor, nn

PIXEL_MEAN, PIXEL_STD = 0.306, 0.376
"""Of the training split."""


class DigitsCNN(nn.Module):
    """Images `[N, 1, 8, 8]` in [0, 1] to logits `[N, 10]`: 21 546 parameters, normalisation inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers((images - PIXEL_MEAN) / PIXEL_STD)
        return logits


def digits_cnn() -> DigitsCNN:
    """Trained on clean images only."""
    return _with_weights("digits-cnn.safetensors")


def digits_cnn_at() -> DigitsCNN:
    """Trained on PGD adversarial examples (Madry et al. 2018, https://arxiv.org/abs/1706.06083)."""
    return _with_weights("digits-cnn-at.safetensors")


def _with_weights(name: str) -> DigitsCNN:
    model = DigitsCNN()
    model.load_state_dict(load((files("rbl_reference") / "weights" / name).read_bytes()))
    return model.eval()
