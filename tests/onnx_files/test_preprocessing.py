"""What an ONNX file's metadata says of its input: written, read back, and refused where it makes no sense."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onnx_files.preprocessing import METADATA_KEY, Preprocessing

SQUARE = Preprocessing("float32", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), 32)
WIDE = Preprocessing("uint8", (0.5,), (0.2,), 32, 48, "NHWC")


@pytest.mark.parametrize("preprocessing", [SQUARE, WIDE])
def test_metadata_comes_back(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_metadata(preprocessing.to_metadata()) == preprocessing


def test_square_images_are_written_as_they_always_were() -> None:
    assert json.loads(SQUARE.to_metadata()[METADATA_KEY]) == {
        "input_type": "float32",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.1],
        "image_size": 32,
    }


def test_channels_last() -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    pixels = Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, 4, 5, "NHWC").to_input(images)
    assert pixels.shape == (2, 4, 5, 3)
    assert pixels[1, 2, 3, 1] == images[1, 1, 2, 3]
    floats = Preprocessing("float32", (0.0, 0.1, 0.2), (1.0, 0.5, 1.0), 4, 5, "NHWC").to_input(images)
    assert floats[1, 2, 3, 1] == pytest.approx((images[1, 1, 2, 3] / 255 - 0.1) / 0.5)
    assert floats.flags.c_contiguous


@pytest.mark.parametrize(
    "changed",
    [
        {"input_type": "float16"},
        {"mean": [0.5]},
        {"mean": [0.5, 0.5, "x"]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"std": [0.1, 0.1, 0.0]},
        {"std": None},
        {"image_size": 0},
        {"image_size": "32"},
        {"image_size": None},
        {"image_width": -1},
        {"layout": "CHWN"},
    ],
)
def test_metadata_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    values = json.loads(SQUARE.to_metadata()[METADATA_KEY]) | changed
    with pytest.raises(ValueError, match=r"expected what edgeproof writes into `edgeproof\.preprocessing`"):
        Preprocessing.from_metadata({METADATA_KEY: json.dumps(values)})


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", "[" * 100_000])
def test_other_content_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected what edgeproof writes"):
        Preprocessing.from_metadata({METADATA_KEY: text})
