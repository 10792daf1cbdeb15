"""torchvision's detectors: `torchvision:<name>` on data for detection, against torchvision's own passes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from rbl_torchvision.resizing import network_input
from rbl_torchvision.torchvision_detector import torchvision_detector
from robustbench_lab.errors import UsageError
from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.passes.folded_norms import with_folded_norms
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers
from robustbench_lab.tasks.detector_output import DetectorOutput, padded
from robustbench_lab.testing.detector_contract import check_detector

SSDLITE = "ssdlite320_mobilenet_v3_large"
FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
RETINANET = "retinanet_resnet50_fpn"
FCOS = "fcos_resnet50_fpn"
FAMILIES = [SSDLITE, FASTER, RETINANET, FCOS]
BOXES = torch.tensor([[[4.0, 4, 30, 30], [10, 10, 50, 40]], [[0.0, 0, 20, 20], [0, 0, 0, 0]]])
LABELS = torch.tensor([[0, 2], [1, -1]])


def images(count: int = 2) -> Tensor:
    return torch.rand((count, 3, 48, 64), generator=torch.Generator().manual_seed(0))


def lively(net: Any, side: int) -> None:
    """Batch statistics of random weights, so that the input makes a difference at the output."""
    norms = [one for one in net.modules() if isinstance(one, nn.BatchNorm2d)]
    for one in norms:
        one.train().momentum = 1.0
    with torch.no_grad():
        net.backbone(torch.rand((8, 3, side, side), generator=torch.Generator().manual_seed(1)))
    for one in norms:
        one.eval().running_var.clamp_(min=float(one.running_var.mean()))


def made(name: str, **params: Any) -> Any:
    """A detector of three classes, with all it sees reported."""
    side = 320 if name == SSDLITE else 64
    sizes = {} if name == SSDLITE else {"min_size": side}
    model = torchvision_detector(name, random_weights=True, num_classes=4, score_threshold=0.0, **sizes, **params)
    lively(model.net, side)
    return model


@pytest.fixture(scope="module")
def detectors() -> dict[str, Any]:
    return {name: made(name) for name in FAMILIES}


def own_targets(boxes: Tensor, labels: Tensor, first: int) -> list[dict[str, Tensor]]:
    """torchvision's form of them; its numbers of the classes begin at `first`."""
    pairs = zip(boxes, labels, strict=True)
    return [{"boxes": box[label >= 0], "labels": label[label >= 0] + first} for box, label in pairs]


def own_losses(net: Any, x: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """What torchvision's training pass says of each image alone, with batch statistics frozen, `[B]`."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    try:
        targets = own_targets(boxes, labels, 1)
        return torch.stack([sum(net([one], [target]).values()) for one, target in zip(x, targets, strict=True)])
    finally:
        net.eval()


def without_sampling(net: Any) -> None:
    """Both samplers draw all; in training as many proposals are handed on as when deployed."""
    for stage in (net.rpn, net.roi_heads):
        stage.fg_bg_sampler.batch_size_per_image = 10**6
    net.rpn._pre_nms_top_n["training"] = net.rpn._pre_nms_top_n["testing"]
    net.rpn._post_nms_top_n["training"] = net.rpn._post_nms_top_n["testing"]


def fixed_proposals(net: Any) -> None:
    """The same boxes for every image: no gradient flows through where proposals lie, so that they must not move."""
    corners = torch.rand((20, 2), generator=torch.Generator().manual_seed(2)) * 30
    boxes = torch.cat([corners, corners + 12], dim=1)
    net.rpn.filter_proposals = lambda proposals, *_: ([boxes.to(proposals)] * len(proposals), None)


# ---------------------------------------------------------------- what an adapter must keep to


@pytest.mark.parametrize("name", FAMILIES)
def test_it_keeps_to_the_contract_of_detectors(name: str) -> None:
    model = made(name)
    if name == FASTER:
        fixed_proposals(model.net)
    assert check_detector(model, images(), BOXES, LABELS) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_detections_are_those_of_torchvisions_own_pipeline(name: str, detectors: dict[str, Any]) -> None:
    model = detectors[name]
    with torch.no_grad():
        own = model.net(list(images()))
        output = model(images())
    known = [(one["boxes"], one["scores"], one["labels"] - 1) for one in own]
    wanted = padded([(box[label >= 0], score[label >= 0], label[label >= 0]) for box, score, label in known])
    for part, values in wanted.items():
        torch.testing.assert_close(output.detections[part], values)
    assert (wanted["scores"] > 0).any()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_training_loss_is_torchvisions_own_of_one_image(name: str, detectors: dict[str, Any]) -> None:
    model = made(name) if name == FASTER else detectors[name]
    if name == FASTER:
        without_sampling(model.net)
    for boxes, labels in ((BOXES, LABELS), (BOXES[:, :0], LABELS[:, :0])):
        with torch.no_grad():
            own = own_losses(model.net, images(), boxes, labels)
            torch.testing.assert_close(model(images()).loss_of(boxes, labels), own, rtol=1e-4, atol=1e-5)
    assert own_losses(model.net, images(), BOXES, LABELS).min() > 0


def test_where_torchvision_draws_at_random_the_loss_is_the_mean_of_its_draws() -> None:
    model = made(FASTER)
    without_sampling(model.net)
    for stage in (model.net.rpn, model.net.roi_heads):
        stage.fg_bg_sampler.batch_size_per_image = 12
    x, boxes, labels = images(1), BOXES[:1], LABELS[:1]
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = torch.cat([own_losses(model.net, x, boxes, labels) for _ in range(60)])
        loss = float(model(x).loss_of(boxes, labels))
    error = float(drawn.std()) / len(drawn) ** 0.5
    assert error > 0
    assert abs(float(drawn.mean()) - loss) < 4 * error


@pytest.mark.parametrize("name", FAMILIES)
def test_detections_are_candidates_with_the_score_of_their_logits(name: str, detectors: dict[str, Any]) -> None:
    with torch.no_grad():
        output: DetectorOutput = detectors[name](images())
    assert output.candidates is not None
    assert output.logits is not None
    found = output.detections
    for image in range(2):
        scores = output.logits[image].sigmoid()
        for place in range(3):
            box, score, label = (found[part][image, place] for part in ("boxes", "scores", "labels"))
            alike = (scores[:, label] - score).abs() < 1e-4
            assert alike.any()
            if name != FASTER:  # whose second stage has a box for every class, of which a candidate keeps one
                assert ((output.candidates[image][alike] - box).abs().amax(1) < 1e-2).any()


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_counted_is_what_torchvision_gives_to_suppression(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every_output = {"labels": [0, 1, 2, 3]} if name in (RETINANET, FCOS) else {}
    model = made(name, **every_output)
    with torch.no_grad():
        threshold = float(model(images()).logits.sigmoid().quantile(0.9))
    for holder in (model.net, getattr(model.net, "roi_heads", None)):
        if hasattr(holder, "score_thresh"):
            holder.score_thresh, holder.topk_candidates = threshold, 10**6
    given: list[int] = []
    suppress = torchvision.ops.boxes.batched_nms

    def counted(boxes: Tensor, *rest: Any) -> Tensor:
        given.append(len(boxes))
        return suppress(boxes, *rest)

    monkeypatch.setattr(torchvision.ops.boxes, "batched_nms", counted)
    with torch.no_grad():
        model.net(list(images()))
        calls = given[-2:]  # Faster R-CNN's first stage has its own before
        found = model(images()).suppression_count()
    assert found.tolist() == calls
    assert min(calls) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_of_another_size_has_its_boxes_in_its_own_pixels(name: str, detectors: dict[str, Any]) -> None:
    with torch.no_grad():
        output = detectors[name](torch.rand(1, 3, 150, 100))
    assert output.candidates is not None
    corners = output.candidates[..., 2:].flatten(0, 1).amax(0)
    assert corners[0] <= 100.01
    assert corners[1] <= 150.01
    assert corners[1] > 110  # candidates reach beyond what would be the edge if the axes were swapped


def test_a_box_without_area_is_no_object(detectors: dict[str, Any]) -> None:
    output = detectors[RETINANET](images())
    flat = torch.tensor([[[4.0, 4, 30, 30], [10, 10, 50, 10]]]).expand(2, -1, -1)
    both = output.loss_of(flat, torch.tensor([[0, 2]]).expand(2, -1))
    assert torch.equal(both, output.loss_of(flat[:, :1], torch.zeros(2, 1, dtype=torch.int64)))


def test_a_label_that_the_detector_does_not_know_is_refused(detectors: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="label 3 is not among the detector's 3 classes"):
        detectors[SSDLITE](images()).loss_of(BOXES, LABELS + 1)


def test_mixed_precision_keeps_boxes_and_losses_in_float32(detectors: dict[str, Any]) -> None:
    for name in FAMILIES:
        x = images().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = detectors[name](x)
        loss = output.loss_of(BOXES, LABELS)
        assert loss.dtype == output.candidates.dtype == output.logits.dtype == torch.float32
        assert output.detections["scores"].dtype == torch.float32
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        assert gradient.isfinite().all()


# ---------------------------------------------------------------- class numbers


def test_coco_weights_speak_of_80_classes_in_cocos_order() -> None:
    model = torchvision_detector(SSDLITE, random_weights=True)
    names = torchvision.models.detection.SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]
    chosen = [names[number] for number in model.classes.numbers]
    assert len(chosen) == 80
    assert (chosen[0], chosen[11], chosen[79]) == ("person", "stop sign", "toothbrush")
    assert model(images()).logits.shape[-1] == 80


def test_labels_can_be_named_one_by_one() -> None:
    few = torchvision_detector(RETINANET, random_weights=True, num_classes=6, labels=[4, 2], min_size=64)
    plain = torchvision_detector(RETINANET, random_weights=True, num_classes=6, labels="from-0", min_size=64)
    with torch.no_grad():
        one, every = few(images()), plain(images())
    torch.testing.assert_close(one.logits, every.logits[..., [4, 2]])
    assert set(one.detections["labels"].unique().tolist()) <= {-1, 0, 1}
    swapped = LABELS.where(LABELS < 0, torch.tensor([4, 2, 0])[LABELS])
    keep = BOXES[:, :1], torch.tensor([[0], [1]])
    torch.testing.assert_close(one.loss_of(*keep), every.loss_of(BOXES[:, :1], swapped[:, :1]))


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"num_classes": 1}, "it is at least 2"),
        ({"num_classes": 5, "labels": "coco80"}, "labels='coco80' is for 91 outputs, not 5"),
        ({"num_classes": 5, "labels": [1, 7]}, "labels has 7, but its outputs are 0..4"),
        ({"num_classes": 5, "labels": [1, 1]}, "names an output twice"),
        ({"num_classes": 5, "labels": "from-0"}, "output 0 is the background"),
        ({"num_classes": 5, "labels": []}, "no class is left"),
        ({"min_size": 100}, "it resizes every image to 320x320"),
        ({"score_threshold": 1.5}, "score_threshold must be between 0 and 1"),
        ({"nms_threshold": -0.1}, "nms_threshold must be between 0 and 1"),
        ({"max_detections": 500}, "max_detections must be 1 to 300"),
        ({"mean": [0.5]}, "give three numbers"),
        ({"std": [0.5, 0.5, 0.0]}, "give three numbers above 0"),
    ],
)
def test_what_does_not_fit_is_one_line(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        torchvision_detector(SSDLITE, random_weights=True, **params)
    assert str(caught.value).startswith(f"torchvision:{SSDLITE}")
    assert "\n" not in str(caught.value)


def test_sizes_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="min_size=200 and max_size=100 do not fit together"):
        torchvision_detector(RETINANET, random_weights=True, num_classes=3, min_size=200, max_size=100)


# ---------------------------------------------------------------- names, weights and settings


def test_names_of_other_tasks_and_unknown_ones_are_refused() -> None:
    with pytest.raises(UsageError, match="torchvision:resnet18 is a classifier, and the data is for detectors"):
        torchvision_detector("resnet18", random_weights=True)
    with pytest.raises(UsageError, match=r"no detector 'fcos_resnet_50_fpn'. Did you mean 'fcos_resnet50_fpn'\?"):
        torchvision_detector("fcos_resnet_50_fpn", random_weights=True)
    with pytest.raises(UsageError, match="has no weights: add weights="):
        torchvision_detector(FCOS)


def test_weights_come_from_a_local_file(tmp_path: Path, detectors: dict[str, Any]) -> None:
    first = detectors[SSDLITE]
    save_file(first.net.state_dict(), tmp_path / "w.safetensors")
    second = torchvision_detector(SSDLITE, weights=str(tmp_path / "w.safetensors"), num_classes=4, score_threshold=0.0)
    with torch.no_grad():
        assert torch.equal(first(images()).logits, second(images()).logits)
    with pytest.raises(UsageError, match="do not fit torchvision:ssdlite320") as caught:
        torchvision_detector(SSDLITE, weights=str(tmp_path / "w.safetensors"), num_classes=5)
    assert "\n" not in str(caught.value)


def test_files_of_torchvisions_first_faster_rcnn_fit_although_names_have_changed(
    tmp_path: Path, detectors: dict[str, Any]
) -> None:
    tensors = detectors[FASTER].net.state_dict()
    older = {name.replace("rpn.head.conv.0.0.", "rpn.head.conv."): one for name, one in tensors.items()}
    assert older.keys() != tensors.keys()
    torch.save(older, tmp_path / "old.pth")
    model = torchvision_detector(FASTER, weights=str(tmp_path / "old.pth"), num_classes=4, min_size=64)
    with torch.no_grad():
        assert torch.equal(model(images()).logits, detectors[FASTER](images()).logits)


def test_thresholds_and_normalisation_are_the_users() -> None:
    model = torchvision_detector(
        FASTER,
        random_weights=True,
        num_classes=4,
        min_size=64,
        score_threshold=0.2,
        nms_threshold=0.3,
        max_detections=7,
        mean=[0.1, 0.2, 0.3],
        std=[1.0, 2.0, 3.0],
    )
    net = torchvision.models.get_model(
        FASTER,
        weights=None,
        weights_backbone=None,
        num_classes=4,
        min_size=64,
        box_score_thresh=0.2,
        box_nms_thresh=0.3,
        box_detections_per_img=7,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[1.0, 2.0, 3.0],
    ).eval()
    net.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        (own,) = net(list(images(1)))
        found = model(images(1)).detections
    assert 0 < len(own["scores"]) <= 7
    torch.testing.assert_close(found["scores"][0, : len(own["scores"])], own["scores"])
    assert int((found["scores"] > 0).sum()) == len(own["scores"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ssd300_vgg16",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "retinanet_resnet50_fpn_v2",
    ],
)
def test_every_other_detector_gives_torchvisions_own_detections_and_loss(name: str) -> None:
    sizes = {} if name == "ssd300_vgg16" else {"min_size": 64}
    model = torchvision_detector(name, random_weights=True, num_classes=4, score_threshold=0.0, **sizes)
    lively(model.net, 300 if not sizes else 64)
    if name.startswith("faster"):
        without_sampling(model.net)
    x = images().requires_grad_()
    output = model(x)
    (gradient,) = torch.autograd.grad(output.loss_of(BOXES, LABELS).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.9
    with torch.no_grad():
        own = own_losses(model.net, images(), BOXES, LABELS)
        torch.testing.assert_close(output.loss_of(BOXES, LABELS).detach(), own, rtol=1e-3, atol=1e-4)
        found = model.net(list(images()))
    for image, one in enumerate(found):
        kept = one["labels"] > 0
        torch.testing.assert_close(output.detections["scores"][image, : int(kept.sum())], one["scores"][kept])


# ---------------------------------------------------------------- what the network gets


@pytest.mark.parametrize("size", [(320, 320), (320, 288), (300, 300)])
def test_images_reach_the_network_as_torchvision_prepares_them(size: tuple[int, int]) -> None:
    transform = made(SSDLITE).net.transform
    given = torch.rand((3, 3, *size), generator=torch.Generator().manual_seed(2))
    found, (wanted, _) = network_input(transform, given), transform(list(given))
    assert torch.equal(found.tensors, wanted.tensors)
    assert [tuple(one) for one in found.image_sizes] == [tuple(one) for one in wanted.image_sizes]


@pytest.mark.parametrize("numbers", [[1, 2, 3], [3, 1, 2], [2]])
def test_logits_are_those_of_the_datasets_classes(numbers: list[int]) -> None:
    logits = torch.arange(10.0).view(2, 5)
    assert ClassNumbers(numbers, 5).chosen(logits).tolist() == logits[:, numbers].tolist()
    assert ClassNumbers(numbers, 5).chosen(logits[:, 1:], first=1).tolist() == logits[:, numbers].tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_with_folded_normalisations_it_is_the_same_detector(name: str, detectors: dict[str, Any]) -> None:
    model = ready(detectors[name], torch.device("cpu"))
    folded = with_folded_norms(model, images())
    assert folded is not None
    assert not any(isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d) for module in folded.modules())
    plain, quick = model(images()), folded(images())
    torch.testing.assert_close(quick.logits, plain.logits, rtol=1e-3, atol=1e-3)
    losses = [output.loss_of(BOXES, LABELS) for output in (quick, plain)]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
