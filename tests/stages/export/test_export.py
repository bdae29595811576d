"""What is exported answers like the network: float exactly, integers like its own fake quantization."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from foundation.errors import StageError, UsageError
from foundation.run_folder import RunFolder
from stages.export.pact_to_qdq import MAX_DIFFERENCE, export_pact, may_saturate, to_integers
from stages.export.settings import ExportSettings, PactExportSettings
from stages.export.to_onnx import export_fp32
from stages.network.checkpoint import load_checkpoint
from stages.network.normalisation import normalise
from stages.network.quantized_layer import QuantizedLayer
from stages.network.quantizers import clip_bounds, set_rounding
from stages.train.settings import AugmentSettings, TrainSettings
from stages.train.trainer import train

SAFE = PactExportSettings(target="x86-avx2")  # exact on every processor


@pytest.fixture(scope="module", params=["cnn-small", "resnet8"])
def trained(request, stripes, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp(request.param))
    settings = TrainSettings(
        threads=1, network=request.param, epochs=2, batch_size=24, augment=AugmentSettings(flip="none")
    )
    return train(stripes, settings, run, "key"), run


@pytest.fixture(scope="module")
def float_model(trained):
    checkpoint, run = trained
    return export_fp32(checkpoint, ExportSettings(), run.fp32)


@pytest.fixture(scope="module")
def integer_model(trained, stripes):
    checkpoint, run = trained
    return export_pact(checkpoint, "pact-int8", SAFE, ExportSettings(), stripes.test.images, run.model("pact-int8"))


def run_onnx(path, images, **options):
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    for name, value in options.items():
        setattr(session_options, name, value)
    session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def torch_logits(checkpoint, images, rounding):
    spec, network = load_checkpoint(checkpoint)
    set_rounding(network, rounding)
    with torch.no_grad():
        return network(normalise(torch.from_numpy(images), spec.mean, spec.std)).numpy()


def test_float_file_is_the_network_without_rounding(trained, float_model, stripes):
    checkpoint, _ = trained
    found = run_onnx(float_model.path, stripes.test.images)
    assert np.allclose(found, torch_logits(checkpoint, stripes.test.images, rounding=False), atol=2e-5)
    proto = onnx.load(float_model.path)
    onnx.checker.check_model(proto, full_check=True)
    operators = [node.op_type for node in proto.graph.node]
    assert "BatchNormalization" not in operators
    assert "Relu" not in operators  # each became a Clip at its α
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    upper = [float(constants[node.input[2]]) for node in proto.graph.node if node.op_type == "Clip"]
    _, network = load_checkpoint(checkpoint)
    assert sorted(upper) == pytest.approx(sorted(alpha.item() for alpha in clip_bounds(network)))


def test_float_file_says_what_it_is(trained, float_model):
    checkpoint, _ = trained
    proto = onnx.load(float_model.path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["edgeproof.classes"]) == ["horizontal", "vertical", "diagonal"]
    assert json.loads(metadata["edgeproof.preprocessing"])["mean"] == [0.5]
    assert metadata["edgeproof.parent_sha256"] == checkpoint.sha256 == float_model.parent_sha256
    assert json.loads(metadata["edgeproof.tools"])["torch"] == torch.__version__
    (image,), (logits,) = proto.graph.input, proto.graph.output
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert image.type.tensor_type.shape.dim[0].dim_param == logits.type.tensor_type.shape.dim[0].dim_param != ""
    assert proto.opset_import[0].version == 21


def test_no_file_carries_paths_of_the_machine_that_made_it(float_model, integer_model):
    for model in (float_model, integer_model):
        content = model.path.read_bytes()
        assert b".py" not in content
        assert b"site-packages" not in content


def test_float_input_takes_what_the_graph_would_have_normalised(trained, float_model, stripes, tmp_path):
    floats = export_fp32(trained[0], ExportSettings(input_type="float32"), tmp_path / "float.onnx")
    images = stripes.test.images
    normalised = (images.astype(np.float32) / 255 - 0.5) / 0.2
    assert np.allclose(run_onnx(floats.path, normalised), run_onnx(float_model.path, images), atol=1e-4)


def test_integer_file_is_the_networks_own_fake_quantization(trained, integer_model, stripes):
    images = stripes.test.images
    expected, found = torch_logits(trained[0], images, rounding=True), run_onnx(integer_model.path, images)
    relative = np.abs(found - expected).max() / (expected.max() - expected.min())
    assert relative <= 1e-6  # the bound to ship is 1e-3; ties are decided alike, so nothing is left
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert integer_model.notes.parity.max_difference_relative == pytest.approx(relative, abs=1e-6)
    assert integer_model.notes.parity.images == 60


def test_the_shipped_integers_are_the_trained_ones(trained, integer_model):
    checkpoint, _ = trained
    constants = {i.name: numpy_helper.to_array(i) for i in onnx.load(integer_model.path).graph.initializer}
    shipped = [c.astype(np.int16) - (128 if c.dtype == np.uint8 else 0) for c in constants.values() if c.ndim == 4]
    _, network = load_checkpoint(checkpoint)
    trained_integers = [
        module.quantizer.integers(module.original_weight).numpy()
        for module in network.modules()
        if isinstance(module, QuantizedLayer) and module.original_weight.dim() == 4
    ]
    assert len(shipped) == len(trained_integers)
    for one, other in zip(shipped, trained_integers, strict=True):
        assert np.array_equal(np.abs(one), np.abs(other))  # a negative γ turns the sign of a whole channel
    scales = [float(c) for c in constants.values() if c.ndim == 0 and c.dtype == np.float32]
    for alpha in clip_bounds(network):
        assert any(np.isclose(alpha.item() / levels, scales, rtol=1e-6).any() for levels in (255, 127))


def test_every_convolution_runs_in_integers(trained, integer_model, stripes, tmp_path):
    optimized = str(tmp_path / "optimized.onnx")
    run_onnx(integer_model.path, stripes.test.images[:1], optimized_model_filepath=optimized)
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "Conv" not in operators
    assert operators.count("QLinearConv") == (4 if trained[0].path.parts[-3].startswith("cnn-small") else 7)
    assert operators.count("QGemm") == 1


@pytest.mark.parametrize("export", ["fp32", "pact"])
def test_any_batch_gives_the_same_answers(float_model, integer_model, stripes, export):
    path = float_model.path if export == "fp32" else integer_model.path
    images = stripes.test.images
    together = run_onnx(path, images[:7])
    alone = np.concatenate([run_onnx(path, images[i : i + 1]) for i in range(7)])
    assert np.allclose(together, alone, atol=1e-5)


def test_the_same_checkpoint_gives_the_same_bytes(trained, float_model, integer_model, stripes, tmp_path):
    checkpoint, _ = trained
    images, path = stripes.test.images, tmp_path / "pact.onnx"
    assert export_fp32(checkpoint, ExportSettings(), tmp_path / "fp32.onnx").sha256 == float_model.sha256
    assert export_pact(checkpoint, "pact-int8", SAFE, ExportSettings(), images, path).sha256 == integer_model.sha256


def test_a_network_in_plain_float_has_no_integers_to_ship(stripes, tmp_path):
    run = RunFolder(tmp_path)
    checkpoint = train(stripes, TrainSettings(threads=1, network="cnn-small", epochs=1, pact=None), run, "key")
    with pytest.raises(UsageError, match=r"variants\.pact-int8.*PACT"):
        export_pact(checkpoint, "pact-int8", SAFE, ExportSettings(), stripes.test.images, run.model("pact-int8"))


def test_a_file_that_answers_otherwise_is_not_shipped(trained, stripes, tmp_path, monkeypatch):
    checkpoint, _ = trained
    monkeypatch.setattr("stages.export.pact_to_qdq._run", lambda *_: torch.zeros(60, 3))
    path = tmp_path / "wrong.onnx"
    with pytest.raises(StageError, match=f"within {MAX_DIFFERENCE}"):
        export_pact(checkpoint, "wrong", SAFE, ExportSettings(), stripes.test.images, path)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_stored_unsigned_only_where_they_would_saturate(trained):
    _, network = load_checkpoint(trained[0])
    everything = [name for name, module in network.named_modules() if isinstance(module, QuantizedLayer)]
    assert to_integers(network, "x86-avx2") == everything
    _, network = load_checkpoint(trained[0])
    assert to_integers(network, "x86-vnni") == []


def test_saturation_is_the_sum_of_two_products_in_int16():
    conv, depthwise = torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 3, groups=4)
    weight = torch.zeros(4, 4, 3, 3, dtype=torch.int8)
    weight[2, 0, 0, 0], weight[2, 3, 1, 1] = 64, 64
    assert not may_saturate(conv, weight, 255)  # 2 · 64 · 255 = 32640
    weight[2, 3, 1, 1] = 65
    assert may_saturate(conv, weight, 255)  # 129 · 255 = 32895
    assert not may_saturate(conv, weight, 127)
    assert not may_saturate(depthwise, weight[:, :1], 255)
    weight[2, 3, 1, 1] = -65
    assert not may_saturate(conv, weight, 255)
    weight[2, 1, 1, 1] = -64
    assert may_saturate(conv, weight, 255)  # −129 · 255 = −32895
