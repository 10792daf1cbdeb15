"""What a detector reported on an image, as boxes to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robustbench_lab.contracts import Measured
from robustbench_lab.report.side_by_side import Colour, Mark

LEGEND = (
    "Boxes are detections with a score of 0.5 or more. Blue: they cover an object and name it right. Orange: they "
    "cover none, or name it wrong. Dashed yellow: objects that are not found."
)


@dataclass(frozen=True)
class Marked:
    """The boxes of one image, and a line that counts them."""

    marks: tuple[Mark, ...]
    summary: str


def detections_stored(columns: Measured) -> bool:
    """Whether a cell's outcomes hold detections."""
    return "clean_boxes" in columns


def marked(columns: Measured, position: int, when: str, names: Sequence[str]) -> Marked:
    """Detections on one sample, and the objects they miss.

    columns: of a cell of the task `detection`, in which labels count from 1. when: `clean` or `robust`. names: of the
    classes, as far as they are known.
    """
    import torch

    from robustbench_lab.tasks.detection_measures import Matches, scene_of

    def stored(name: str) -> torch.Tensor:
        return torch.from_numpy(columns[name][position : position + 1].copy())  # stored arrays cannot be written

    def called(label: int) -> str:
        return names[label] if 0 <= label < len(names) else f"class {label}"

    objects, labels = stored("object_boxes"), stored("object_labels").long() - 1
    scene = scene_of({"boxes": objects, "labels": labels, "crowd": stored("object_crowd")})
    detections = {
        "boxes": stored(f"{when}_boxes"),
        "scores": stored(f"{when}_scores"),
        "labels": stored(f"{when}_labels").long() - 1,
    }
    matches = Matches(scene, detections)
    missed = scene.real & ~matches.found
    marks = [
        Mark(
            tuple(detections["boxes"][0, place].tolist()),
            Colour.WRONG if matches.false_alarms[0, place] else Colour.RIGHT,
            f"{called(int(detections['labels'][0, place]))} {float(detections['scores'][0, place]):.2f}",
        )
        for place in matches.reported[0].nonzero()[:, 0].tolist()
    ]
    marks += [
        Mark(tuple(objects[0, place].tolist()), Colour.MISSED, called(int(labels[0, place])))
        for place in missed[0].nonzero()[:, 0].tolist()
    ]
    found, real, wrong = int(matches.found.sum()), int(scene.real.sum()), int(matches.false_positives.sum())
    return Marked(tuple(marks), f"{found} of {real} objects found, {wrong} false positives")
