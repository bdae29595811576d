"""The reader that ONNX Runtime's quantizers calibrate with."""

import numpy as np
import pytest

from calibration_data.preprocessing import Preprocessing
from calibration_data.readers import ArrayCalibrationReader
from pipeline.errors import UsageError

IMAGES = np.arange(5 * 3 * 2 * 2, dtype=np.uint8).reshape(5, 3, 2, 2)
PIXELS = Preprocessing("uint8", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 2)
FLOATS = Preprocessing("float32", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 2)


def read_all(reader):
    batches = []
    while (batch := reader.get_next()) is not None:
        batches.append(batch)
    return batches


def test_batches_are_complete_in_order_and_named():
    batches = read_all(ArrayCalibrationReader(IMAGES, PIXELS, batch_size=2, input_name="pixels"))
    assert [len(batch["pixels"]) for batch in batches] == [2, 2, 1]
    assert np.array_equal(np.concatenate([batch["pixels"] for batch in batches]), IMAGES)


def test_rewind_starts_again():
    reader = ArrayCalibrationReader(IMAGES, PIXELS, batch_size=4)
    assert len(read_all(reader)) == len(read_all(reader)) + 2 == 2
    reader.rewind()
    assert len(read_all(reader)) == len(reader) == 2


def test_a_float_model_gets_normalised_pixels():
    batch = ArrayCalibrationReader(np.full((1, 3, 2, 2), 51, dtype=np.uint8), FLOATS).get_next()
    assert batch is not None
    assert batch["image"].dtype == np.float32
    assert batch["image"] == pytest.approx((51 / 255 - 0.5) / 0.25, abs=1e-6)


def test_onnxruntime_takes_it_for_its_reader():
    from onnxruntime.quantization import CalibrationDataReader

    assert isinstance(ArrayCalibrationReader(IMAGES, PIXELS), CalibrationDataReader)


@pytest.mark.parametrize(("images", "batch_size"), [(IMAGES[:0], 1), (IMAGES, 0)])
def test_nothing_to_read_is_refused(images, batch_size):
    with pytest.raises(UsageError, match="expected calibration images and a batch size of 1 or more"):
        ArrayCalibrationReader(images, PIXELS, batch_size)
