"""Images of any size on one canvas, and their boxes with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rbl_detection_data.letterbox import GREY, Letterbox, canvas_of
from robustbench_lab.errors import UsageError

SIDES = st.tuples(st.integers(1, 900), st.integers(1, 900))


@given(image=SIDES, canvas=SIDES, corners=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_on_the_canvas_goes_back_to_where_it_was(
    image: tuple[int, int], canvas: tuple[int, int], corners: list[float]
) -> None:
    letterbox = Letterbox(image, canvas)
    boxes = np.array([corners]) * np.tile(image, 2)
    np.testing.assert_allclose(letterbox.to_image(letterbox.to_canvas(boxes)), boxes, rtol=1e-12)


@given(image=SIDES, canvas=SIDES)
def test_the_image_fills_one_side_of_the_canvas_and_keeps_its_aspect(
    image: tuple[int, int], canvas: tuple[int, int]
) -> None:
    content = Letterbox(image, canvas).content
    assert all(1 <= side <= room for side, room in zip(content, canvas, strict=True))
    assert content[0] == canvas[0] or content[1] == canvas[1]
    scale = min(canvas[0] / image[0], canvas[1] / image[1])
    assert all(abs(side - scale * was) <= 0.5 or side == 1 for side, was in zip(content, image, strict=True))


@given(image=SIDES, canvas=SIDES)
def test_the_box_of_the_whole_image_is_the_resized_image(image: tuple[int, int], canvas: tuple[int, int]) -> None:
    letterbox = Letterbox(image, canvas)
    whole = letterbox.to_canvas(np.array([[0.0, 0.0, *image]]))
    np.testing.assert_allclose(whole, [[0, 0, *letterbox.content]], rtol=1e-12)


def test_a_painted_rectangle_lies_in_its_mapped_box() -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[10:30, 15:45] = 255
    letterbox = Letterbox((60, 40), (120, 100))
    canvas = letterbox.place(Image.fromarray(pixels))
    left, top, right, bottom = letterbox.to_canvas(np.array([[15.0, 10.0, 45.0, 30.0]]))[0]
    assert (left, top, right, bottom) == (30, 20, 90, 60)
    rows, columns = np.nonzero(canvas[:80, :, 0] > 127)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (30, 20, 90, 60)


def test_padding_is_grey_at_the_right_or_at_the_bottom() -> None:
    white = Image.new("RGB", (20, 10), (255, 255, 255))
    canvas = Letterbox((20, 10), (40, 40)).place(white)
    assert canvas.shape == (40, 40, 3)
    assert (canvas[:20] == 255).all()
    assert (canvas[20:] == GREY).all()


def test_an_image_of_the_canvas_size_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    assert np.array_equal(Letterbox((20, 12), (20, 12)).place(Image.fromarray(pixels)), pixels)


def test_the_canvas_is_a_square_or_height_and_width() -> None:
    assert canvas_of(640, "data") == (640, 640)
    assert canvas_of([480, 640], "data") == (640, 480)
    for wrong in (0, [640], [480, 640, 3], [480, 0]):
        with pytest.raises(UsageError, match=r"number of pixels or \[height, width\]"):
            canvas_of(wrong, "data")
