"""A few samples of a cell as pictures, from saved adversarial inputs: images, or windows of series with forecasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.contracts import Bounds, Dataset
from robustbench_lab.errors import describe_error
from robustbench_lab.planning.run_plan import select_samples
from robustbench_lab.records import CellRecord, Outcomes
from robustbench_lab.report import forecast_windows, mask_overlays
from robustbench_lab.report.cell_model import cell_model
from robustbench_lab.report.detection_marks import LEGEND, Marked, detections_stored, marked
from robustbench_lab.report.formatting import printable
from robustbench_lab.report.kept_pictures import kept_patches
from robustbench_lab.report.side_by_side import Panel, side_by_side
from robustbench_lab.report.window_drawing import window_svg
from robustbench_lab.result_store.artifact_files import Artifact, artifact_problem

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog

CHANNELS = (1, 3)


@dataclass(frozen=True)
class Picture:
    """One sample."""

    file_name: str
    caption: str
    content: bytes
    media_type: str = "image/png"
    shows: str = "Clean, under attack, and the change"
    """For those who cannot see it."""


@dataclass(frozen=True)
class CellPictures:
    """The pictures of a cell; or the reason why there are none."""

    record: CellRecord
    pictures: tuple[Picture, ...]
    legend: str = ""
    remark: str | None = None


class _NoPicturesError(Exception):
    """Why a cell has none."""


@dataclass
class PictureMaker:
    """Makes the pictures of cells; datasets are kept from one cell to the next."""

    catalog: Catalog
    run_scripts: bool = False
    """Whether models may be programs in files that the database names: see `cell_here`."""
    _datasets: dict[str, Dataset] = field(default_factory=dict)

    def of_cell(self, record: CellRecord, artifacts: Sequence[Artifact], folder: Path, count: int) -> CellPictures:
        """Pictures of up to `count` samples: those broken first, otherwise in the cell's own order.

        artifacts: the cell's files of adversarial inputs, below `folder`. Data is read again by the dataset's label,
        and shown only where it is what was attacked.
        """
        try:
            return CellPictures(record, *self._made(record, artifacts, folder, count))
        except _NoPicturesError as reason:
            return CellPictures(record, (), remark=str(reason))

    def _made(
        self, record: CellRecord, artifacts: Sequence[Artifact], folder: Path, count: int
    ) -> tuple[tuple[Picture, ...], str]:
        if record.outcomes is None:
            raise _NoPicturesError(f"the cell is {record.status}")
        if not artifacts:
            raise _NoPicturesError("no adversarial inputs were saved: run it with --save-adversarials --fresh")
        series = record.cell.task == "forecasting"
        chosen = forecast_windows.chosen_windows(record.outcomes, count) if series else _chosen(record.outcomes, count)
        attacked = dict(saved_inputs(artifacts, folder, chosen))
        positions = [one for one in chosen if one in attacked]
        dataset = self._dataset(record)
        if series:
            return self._windows(record, record.outcomes, dataset, positions, attacked), forecast_windows.LEGEND
        clean = _clean_images(record, dataset, positions)
        if any(attacked[position].shape != clean.shape[1:] for position in positions):
            raise _NoPicturesError("the saved inputs are of another shape than the clean ones")
        adversarial = np.stack([attacked[position] for position in positions])
        if record.cell.task == "segmentation":
            masks = self._masks(record, clean, adversarial)
            legend = mask_overlays.LEGEND
        else:
            masks = [None] * len(positions)
            legend = LEGEND if detections_stored(record.outcomes.columns) else ""
        names = [str(one) for one in getattr(dataset, "class_names", ())]
        pictures = tuple(
            _picture(record, record.outcomes, position, clean[place], adversarial[place], dataset.bounds, names, mask)
            for place, (position, mask) in enumerate(zip(positions, masks, strict=True))
        )
        return (*pictures, *_patches(record, artifacts, folder, dataset.bounds)), legend

    def _masks(
        self, record: CellRecord, clean: NDArray[np.float32], attacked: NDArray[np.float32]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int64]] | None]:
        """For each image the classes of its pixels `[H, W]`, before and after."""
        try:
            model = cell_model(record, self.catalog, run_scripts=self.run_scripts)
            before, after = (mask_overlays.predicted_masks(record, model, images) for images in (clean, attacked))
        except Exception as error:  # as for forecasts
            raise _NoPicturesError(f"the masks cannot be made again here: {describe_error(error)}") from error
        return list(zip(before, after, strict=True))

    def _windows(
        self,
        record: CellRecord,
        outcomes: Outcomes,
        dataset: Dataset,
        positions: Sequence[int],
        attacked: Mapping[int, NDArray[np.float32]],
    ) -> tuple[Picture, ...]:
        try:
            model = cell_model(record, self.catalog, run_scripts=self.run_scripts)
            inputs = np.stack([attacked[position] for position in positions])
            windows = forecast_windows.drawn_windows(record, outcomes, dataset, model, positions, inputs)
        except Exception as error:  # models need files and libraries that may not be here
            raise _NoPicturesError(f"the forecasts cannot be made again here: {describe_error(error)}") from error
        shows = "History and forecast, clean and under attack"
        return tuple(
            Picture(
                f"{record.cell.cell_id}-{position:05d}.svg", window.title, window_svg(window), "image/svg+xml", shows
            )
            for position, window in zip(positions, windows, strict=True)
        )

    def _dataset(self, record: CellRecord) -> Dataset:
        label = record.cell.dataset.label
        try:
            if label not in self._datasets:
                resolved = self.catalog.resolve("datasets", parse_component(label), task=record.cell.task)
                self._datasets[label] = self.catalog.build("datasets", resolved, task=record.cell.task)
            dataset = self._datasets[label]
            samples = record.cell.samples
            same = select_samples(dataset, len(samples.sample_ids), label).identity == samples.identity
        except Exception as error:  # data is often not where it was, and each plugin says so in its own way
            raise _NoPicturesError(f"the data cannot be read here: {describe_error(error)}") from error
        if not same:
            raise _NoPicturesError(f"dataset '{printable(label)}' does not hold here what was attacked")
        return dataset


def _chosen(outcomes: Outcomes, count: int) -> list[int]:
    """Positions of samples in the cell: those that were right and are broken, then the others."""
    broken = outcomes.clean_correct & ~outcomes.robust
    order = np.argsort(~broken, kind="stable")
    return [int(position) for position in order[:count]]


def saved_inputs(
    artifacts: Sequence[Artifact], folder: Path, positions: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Positions with their adversarial inputs; no file is read that is not what was stored."""
    from safetensors import SafetensorError, safe_open

    from robustbench_lab.evaluation.evaluate_cell import ADVERSARIAL

    for artifact in artifacts:
        if problem := artifact_problem(folder, artifact):
            raise _NoPicturesError(problem)
        try:
            with safe_open(folder / artifact.path, framework="np") as file:
                start = int((file.metadata() or {})["start"])
                rows = file.get_slice(ADVERSARIAL)
                here = range(start, start + rows.get_shape()[0])
                for position in positions:
                    if position in here:
                        yield position, rows[position - start : position - start + 1][0]
        except (SafetensorError, KeyError, ValueError) as error:
            raise _NoPicturesError(f"{artifact.path} holds no adversarial inputs: {describe_error(error)}") from error


def _patches(record: CellRecord, artifacts: Sequence[Artifact], folder: Path, bounds: Bounds) -> Iterator[Picture]:
    """What was made for all samples; the files are those that adversarial inputs were read from."""
    for artifact in artifacts:
        for name, png in kept_patches(folder / artifact.path, bounds):
            title = "the patch on all of them"
            yield Picture(f"{record.cell.cell_id}-{name}.png", title, png, shows="The patch by itself")


def _clean_images(record: CellRecord, dataset: Dataset, positions: Sequence[int]) -> NDArray[np.float32]:
    """Clean inputs `[n, C, H, W]` at these positions of the cell."""
    indices = [record.cell.samples.indices[position] for position in positions]
    try:
        inputs: NDArray[np.float32] = dataset.load(indices).inputs.numpy()
    except Exception as error:  # as above
        raise _NoPicturesError(f"the data cannot be read here: {describe_error(error)}") from error
    if inputs.ndim != 4 or inputs.shape[1] not in CHANNELS:
        raise _NoPicturesError(f"inputs of shape {list(inputs.shape[1:])} are no images")
    return inputs


def _picture(
    record: CellRecord,
    outcomes: Outcomes,
    position: int,
    clean: NDArray[np.float32],
    attacked: NDArray[np.float32],
    bounds: Bounds,
    names: Sequence[str],
    masks: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> Picture:
    before, after = _described(outcomes, position, names)
    levels = [(one - bounds.low) / bounds.width for one in (clean, attacked)]
    shown = [_pixels(one) for one in levels]
    if masks is not None:
        shown = [mask_overlays.tinted(pixels, classes) for pixels, classes in zip(shown, masks, strict=True)]
    change = levels[1] - levels[0]
    factor = max(1, int(0.5 / max(float(np.abs(change).max()), 1e-6)))
    panels = (
        Panel(shown[0], ("clean", before.summary), before.marks),
        Panel(shown[1], ("under attack", after.summary), after.marks),
        Panel(_pixels(0.5 + factor * change), (f"change x {factor:,}" if change.any() else "no change",)),
    )
    sample_id = printable(record.cell.samples.sample_ids[position])
    return Picture(f"{record.cell.cell_id}-{position:05d}.png", sample_id, side_by_side(panels))


def _described(outcomes: Outcomes, position: int, names: Sequence[str]) -> tuple[Marked, Marked]:
    """What the model made of a sample before and after."""
    if detections_stored(outcomes.columns):
        return marked(outcomes.columns, position, "clean", names), marked(outcomes.columns, position, "robust", names)
    if "clean_right" in outcomes.columns:
        clean, attacked = mask_overlays.summaries(outcomes, position)
        return Marked((), clean), Marked((), attacked)
    right = bool(outcomes.clean_correct[position])
    after = "robust" if outcomes.robust[position] else "broken" if right else "wrong"
    return Marked((), "right" if right else "wrong"), Marked((), after)


def _pixels(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Shares of the range `[C, H, W]` to `[H, W, 3]`."""
    grey_levels = (levels.clip(0, 1) * 255).round().astype(np.uint8)
    return np.broadcast_to(grey_levels, (3, *grey_levels.shape[1:])).transpose(1, 2, 0).copy()
