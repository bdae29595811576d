"""Small files that went wrong once, each of a kind: what comes of them is right, or a sentence says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from foundation.errors import UsageError
from foundation.progress import Silent
from pipeline.one_file import compile_file as one_file
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.options import request_for
from pipeline.one_file.speed import Speed
from stages.saliency_twin.twin_file import make_twin

CASES = Path(__file__).parents[2] / "shared" / "cases"
FILES = sorted((CASES / "onnx").glob("*.onnx"))
NO_TWIN = {"b16_no_shapes": "length of 1 or more|fixed length"}
NO_STATIC = {"a17_only_left_matmul": "weight on its left", "e05_fp16_keep_io": "float weights"}
LEAST_DB = 25.0

pytestmark = pytest.mark.skipif(not FILES, reason="../shared/cases is not there")


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no times: a file has to be right, not to be excused by being slow."""
    not_timed = Speed(None, None, 0, "not asked for")
    monkeypatch.setattr(one_file, "measure_speed", lambda _, compiled, *asked: (not_timed,) * len(compiled))


def float_outputs(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.output if value.type.tensor_type.elem_type in (1, 10)]


@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_twin_is_right_or_refused_by_name(path: Path, tmp_path: Path) -> None:
    model = onnx.load_model(path)
    name = float_outputs(model)[0] if len(model.graph.output) > 1 else None
    if path.stem in NO_TWIN:
        with pytest.raises(UsageError, match=NO_TWIN[path.stem]):
            make_twin(path, tmp_path / "twin.onnx", None, name)
        return
    twin = onnxruntime.InferenceSession(str(make_twin(path, tmp_path / "twin.onnx", None, name)))
    weights = {tensor.name for tensor in model.graph.initializer}
    (entry,) = (value for value in model.graph.input if value.name not in weights)
    shape = [size.dim_value or 1 for size in entry.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    saliency = twin.run(["saliency"], {entry.name: x, "target": np.zeros(shape[0], np.int64)})[0]
    assert np.isfinite(saliency).all()
    assert np.abs(saliency).max() > 0


@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_static_file_is_right_or_says_that_it_is_worse(path: Path, tmp_path: Path) -> None:
    model = onnx.load_model(path)
    outputs = float_outputs(model)
    options = {
        "images": CASES / "images", "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225", "limit": 24,
        "method": "static", "fit": "stretch", "output": tmp_path / "out.onnx",
        "answer_output": outputs[0] if len(outputs) > 1 else None,
        "image_size": "32" if path.stem == "b16_no_shapes" else None,
    }  # fmt: skip
    request = request_for(path, options)
    if path.stem in NO_STATIC:
        with pytest.raises(UsageError, match=NO_STATIC[path.stem]):
            compile_file(request, Silent())
        return
    found = compile_file(request, Silent())
    assert found.agreement is not None
    assert found.worse or all(db is None or db >= LEAST_DB for db in found.agreement.outputs_db.values())


@pytest.mark.long
def test_uneven_weights_of_four_bits_keep_what_blocks_of_32_with_a_zero_can(tmp_path: Path) -> None:
    options = {
        "images": CASES / "images", "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225", "limit": 24,
        "method": "weight-only", "bits": 4, "fit": "stretch", "output": tmp_path / "out.onnx",
    }  # fmt: skip
    request = request_for(CASES / "onnx" / "c24_big_matmul_transposed_weight.onnx", options)
    found = compile_file(request, Silent())
    assert found.agreement is not None
    assert min(db for db in found.agreement.outputs_db.values() if db is not None) >= 14  # 12.9 without a zero
