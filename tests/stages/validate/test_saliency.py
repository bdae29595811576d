from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundation.explanations import Explanations
from stages.validate.maps.methods import SALIENCY_METHODS
from stages.validate.saliency import SaliencySettings, explain


def test_explanations_come_back_and_have_the_same_bytes_twice(tmp_path: Path) -> None:
    path = tmp_path / "saliency" / "fp32.npz"
    maps = np.random.default_rng(0).random((5, 8, 8), dtype=np.float32)
    found = Explanations("fp32", maps, np.array([1, 4, 5, 7, 8]), np.array([0, 2, 1, 1, 0]), path)
    found.write()
    first = path.read_bytes()
    found.write()
    assert path.read_bytes() == first
    again = Explanations.read("fp32", path)
    assert (again.maps == maps).all()
    assert again.image_index.tolist() == [1, 4, 5, 7, 8]
    assert again.target.tolist() == [0, 2, 1, 1, 0]


def test_some_images_at_a_time_give_the_maps_of_all() -> None:
    """Seven images three at a time: each is asked once, with its own class, and the last call is the short one."""
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8)
    targets, seen, asked = np.arange(7), [], []

    def explainer(part: np.ndarray, classes: np.ndarray) -> np.ndarray:
        asked.append(len(part))
        return (part[:, 0] + classes[:, None, None]).astype(np.float32)

    maps = explain(explainer, images, targets, 3, lambda done, total: seen.append((done, total)))
    assert (maps == images[:, 0] + targets[:, None, None]).all()
    assert asked == [3, 3, 1]
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_every_row_of_the_table_of_methods_can_be_asked_for() -> None:
    text = json.dumps({"methods": list(SALIENCY_METHODS)})
    assert SaliencySettings.model_validate_json(text).methods == tuple(SALIENCY_METHODS)
    assert SaliencySettings().methods == ("occlusion", "gradient")


@pytest.mark.parametrize(
    ("methods", "message"),
    [(["gradients"], "'gradient', 'gradient_x_input'"), (["rise", "rise"], "'rise' twice"), ([], "at least 1 item")],
)
def test_methods_that_make_no_sense_are_refused(methods: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SaliencySettings.model_validate_json(json.dumps({"methods": methods}))


@given(st.integers(1, 300), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_patches_of_any_setting_cover_every_pixel(size: int, patch_share: float, stride_share: float) -> None:
    settings = SaliencySettings(patch_share=patch_share, stride_share=stride_share)
    patch, stride = settings.patch(size), settings.stride(size)
    assert 1 <= stride <= patch <= size
