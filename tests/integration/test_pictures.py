"""Pictures of single samples: clean, under attack, and the change; for `rbl show` and the report."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.cli.report import report
from robustbench_lab.cli.show import show
from robustbench_lab.errors import UsageError
from robustbench_lab.evaluation.evaluate_cell import ADVERSARIAL
from robustbench_lab.planning.run_plan import select_samples
from robustbench_lab.records import CellRecord, Outcomes
from robustbench_lab.report import report_pictures
from robustbench_lab.report.cell_pictures import CellPictures, PictureMaker
from robustbench_lab.report.detection_marks import marked
from robustbench_lab.report.html import render
from robustbench_lab.report.report_pictures import MOST_CELLS, ReportPictures
from robustbench_lab.report.side_by_side import GAP, LINE, SIDE, Colour, Mark, Panel, side_by_side
from robustbench_lab.result_store import Artifact, open_store
from robustbench_lab.result_store.artifact_files import write_artifacts
from robustbench_lab.testing.example_results import example_leaderboard, example_result

CATALOG = Catalog.from_plugins(load_plugins())
HEAD = 2 * LINE + GAP
HOSTILE = ["<script>alert(1)</script>", "'><img src=x onerror=alert(1)>", "a\nb\x1b[2J\x00", "$\\frac$", "名前 имя"]


def sheet(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def panels(png: bytes) -> list[np.ndarray]:
    """The three images without their titles."""
    whole = sheet(png)[HEAD:]
    width = (whole.shape[1] + GAP) // 3 - GAP
    return [whole[:, place * (width + GAP) :][:, :width] for place in range(3)]


# ---------------------------------------------------------------- a classifier's cell


def classifier_cell(
    folder: Path, *, robust: list[bool], clean: list[bool] | None = None
) -> tuple[CellRecord, torch.Tensor]:
    """A finished cell on random 8x6 grey images, and their clean inputs."""
    images = np.random.default_rng(0).integers(60, 190, (len(robust), 6, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(len(robust)))
    label = f"npz(path='{folder / 'data.npz'}')"
    record = example_result(robust, clean=clean, dataset=label)
    dataset = CATALOG.build("datasets", CATALOG.resolve("datasets", parse_component(label)))
    samples = select_samples(dataset, None, label)
    return replace(record, cell=replace(record.cell, samples=samples)), dataset.load(range(len(robust))).inputs


def saved(inputs: torch.Tensor, folder: Path, *, starts: tuple[int, ...] = (0,)) -> list[Artifact]:
    """Adversarial inputs as files, one for each unit."""
    ends = (*starts[1:], len(inputs))
    files = [
        save({ADVERSARIAL: inputs[start:end].contiguous()}, {"start": str(start)})
        for start, end in zip(starts, ends, strict=True)
    ]
    return write_artifacts(folder / "artifacts", "cell", files)


def made(record: CellRecord, files: list[Artifact], folder: Path, count: int = 6) -> CellPictures:
    return PictureMaker(CATALOG).of_cell(record, files, folder / "artifacts", count)


def test_panels_show_the_clean_image_the_attacked_one_and_the_change(tmp_path: Path) -> None:
    record, clean = classifier_cell(tmp_path, robust=[False])
    attacked = clean + 0.01
    attacked[0, 0, 0, 0] = clean[0, 0, 0, 0] - 0.02
    (picture,) = made(record, saved(attacked, tmp_path), tmp_path).pictures
    before, after, change = panels(picture.content)
    scale = SIDE // 8
    assert before.shape == (6 * scale, 8 * scale, 3)
    centres = np.s_[scale // 2 :: scale, scale // 2 :: scale, 0]
    assert np.array_equal(before[centres], (clean[0, 0].numpy() * 255).round())
    assert np.array_equal(after[centres], (attacked[0, 0].numpy() * 255).round())
    # The largest change is 0.02: amplified 25 times it fills the range, or 24 times where it is rounded up.
    wanted = 0.5 + 24.5 * (attacked - clean)[0, 0].numpy()
    np.testing.assert_allclose(change[centres] / 255, wanted, atol=0.015)
    assert picture.caption == "0"


def test_what_is_not_changed_is_grey(tmp_path: Path) -> None:
    record, clean = classifier_cell(tmp_path, robust=[True])
    (picture,) = made(record, saved(clean, tmp_path), tmp_path).pictures
    assert set(np.unique(panels(picture.content)[2])) == {128}


def test_broken_samples_come_first_and_each_with_its_own_input(tmp_path: Path) -> None:
    robust = [True, False, True, False, False]
    record, clean = classifier_cell(tmp_path, robust=robust, clean=[True, True, True, False, True])
    files = saved(1 - clean, tmp_path, starts=(0, 2, 3))
    pictures = made(record, files, tmp_path, count=3).pictures
    assert [one.caption for one in pictures] == ["1", "4", "0"]
    assert [one.file_name for one in pictures] == [f"{record.cell.cell_id}-{n:05d}.png" for n in (1, 4, 0)]
    for picture, position in zip(pictures, (1, 4, 0), strict=True):
        before, after, _ = panels(picture.content)
        assert np.array_equal(before[20::40, 20::40, 0], (clean[position, 0].numpy() * 255).round())
        assert np.array_equal(after[20::40, 20::40, 0], ((1 - clean[position, 0]).numpy() * 255).round())


def test_a_patch_for_all_is_a_picture_of_its_own_and_no_name_leads_elsewhere(tmp_path: Path) -> None:
    record, clean = classifier_cell(tmp_path, robust=[False])
    patch = torch.arange(12.0).reshape(3, 2, 2) / 20
    others = {name: patch.clone() for name in ("patch-../../x", "perturbation-2")}
    tensors = {ADVERSARIAL: clean, "patch-1": patch, "patch-3": patch[0].clone(), **others}
    files = write_artifacts(tmp_path / "artifacts", "cell", [save(tensors, {"start": "0"})])
    _, one = made(record, files, tmp_path).pictures
    assert one.file_name == f"{record.cell.cell_id}-patch-1.png"
    assert np.array_equal(sheet(one.content).transpose(2, 0, 1), (patch.numpy() * 255).round())


def test_large_images_are_made_smaller() -> None:
    pixels = np.zeros((400, 1000, 3), dtype=np.uint8)
    panel = Panel(pixels, ("one", "two"))
    assert sheet(side_by_side([panel] * 3)).shape == (HEAD + 128, 3 * SIDE + 2 * GAP, 3)


# ---------------------------------------------------------------- why there are none


def drop(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    return []


def change_file(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    path = folder / "artifacts" / files[0].path
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return files


def other_content(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    return write_artifacts(folder / "artifacts", "cell", [b"no safetensors"])


def other_tensor(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    return write_artifacts(folder / "artifacts", "cell", [save({"else": torch.zeros(1)}, {"start": "0"})])


def other_shape(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    return saved(torch.zeros(2, 3, 4, 4), folder)


def outside(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    return [replace(files[0], path="../data.npz")]


def remove_data(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    (folder / "data.npz").unlink()
    return files


def change_data(record: CellRecord, files: list[Artifact], folder: Path) -> list[Artifact]:
    np.savez(folder / "data.npz", images=np.zeros((2, 6, 8), np.uint8), labels=np.arange(2))
    return files


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop, "no adversarial inputs were saved: run it with --save-adversarials"),
        (change_file, "has changed"),
        (other_content, "holds no adversarial inputs"),
        (other_tensor, "holds no adversarial inputs"),
        (other_shape, "of another shape"),
        (outside, "is not inside of"),
        (remove_data, "the data cannot be read here: npz: there is no file"),
        (change_data, "does not hold here what was attacked"),
    ],
)
def test_the_reason_is_given_where_there_are_no_pictures(
    tmp_path: Path, damage: Callable[..., list[Artifact]], said: str
) -> None:
    record, clean = classifier_cell(tmp_path, robust=[False, True])
    files = damage(record, saved(clean, tmp_path), tmp_path)
    found = made(record, files, tmp_path)
    assert found.pictures == ()
    assert said in (found.remark or "")
    assert "\n" not in (found.remark or "")


def test_inputs_that_are_no_images_have_none(tmp_path: Path) -> None:
    (tmp_path / "series.py").write_text(
        "import torch\n"
        "from robustbench_lab import hookimpl\n"
        "from robustbench_lab.contracts import Bounds, DatasetSpec, Samples\n"
        "class Series:\n"
        "    bounds, classes, revision, sample_ids = Bounds(), 2, '1', ['a', 'b']\n"
        "    def load(self, indices):\n"
        "        return Samples(torch.zeros(len(indices), 24), torch.zeros(len(indices)))\n"
        "@hookimpl\n"
        "def rbl_datasets():\n"
        "    return [DatasetSpec(name='series', factory=Series)]\n"
    )
    catalog = Catalog.from_plugins(load_plugins([str(tmp_path / "series.py")]))
    record = example_result([False, False], dataset="series")
    dataset = catalog.build("datasets", catalog.resolve("datasets", parse_component("series")))
    record = replace(record, cell=replace(record.cell, samples=select_samples(dataset, None, "series")))
    found = PictureMaker(catalog).of_cell(record, saved(torch.zeros(2, 24), tmp_path), tmp_path / "artifacts", 3)
    assert found.remark == "inputs of shape [24] are no images"


# ---------------------------------------------------------------- a detector's boxes


def detection_columns(**changed: Any) -> dict[str, np.ndarray]:
    """One image: a cat that is found, a dog that is missed, a crowd; a wrong label, an invention, a faint detection."""
    columns = {
        "object_boxes": [[[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 60, 20], [0, 40, 10, 50]]],
        "object_labels": [[1, 2, 1, 2]],
        "object_crowd": [[False, False, True, False]],
        "clean_boxes": [[[0, 0, 10, 9], [0, 40, 10, 50], [80, 80, 90, 90], [42, 2, 50, 10], [20, 0, 30, 10]]],
        "clean_scores": [[0.9, 0.8, 0.7, 0.6, 0.3]],
        "clean_labels": [[1, 1, 2, 1, 2]],
        "robust_boxes": np.zeros((1, 0, 4)),
        "robust_scores": np.zeros((1, 0)),
        "robust_labels": np.zeros((1, 0)),
    }
    types = {"boxes": np.float32, "scores": np.float32, "labels": np.int16, "crowd": np.bool_}
    return {name: np.array(one, types[name.split("_")[1]]) for name, one in (columns | changed).items()}


def test_boxes_are_right_wrong_or_missed() -> None:
    found = marked(detection_columns(), 0, "clean", ["cat", "dog"])
    assert [(mark.tag, mark.colour) for mark in found.marks] == [
        ("cat 0.90", Colour.RIGHT),
        ("cat 0.80", Colour.WRONG),  # it is a dog
        ("dog 0.70", Colour.WRONG),
        ("cat 0.60", Colour.RIGHT),  # in a crowd
        ("dog", Colour.MISSED),
        ("dog", Colour.MISSED),
    ]
    assert found.marks[0].box == (0, 0, 10, 9)
    assert found.summary == "1 of 3 objects found, 2 false positives"


def test_without_any_detection_every_object_is_missed() -> None:
    found = marked(detection_columns(), 0, "robust", ["cat"])
    assert [mark.tag for mark in found.marks] == ["cat", "class 1", "class 1"]
    assert found.summary == "0 of 3 objects found, 0 false positives"


def test_boxes_are_drawn_where_they_are_in_their_colours() -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    marks = (Mark((10, 20, 60, 80), Colour.WRONG, ""), Mark((30, 30, 95, 95), Colour.MISSED, ""))
    drawn = sheet(side_by_side([Panel(pixels, ("title",), marks)]))[LINE + GAP :]
    for colour, (left, top, right, bottom) in ((Colour.WRONG, (10, 20, 60, 80)), (Colour.MISSED, (30, 30, 95, 95))):
        rows, columns = np.nonzero((drawn == colour.value).all(2))
        edges = columns.min() / 3, rows.min() / 3, columns.max() / 3, rows.max() / 3  # enlarged 3 times
        np.testing.assert_allclose(edges, (left, top, right, bottom), atol=6 / 3)
    solid, dashed = ((drawn == colour.value).all(2).sum() for colour in (Colour.WRONG, Colour.MISSED))
    assert dashed < 0.7 * solid * (65 + 65) / (50 + 60)


@pytest.mark.parametrize("name", HOSTILE)
def test_any_class_name_can_be_drawn(name: str) -> None:
    found = marked(detection_columns(), 0, "clean", [name * 20, name])
    png = side_by_side([Panel(np.zeros((30, 30, 3), dtype=np.uint8), (name, name * 20), found.marks)])
    assert png.startswith(b"\x89PNG")


def test_a_flood_of_boxes_can_be_drawn() -> None:
    marks = tuple(Mark((n, -5, n + 400, 2 * n), Colour.WRONG, f"box {n}") for n in range(300))
    png = side_by_side([Panel(np.zeros((40, 60, 3), dtype=np.uint8), ("flood",), marks)])
    assert png.startswith(b"\x89PNG")


def test_a_detectors_pictures_carry_a_legend(tmp_path: Path) -> None:
    record, clean = classifier_cell(tmp_path, robust=[False])
    assert record.outcomes is not None
    outcomes = Outcomes(
        record.outcomes.clean_correct, record.outcomes.robust, record.outcomes.distance, detection_columns()
    )
    found = made(replace(record, outcomes=outcomes), saved(clean, tmp_path), tmp_path)
    assert "Dashed yellow" in found.legend
    assert len(found.pictures) == 1


# ---------------------------------------------------------------- the commands and the page


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [key for key, _ in attrs]
        self.sources += [value or "" for key, value in attrs if key == "src"]


def stored(folder: Path, *, adversarials: bool) -> tuple[str, CellRecord]:
    """A database with one classifier's cell."""
    record, clean = classifier_cell(folder, robust=[False, True])
    database = str(folder / "rbl.db")
    files = [save({ADVERSARIAL: 1 - clean}, {"start": "0"})] if adversarials else []
    with open_store(database) as store:
        store.save_cell(record, store.begin_run(["rbl"], {}, {}), files)
    return database, record


def test_show_writes_a_file_for_each_picture(in_tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, record = stored(in_tmp_path, adversarials=True)
    show(record.cell.cell_id, pictures=in_tmp_path / "new" / "folder", db=database)
    names = {f"{record.cell.cell_id}-{number:05d}.png" for number in (0, 1)}
    assert {file.name for file in (in_tmp_path / "new" / "folder").iterdir()} == names
    said = capsys.readouterr()
    assert all(name in said.err for name in names)
    assert record.cell.cell_id in said.out


def test_show_says_what_to_do_where_no_inputs_were_saved(in_tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, record = stored(in_tmp_path, adversarials=False)
    with pytest.raises(UsageError, match="run it with --save-adversarials"):
        show(record.cell.cell_id, pictures=in_tmp_path / "pictures", db=database)
    assert record.cell.cell_id in capsys.readouterr().out  # the rest is shown
    assert not (in_tmp_path / "pictures").exists()


def test_show_names_a_folder_that_cannot_be_written(in_tmp_path: Path) -> None:
    database, record = stored(in_tmp_path, adversarials=True)
    (in_tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="name another folder"):
        show(record.cell.cell_id, pictures=in_tmp_path / "file", db=database)


def test_the_report_holds_the_pictures_themselves(in_tmp_path: Path) -> None:
    database, _ = stored(in_tmp_path, adversarials=True)
    report(out=in_tmp_path / "report", db=database)
    text = (in_tmp_path / "report" / "index.html").read_text()
    sources = Page(text).sources
    assert len(sources) == 2
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        sheet(base64.b64decode(source.partition(",")[2]))
    assert "img-src data:" in text
    report(out=in_tmp_path / "without", db=database, pictures=0)
    assert Page((in_tmp_path / "without" / "index.html").read_text()).sources == []


def test_a_report_without_saved_inputs_has_no_pictures(in_tmp_path: Path) -> None:
    database, _ = stored(in_tmp_path, adversarials=False)
    report(out=in_tmp_path / "report", db=database)
    text = (in_tmp_path / "report" / "index.html").read_text()
    assert "<h2>Pictures</h2>" not in text
    assert Page(text).sources == []


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_gets_out_of_its_place_on_the_page(tmp_path: Path, name: str) -> None:
    record, clean = classifier_cell(tmp_path, robust=[False])
    found = made(record, saved(clean, tmp_path), tmp_path)
    hostile = replace(record, cell=replace(record.cell, model=replace(record.cell.model, label=name)))
    pictures = tuple(replace(one, caption=name) for one in found.pictures)
    shown = (CellPictures(hostile, pictures, name), CellPictures(hostile, (), remark=name))
    text = render(example_leaderboard([record]), {}, ReportPictures(shown, 3))
    page = Page(re.sub(r"(?s)<svg.*?</svg>", "", text))
    assert page.tags.count("img") == 1
    assert "script" not in page.tags
    assert not any(key.startswith("on") for key in page.attributes)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_a_large_report_is_limited_and_says_so(tmp_path: Path) -> None:
    record, clean = classifier_cell(tmp_path, robust=[False])
    files = saved(clean, tmp_path)
    records = [replace(record, cell=replace(record.cell, cell_id=f"{number:016d}")) for number in range(MOST_CELLS + 2)]
    artifacts = {one.cell.cell_id: files for one in records}
    found = report_pictures.report_pictures(records, artifacts, tmp_path / "artifacts", CATALOG, 1)
    assert (len(found.cells), found.left_out) == (MOST_CELLS, 2)
    text = render(example_leaderboard([record]), {}, found)
    assert "2 more results with saved inputs are not" in " ".join(text.split())
