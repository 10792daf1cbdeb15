"""MTCNN of facenet-pytorch, with the weights of its package."""

from facenet_pytorch import MTCNN
from torch import nn

from rbl_facenet.cascade import Cascade
from robustbench_lab.errors import UsageError

THRESHOLDS = (0.6, 0.7, 0.7)


def facenet_detector(
    name: str, *, min_face_size: int = 20, thresholds: list[float] | None = None, factor: float = 0.709
) -> nn.Module:
    """The face detector `mtcnn`, for images `[B, 3, H, W]` in [0, 1], to a DetectorOutput of one class.

    min_face_size: in pixels. thresholds: of its three stages' probabilities, by default 0.6, 0.7 and 0.7. factor: from
    one scale of its image pyramid to the next. Raises UsageError.
    """
    if name != "mtcnn":
        raise UsageError(f"facenet has one detector, facenet:mtcnn, and not '{name}'")
    chosen = tuple(THRESHOLDS if thresholds is None else thresholds)
    if len(chosen) != 3 or not all(0 <= one <= 1 for one in chosen):
        raise UsageError(f"facenet:mtcnn: thresholds is {list(chosen)}; give three numbers between 0 and 1")
    if min_face_size < 1 or not 0 < factor < 1:
        raise UsageError("facenet:mtcnn: min_face_size must be at least 1, and factor between 0 and 1")
    nets = MTCNN()
    return Cascade(nets.pnet, nets.rnet, nets.onet, min_face_size, chosen, factor).eval()
