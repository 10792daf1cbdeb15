"""Detection data under torchvision's names and parameters."""

from pathlib import Path

from rbl_detection_data.checking import OnError
from rbl_detection_data.coco import coco
from rbl_detection_data.detection_images import DetectionImages
from rbl_detection_data.letterbox import Size
from rbl_detection_data.voc import voc
from robustbench_lab.errors import UsageError, describe_error


def coco_detection(
    root: str,
    annFile: str,  # noqa: N803 (torchvision's name)
    size: Size = 640,
    on_error: OnError = "refuse",
) -> DetectionImages:
    """Images in `root` with the annotations of the JSON file `annFile`: see `coco`."""
    return coco(annFile, images=root, size=size, on_error=on_error)


def voc_detection(
    root: str,
    year: str = "2012",
    image_set: str = "val",
    download: bool = False,
    size: Size = 640,
    on_error: OnError = "refuse",
) -> DetectionImages:
    """Pascal VOC of a year below `root`, downloaded there first if `download`: see `voc`. Raises UsageError."""
    import torchvision

    folder = str(Path(root).expanduser())
    try:
        data = torchvision.datasets.VOCDetection(folder, year=year, image_set=image_set, download=download)
    except Exception as error:  # files absent or damaged, an unknown year, no network
        remedy = "check the connection" if download else "add download=True, or root= the folder with VOCdevkit"
        raise UsageError(f"torchvision:VOCDetection: {describe_error(error)}; {remedy}") from error
    release = Path(data.annotations[0]).parents[1]
    return voc(str(release), split=image_set, size=size, on_error=on_error)
