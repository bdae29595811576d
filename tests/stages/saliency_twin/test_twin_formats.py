"""The twin of every format that the quantizers write: the file's logits to the last bit, and a map of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quantizable import CLASSES, float_proto, images, prepared_data, write_float_model

from foundation.artifacts import OnnxModel
from stages.compilers import COMPILERS, CompileTask
from stages.saliency_twin.twin_file import make_twin

FORMATS = {
    "fp16": ("fp16", {}),
    "dynamic": ("dynamic", {}),
    "weight-only int8": ("weight_only", {}),
    "weight-only int4": ("weight_only", {"bits": 4}),
    "static QDQ uint8": ("static", {"activation_type": "uint8"}),
    "static QDQ int8": ("static", {"activation_type": "int8", "weight_type": "int8"}),
    "static QOperator": ("static", {"format": "QOperator"}),
    "static per tensor": ("static", {"per_channel": False, "format": "QOperator"}),
}


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return write_float_model(Path(tmp_path_factory.mktemp("float")) / "fp32.onnx", float_proto())


def explained(session, path, batch):
    (plain,) = session(path).run(None, {"image": batch})
    feed = {"image": batch, "target": np.full(len(batch), -1)}
    logits, saliency, classes = session(make_twin(path, None, None, None)).run(None, feed)
    return plain, logits, saliency, classes


@pytest.mark.parametrize("name", FORMATS)
def test_a_compiled_file_keeps_its_logits_and_gets_a_map(name, float_model, tmp_path, session):
    method, settings = FORMATS[name]
    row = COMPILERS[method]
    sample = {"images": 8} if method == "static" else {}
    chosen = row.settings.model_validate(settings | sample)
    compiled = row.compile(CompileTask("v", chosen, float_model, prepared_data(), tmp_path / "v.onnx"))
    batch = images(4, 3)

    plain, logits, saliency, classes = explained(session, compiled.path, batch)

    assert np.array_equal(logits, plain)
    assert np.array_equal(classes, plain.argmax(axis=1))
    assert logits.shape == (4, len(CLASSES))
    assert saliency.shape == batch.shape
    assert saliency.dtype == np.float32
    # The same picture as the float file's, with another sign of some ReLUs: random maps would correlate by 0.01.
    _, _, reference, _ = explained(session, float_model.path, batch)
    assert np.corrcoef(saliency.ravel(), reference.ravel())[0, 1] > (0.75 if "int4" in name else 0.85)
