"""A file that another tool compiled is judged as it is."""

import numpy as np
import onnx
import onnxruntime.quantization as ort_quantization
import pytest
from foreign_files import CLASSES, classifier, write

from foundation.errors import UsageError
from onnx_files.sessions import open_session, predict
from stages.given.float_file import read_given_file, write_float_file
from stages.given.settings import GivenSettings, OnnxSettings
from stages.given.variant import take_given

IMAGES = np.random.default_rng(3).integers(0, 256, (12, 3, 24, 24), dtype=np.uint8)
INPUTS = (IMAGES.astype(np.float32) / 255 - 0.5) / 0.25


class Reader(ort_quantization.CalibrationDataReader):
    def __init__(self):
        self.rest = iter([{"image": INPUTS[index : index + 1]} for index in range(8)])

    def get_next(self):
        return next(self.rest, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    theirs = write(classifier(), folder / "theirs.onnx")
    settings = OnnxSettings(path=theirs, mean=(0.5,), std=(0.25,))
    baseline = write_float_file(read_given_file(settings, None, str), folder / "run" / "fp32.onnx").model
    quantized = folder / "quantized.onnx"
    ort_quantization.quantize_static(theirs, quantized, Reader())
    return baseline, quantized


def test_its_nodes_and_weights_stay_and_its_answers_are_its_own(files, tmp_path):
    baseline, quantized = files
    given = take_given(baseline, "ort", GivenSettings(path=quantized), tmp_path / "ort.onnx")
    before, after = onnx.load_model(quantized), onnx.load_model(given.path)
    assert after.graph == before.graph
    session = onnx_session(quantized)
    expected = session.run(None, {"image": INPUTS})[0]
    assert np.array_equal(predict(open_session(given.path, "cpu", 1), IMAGES, len(IMAGES)), expected)


def onnx_session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_its_own_preprocessing_counts_where_it_differs(files, tmp_path):
    baseline, quantized = files
    other = GivenSettings(path=quantized, mean=(0.0,), std=(1.0,))
    given = take_given(baseline, "ort", other, tmp_path / "ort.onnx")
    expected = onnx_session(quantized).run(None, {"image": IMAGES.astype(np.float32) / 255})[0]
    assert np.array_equal(predict(open_session(given.path, "cpu", 1), IMAGES, len(IMAGES)), expected)


def test_another_number_of_answers_is_refused(files, tmp_path):
    weights = {"w4": np.ones((CLASSES + 1, 128)), "b4": np.zeros(CLASSES + 1)}
    model = classifier(changed=weights)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = CLASSES + 1
    path = write(model, tmp_path / "six.onnx")
    with pytest.raises(UsageError, match=r"expected 5 classes as fp32\.onnx answers, found 6"):
        take_given(files[0], "six", GivenSettings(path=path), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_another_image_size_is_refused(files, tmp_path):
    path = write(classifier(size=(32, 32)), tmp_path / "larger.onnx")
    with pytest.raises(UsageError, match=r"expected images of 32 × 32 .*, found 24 × 24"):
        take_given(files[0], "larger", GivenSettings(path=path), tmp_path / "out.onnx")


def test_what_is_no_model_is_refused(files, tmp_path):
    path = tmp_path / "notes.onnx"
    path.write_text("no model")
    with pytest.raises(UsageError, match=r"notes\.onnx: expected an ONNX model"):
        take_given(files[0], "notes", GivenSettings(path=path), tmp_path / "out.onnx")
