"""A folder of images beside a folder of masks; and Pascal VOC under torchvision's name."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from rbl_detection_data.annotations import Kind, Problem
from rbl_detection_data.checking import OnError
from rbl_detection_data.letterbox import Size
from rbl_detection_data.mask_images import MaskedImage, MaskImages, mask_images
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.image_files import images_below
from robustbench_lab.plugin_tools.local_files import existing_folder

VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


def image_masks(
    path: str,
    classes: Annotated[int, Field(ge=2)] | list[str],
    size: Size = 512,
    on_error: OnError = "refuse",
) -> MaskImages:
    """The images in `path/images`, each with the PNG mask of its name in `path/masks`.

    classes: how many, or their names. A mask holds the number of each pixel's class, from 0; 255 does not count. size:
    the canvas, a side or [height, width]. on_error: `refuse`, or `skip` to leave out images with a problem.
    Raises UsageError.
    """
    source = f"image-masks '{path}'"
    folders = [existing_folder(f"{path}/{name}", "image-masks").resolve() for name in ("images", "masks")]
    files = {file.relative_to(folders[0]): file for file in images_below(folders[0])}
    if not files:
        raise UsageError(f"{source}: no images in '{folders[0]}'")
    found = [MaskedImage(name.as_posix(), file, folders[1] / name.with_suffix(".png")) for name, file in files.items()]
    alone = set(images_below(folders[1])) - {one.mask for one in found}
    astray = [Problem(Kind.MASK_ALONE, f"'{one.name}'") for one in sorted(alone)]
    names = classes if isinstance(classes, list) else [str(number) for number in range(classes)]
    return mask_images(found, names, size=size, on_error=on_error, source=source, astray=astray)


def voc_segmentation(
    root: str,
    year: str = "2012",
    image_set: str = "val",
    download: bool = False,
    size: Size = 512,
    on_error: OnError = "refuse",
) -> MaskImages:
    """Pascal VOC's masks of a year below `root`, downloaded there first if `download`. Raises UsageError."""
    import torchvision

    folder = str(Path(root).expanduser())
    try:
        data = torchvision.datasets.VOCSegmentation(folder, year=year, image_set=image_set, download=download)
    except Exception as error:  # files absent or damaged, an unknown year, no network
        remedy = "check the connection" if download else "add download=True, or root= the folder with VOCdevkit"
        raise UsageError(f"torchvision:VOCSegmentation: {describe_error(error)}; {remedy}") from error
    pairs = zip(data.images, data.masks, strict=True)
    found = [MaskedImage(Path(image).name, Path(image), Path(mask)) for image, mask in pairs]
    return mask_images(found, VOC_CLASSES, size=size, on_error=on_error, source=f"VOC {year}")
