"""MTCNN, a real pretrained detector: `facenet:mtcnn`, on the portrait that scikit-image ships."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("facenet_pytorch", reason="needs facenet-pytorch: pip install --no-deps -r tests/no-deps.txt")
pytest.importorskip("skimage", reason="needs scikit-image, whose portrait it looks at: pip install scikit-image")

from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import detect_face
from skimage import data

from rbl_facenet.facenet_detector import facenet_detector
from robustbench_lab.errors import UsageError
from robustbench_lab.tasks.detection_objectives import Vanish
from robustbench_lab.testing.detector_contract import check_detector

NO_FACE = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)


def portrait() -> Tensor:
    """The face of an astronaut, and a piece without one, `[2, 3, 128, 128]` in [0, 1]."""
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    return torch.stack([photo[:, 40:168, 160:288], photo[:, 330:458, 10:138]])


def own_detections(images: Tensor) -> list[Any]:
    """Boxes and probabilities `[D, 5]` of each image, by facenet-pytorch itself."""
    nets = MTCNN()
    with torch.no_grad():
        pixels = (images * 255).permute(0, 2, 3, 1)
        found, _ = detect_face(pixels, 20, nets.pnet, nets.rnet, nets.onet, [0.6, 0.7, 0.7], 0.709, "cpu")
    return [torch.as_tensor(one.astype("float32")) for one in found]


def test_it_finds_the_face_that_facenet_pytorch_finds_and_no_other() -> None:
    found = facenet_detector("mtcnn")(portrait()).detections
    face, nothing = own_detections(portrait())
    assert len(face) == 1
    assert len(nothing) == 0
    torch.testing.assert_close(found["boxes"][0, 0], face[0, :4], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found["scores"][0, 0], face[0, 4])
    assert (found["scores"] > 0).sum() == 1
    assert found["labels"][0, 0] == 0


def test_it_keeps_to_the_contract_of_detectors() -> None:
    boxes = facenet_detector("mtcnn")(portrait()).detections["boxes"][:, :1].clone()
    assert check_detector(facenet_detector("mtcnn"), portrait(), boxes, torch.tensor([[0], [-1]])) == []


def test_its_training_loss_is_least_for_what_it_sees() -> None:
    output = facenet_detector("mtcnn")(portrait())
    seen, labels = output.detections["boxes"][:, :1].clone(), torch.tensor([[0], [-1]])
    right, none = output.loss_of(seen, labels), output.loss_of(*NO_FACE)
    beside = output.loss_of(seen + 40, labels)
    assert right[0] < none[0]
    assert right[0] < beside[0]
    assert right[1] == none[1]


def test_the_face_vanishes_under_attack_and_not_under_noise() -> None:
    model, eps, clean = facenet_detector("mtcnn").requires_grad_(False), 32 / 255, portrait()[:1]
    face = own_detections(clean)[0][None, :, :4]
    targets = {"boxes": face, "labels": torch.zeros(1, 1).long(), "crowd": torch.zeros(1, 1).bool()}
    goal = Vanish().prepare(model(clean), targets)
    sign = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert len(own_detections((clean + eps * sign).clamp(0, 1))[0]) == 1
    x = clean.clone()
    for _ in range(20):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(Vanish().loss(None, model(leaf), goal).sum(), leaf)
        x = (x + eps / 8 * gradient.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)
    assert len(own_detections(x)[0]) == 0


@pytest.mark.parametrize(
    ("name", "params", "problem"),
    [
        ("retina", {}, "facenet has one detector, facenet:mtcnn, and not 'retina'"),
        ("mtcnn", {"thresholds": [0.5]}, "give three numbers between 0 and 1"),
        ("mtcnn", {"factor": 1.5}, "factor between 0 and 1"),
        ("mtcnn", {"min_face_size": 0}, "min_face_size must be at least 1"),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, params: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        facenet_detector(name, **params)
