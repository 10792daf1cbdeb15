"""Images with boxes: COCO JSON, YOLO folders, Pascal VOC XML; and images with masks."""

from robustbench_lab import hookimpl
from robustbench_lab.contracts import DatasetSpec


@hookimpl
def rbl_datasets() -> list[DatasetSpec]:
    """The usual formats of detection data, folders of masks, and torchvision's names for some of them."""
    return [
        _spec("coco", "coco", "COCO JSON: coco(path='instances_val2017.json', images='val2017', size=640)"),
        _spec("yolo", "yolo", "YOLO folders: yolo(path='dataset.yaml', split='val', size=640)", needs=("yaml",)),
        _spec("voc", "voc", "Pascal VOC XML: voc(path='VOC2012', split='val', size=640)", needs=("defusedxml",)),
        _spec(
            "torchvision:CocoDetection",
            "torchvision_names",
            "COCO JSON: torchvision:CocoDetection(root='val2017', annFile='instances_val2017.json')",
            factory="coco_detection",
        ),
        _spec(
            "torchvision:VOCDetection",
            "torchvision_names",
            "Pascal VOC, downloaded if asked for: torchvision:VOCDetection(root='data', year='2012')",
            factory="voc_detection",
            needs=("torchvision", "defusedxml"),
        ),
        _spec(
            "image-masks",
            "image_masks",
            "a folder of images beside one of PNG masks: image-masks(path='val', classes=21, size=512)",
            task="segmentation",
        ),
        _spec(
            "torchvision:VOCSegmentation",
            "image_masks",
            "Pascal VOC's masks, downloaded if asked for: torchvision:VOCSegmentation(root='data', year='2012')",
            factory="voc_segmentation",
            needs=("torchvision",),
            task="segmentation",
        ),
    ]


def _spec(
    name: str, module: str, summary: str, factory: str = "", needs: tuple[str, ...] = (), task: str = "detection"
) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        factory=f"rbl_detection_data.{module}:{factory or module}",
        summary=summary,
        tasks=(task,),
        version="1",
        requires=("PIL", *needs),
    )
