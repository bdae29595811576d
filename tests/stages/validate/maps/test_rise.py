from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from onnx_files.preprocessing import Preprocessing
from onnx_files.sessions import open_session
from stages.validate.maps.bilinear import bilinear
from stages.validate.maps.rise import draw_masks, rise_maps

FILL = np.array([0], dtype=np.uint8)
BATCH = 64


@pytest.mark.parametrize(("cells", "pixels"), [(3, 12), (7, 50), (4, 4), (5, 3), (1, 6)])
def test_the_interpolation_is_torchs(cells, pixels):
    rows = np.random.default_rng(0).normal(size=(1, 1, cells))
    expected = F.interpolate(torch.from_numpy(rows), pixels, mode="linear", align_corners=False).numpy()
    assert bilinear(cells, pixels) @ rows[0, 0] == pytest.approx(expected[0, 0])


@given(st.integers(1, 40), st.integers(1, 300))
def test_a_flat_map_stays_flat(cells, pixels):
    weights = bilinear(cells, pixels)
    assert weights.min() >= 0
    assert weights.sum(axis=1) == pytest.approx(np.ones(pixels))


def test_masks_are_the_papers_grids_drawn_too_large_and_shifted():
    drawn = draw_masks(40, 3, 0.5, 0, (10, 12))
    masks = drawn.between(0, 40)
    assert masks.shape == (40, 10, 12)
    # Cells of 4 pixels each way: the grid of 3 is drawn over 16, and 10 by 12 of them are cut out.
    large = F.interpolate(torch.from_numpy(drawn.kept[:, None].astype(float)), (16, 16), mode="bilinear")[
        :, 0
    ].numpy()
    for mask, full, (row, column) in zip(masks, large, drawn.shift, strict=True):
        assert mask == pytest.approx(full[row : row + 10, column : column + 12])
    assert set(drawn.shift.ravel().tolist()) == {0, 1, 2, 3}
    assert drawn.between(30, 999) == pytest.approx(masks[30:])
    assert draw_masks(4000, 7, 0.3, 0, (28, 28)).between(0, 4000).mean() == pytest.approx(0.3, abs=0.01)


@pytest.fixture
def one_pixel(tmp_path):
    """A file whose probability of label 0 is 0.25 + 0.5 · pixel (2, 5) / 255, and of label 1 is 0.7."""
    size = 8
    place = np.zeros((1, 1, size, size), dtype=np.float32)
    place[0, 0, 2, 5] = 0.5 / 255
    constants = {
        "place": place,
        "axes": np.array([1, 2, 3]),
        "shape": np.array([-1, 1]),
        "quarter": np.float32(0.25),
        "one": np.float32(1),
        "zero": np.float32(0),
        "rest": np.float32(np.log(0.7 / 0.3)),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "place"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "quarter"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Div", ["p", "q"], ["odds"]),
        helper.make_node("Log", ["odds"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["first"]),
        helper.make_node("Mul", ["first", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "rest"], ["second"]),
        helper.make_node("Concat", ["first", "second"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "one pixel",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, Preprocessing("uint8", (0.0,), (1.0,), size).to_metadata())
    onnx.save(model, tmp_path / "one-pixel.onnx")
    return open_session(tmp_path / "one-pixel.onnx", "cpu", 1)


def rise(session, image, target, masks, **changes):
    arguments = {"cells": 4, "kept_share": 0.4, "fill": FILL, "batch_size": BATCH, "seed": 3} | changes
    return rise_maps(session, image, np.array([target]), "multi_label", masks, **arguments)[0]


def test_of_a_linear_answer_the_map_is_its_conditional_mean(one_pixel):
    """With f = a + b·M(x₀) the map tends to E[f·M(x)] / E[M(x)] = a + b·(p + cov(M(x₀), M(x)) / p).

    Cells are independent with variance p(1 − p), so the covariance is p(1 − p) times the overlap of two pixels'
    weights in the grid, averaged over the shifts.
    """
    image = np.full((1, 1, 8, 8), 255, dtype=np.uint8)
    p, a, b = 0.4, 0.25, 0.5
    found = rise(one_pixel, image, 0, 20_000)
    weights = (
        F.interpolate(torch.eye(4, dtype=torch.float64)[None], 10, mode="linear")[0].numpy().T
    )  # [pixels, cells]
    # One axis at a time: 8 pixels in cells of 2, shifted by 0 or 1.
    along = {
        place: np.mean([weights[by : by + 8] @ weights[by + place] for by in (0, 1)], axis=0) for place in (2, 5)
    }
    # The mask's mean is p everywhere, since each pixel's weights add up to 1.
    expected = a + b * (p + (1 - p) * np.outer(along[2], along[5]))
    assert found == pytest.approx(expected, abs=0.006)
    assert expected.max() - expected.min() > 0.1
    assert np.unravel_index(found.argmax(), found.shape) in {(2, 5), (2, 4), (3, 5), (3, 4), (2, 6), (1, 5)}


def test_an_answer_that_no_mask_changes_gives_a_flat_map(one_pixel):
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    assert rise(one_pixel, image, 1, 50) == pytest.approx(np.full((8, 8), 0.7), abs=1e-6)


def test_what_is_hidden_turns_to_the_fill(one_pixel):
    """An image of the fill's colour looks the same behind every mask."""
    image = np.full((1, 1, 8, 8), 51, dtype=np.uint8)
    found = rise(one_pixel, image, 0, 50, fill=np.array([51], dtype=np.uint8))
    assert found == pytest.approx(np.full((8, 8), 0.25 + 0.5 * 0.2), abs=1e-6)


def test_batches_and_seeds(one_pixel):
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    once = rise(one_pixel, image, 0, 50)
    assert rise(one_pixel, image, 0, 50, batch_size=7) == pytest.approx(once, rel=1e-6)
    assert (rise(one_pixel, image, 0, 50) == once).all()
    assert (rise(one_pixel, image, 0, 50, seed=4) != once).any()


def test_a_class_has_its_probability_by_softmax(one_pixel):
    image = np.full((1, 1, 8, 8), 0, dtype=np.uint8)
    arguments = (20, 4, 0.5, FILL, BATCH, 0)
    found = rise_maps(one_pixel, image, np.array([1]), "multi_class", *arguments)
    odds = (0.7 / 0.3) / (0.25 / 0.75)
    assert found == pytest.approx(np.full((1, 8, 8), odds / (1 + odds)), abs=1e-6)
