"""What every row of `COMPILERS` keeps to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration_data.prepared import PreparedData, PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.errors import NotMeasuredError, UsageError
from foundation.files import sha256_of_file
from onnx_files.preprocessing import Preprocessing
from stages.compilers import COMPILERS, CompileTask
from stages.quantize.neural_compressor.environment import worker_python

IN_A_WORKER = ("neural_compressor", "graph_optimized")
METHODS = [
    pytest.param(method, marks=[pytest.mark.long] if method == "neural_compressor" else [])
    for method, row in COMPILERS.items()
    if row.starts_from == "float_file" and method != "tuned"  # which needs a twin, and has tests of its own
]
CLASSES = ("a", "b", "c")
# Settings of the smallest run; every other setting keeps its default.
SMALL: dict[str, dict[str, object]] = {
    "static": {"images": 8},
    "weight_only": {"smallest_layer": 0},
    "neural_compressor": {"images": 8, "mode": "static"},
}

GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
small (uint8[batch, 3, 8, 8] image) => (float[batch, 3] logits) {
    pixels = Cast <to = 1> (image)
    normalised = Mul (pixels, slope)
    c1 = Conv <pads = [1, 1, 1, 1]> (normalised, w1, b1)
    a1 = Clip (c1, zero, alpha)
    c2 = Conv <pads = [1, 1, 1, 1], group = 8> (a1, w2, b2)
    a2 = Relu (c2)
    pooled = GlobalAveragePool (a2)
    features = Flatten (pooled)
    logits = Gemm <transB = 1> (features, w3, b3)
}
"""


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    rng = np.random.default_rng(0)
    constants = {"slope": np.full((1, 3, 1, 1), 1 / 128), "zero": np.array(0.0), "alpha": np.array(2.0)}
    for index, shape in enumerate([(8, 3, 3, 3), (8, 1, 3, 3), (3, 8)], start=1):
        constants[f"w{index}"] = rng.normal(0, 0.5, shape)
        constants[f"b{index}"] = rng.normal(0, 0.1, shape[0])
    proto = onnx.parser.parse_model(GRAPH)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    metadata = {
        **Preprocessing("uint8", (0.0,) * 3, (0.5,) * 3, 8).to_metadata(),
        "edgeproof.classes": json.dumps(CLASSES),
        "edgeproof.variant": "fp32",
        "edgeproof.parent_sha256": "1" * 64,
        "edgeproof.tools": json.dumps({"torch": "2.13.0"}),
    }
    onnx.helper.set_model_props(proto, metadata)
    path = tmp_path_factory.mktemp("float") / "fp32.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return OnnxModel("fp32", path, sha256_of_file(path), "1" * 64)


@pytest.fixture(scope="module")
def data() -> PreparedData:
    rng = np.random.default_rng(1)

    def split(name: str, n: int) -> PreparedSplit:
        names = tuple(f"{name}-{index}" for index in range(n))
        pixels = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
        labels = np.arange(n, dtype=np.int64) % len(CLASSES)
        masks, has_mask = np.zeros((n, 8, 8), dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        return PreparedSplit(pixels, labels, masks, has_mask, np.full(n, -1), names, names, ((),) * n, names)

    splits = (split("train", 12), split("validation", 7), split("test", 5))
    return PreparedData("noise", CLASSES, (0.0,) * 3, (0.5,) * 3, True, (), "0" * 64, *splits)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name in IN_A_WORKER:
        try:
            worker_python()
        except NotMeasuredError as error:
            pytest.skip(str(error))
    return name


def test_the_settings_hold_the_key_and_describe_every_field() -> None:
    for key, row in COMPILERS.items():
        assert row.settings.model_fields["method"].default == key
        assert row.notes.model_fields["method"].default == key
        assert all(field.description for field in row.settings.model_fields.values())
        assert row.description


def test_a_compiled_file_keeps_the_form_of_its_source(
    method: str, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    row = COMPILERS[method]
    settings = row.settings.model_validate(SMALL.get(method, {}))
    told: list[tuple[int, int]] = []
    folders = [tmp_path / "first", tmp_path / "second"]
    first, second = (
        row.compile(
            CompileTask(
                "variant", settings, float_model, data, folder / "v.onnx", progress=lambda *step: told.append(step)
            )
        )
        for folder in folders
    )

    # The artifact, its record, and nothing else but ranges for the next variant.
    assert (first.variant, first.notes.method, first.parent_sha256) == ("variant", method, float_model.sha256)
    assert type(first.notes) is row.notes
    assert first.sha256 == sha256_of_file(first.path)
    assert OnnxModel.read(first.path) == first
    assert first.settings == settings.model_dump(mode="json")
    assert sorted(path.name for path in folders[0].iterdir() if path.name != "ranges") == ["v.json", "v.onnx"]
    assert told[-1][0] == told[-1][1] >= 1

    # The same arguments give the same bytes.
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.record_path.read_bytes() == second.record_path.read_bytes()

    # The form of the file.
    original, compiled = onnx.load_model(float_model.path), onnx.load_model(first.path)
    onnx.checker.check_model(compiled, full_check=True)
    assert list(compiled.graph.input) == list(original.graph.input)
    assert list(compiled.graph.output) == list(original.graph.output)
    assert compiled.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.domain: entry.version for entry in compiled.opset_import}[""] == 21
    assert compiled.ir_version == original.ir_version

    # Its metadata.
    before = {entry.key: entry.value for entry in original.metadata_props}
    after = {entry.key: entry.value for entry in compiled.metadata_props}
    assert after["edgeproof.variant"] == "variant"
    assert after["edgeproof.parent_sha256"] == float_model.sha256
    tools = json.loads(after["edgeproof.tools"])
    assert tools["torch"] == "2.13.0"
    assert tools["onnxruntime"]
    unchanged = ("edgeproof.preprocessing", "edgeproof.classes")
    assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}

    # Any number of images at once, on the CPU provider, with answers like the source's.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    float_session, session = (
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for path in (float_model.path, first.path)
    )
    for pixels in (data.test.images, data.validation.images[:1]):
        expected = float_session.run(None, {"image": pixels})[0]
        found = session.run(None, {"image": pixels})[0]
        assert found.dtype == np.float32
        assert found.shape == (len(pixels), len(CLASSES))
        noise = np.sum((found - expected) ** 2)
        assert noise < 10**-2 * np.sum(expected**2)  # better than 20 dB


def test_a_file_that_is_no_model_leaves_nothing(method: str, data: PreparedData, tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_text("these are no weights")
    model = OnnxModel("fp32", source, "0" * 64, None)
    row = COMPILERS[method]
    settings = row.settings.model_validate(SMALL.get(method, {}))
    with pytest.raises(UsageError, match=r"notes\.txt: expected an ONNX model, found something else"):
        row.compile(CompileTask("variant", settings, model, data, tmp_path / "out" / "v.onnx"))
    assert not (tmp_path / "out").exists()
