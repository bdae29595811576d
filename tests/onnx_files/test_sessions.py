from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from foundation.artifacts import OnnxModel
from foundation.errors import NotMeasuredError, StageError, UsageError
from onnx_files import sessions

Make = Callable[..., OnnxModel]
OPENVINO_REASON = (
    sessions.why_unavailable("openvino") if importlib.util.find_spec("onnxruntime_ep_openvino") else "not installed"
)


def test_session_has_the_threads_it_was_asked_for(make_model: Make) -> None:
    options = sessions.open_session(make_model().path, "cpu", 2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_logits_are_those_of_the_arithmetic(corner_model: OnnxModel) -> None:
    images = np.zeros((3, 1, 8, 8), np.uint8)
    images[1, 0, :3, :3] = 255
    images[2, 0, 3:, 3:] = 255  # what the model doesn't read
    logits = sessions.predict(sessions.open_session(corner_model.path, "cpu", 1), images, 2)
    # (0 − 0.5)/0.25 = −2 and (1 − 0.5)/0.25 = 2 for each of nine pixels.
    assert logits == pytest.approx(np.array([[-18, 18], [18, -18], [-18, 18]]), abs=1e-4)
    assert logits.dtype == np.float32


def test_float_input_is_normalised_outside_and_gives_the_same_logits(make_model: Make) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    inside, outside = (
        sessions.predict(sessions.open_session(make_model(kind, input_type=kind).path, "cpu", 1), images, 5)
        for kind in ("uint8", "float32")
    )
    assert inside == pytest.approx(outside, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_nothing_for_a_float_model(make_model: Make, batch_size: int) -> None:
    session = sessions.open_session(make_model().path, "cpu", 1)
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 8, 8), dtype=np.uint8)
    assert sessions.predict(session, images, batch_size) == pytest.approx(
        sessions.predict(session, images, 7), abs=1e-6
    )


@pytest.mark.parametrize("content", [b"", b"no model at all\n", None])
def test_a_file_that_is_no_onnx_is_named(make_model: Make, content: bytes | None) -> None:
    path = make_model().path
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(UsageError, match=r"fp32\.onnx: expected an ONNX model"):
        sessions.open_session(path, "cpu", 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.onnx: expected an ONNX file, found none"):
        sessions.open_session(tmp_path / "gone.onnx", "cpu", 1)


def test_a_model_without_metadata_is_named(make_model: Make) -> None:
    path = make_model().path
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    session = sessions.open_session(path, "cpu", 1)
    with pytest.raises(UsageError, match=r"fp32\.onnx: expected the metadata entry edgeproof\.preprocessing"):
        sessions.predict(session, np.zeros((1, 1, 8, 8), np.uint8), 1)


def test_images_of_another_size_are_refused(make_model: Make) -> None:
    session = sessions.open_session(make_model().path, "cpu", 1)
    with pytest.raises(UsageError, match=r"expected images of shape \[1, 8, 8\].*found \[1, 9, 8\]"):
        sessions.predict(session, np.zeros((1, 1, 9, 8), np.uint8), 1)


def test_an_unknown_provider_is_refused_with_the_known_ones(make_model: Make) -> None:
    with pytest.raises(UsageError, match=f"expected one of {', '.join(sessions.PROVIDERS)}"):
        sessions.open_session(make_model().path, "tpu", 1)


def test_every_node_runs_on_the_cpu_provider(make_model: Make) -> None:
    assert sessions.nodes_on_provider(sessions.open_session(make_model().path, "cpu", 1), "cpu") == 1.0


def test_a_session_on_another_provider_has_no_nodes_there(make_model: Make) -> None:
    assert sessions.nodes_on_provider(sessions.open_session(make_model().path, "cpu", 1), "cuda") == 0.0


def test_availability_says_why() -> None:
    available = sessions.available_providers()
    assert "cpu" in available
    for name in sessions.PROVIDERS:
        assert (sessions.why_unavailable(name) is None) == (name in available)


def test_a_provider_that_is_not_there_is_not_measured(make_model: Make) -> None:
    missing = [name for name in sessions.PROVIDERS if name not in sessions.available_providers()]
    if not missing:
        pytest.skip("every provider is available here")
    for name in missing:
        with pytest.raises(NotMeasuredError, match=name):
            sessions.open_session(make_model().path, name, 1)


def test_openvino_not_installed_says_how_to_install_it(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_ep_openvino", None)
    with pytest.raises(NotMeasuredError, match=r"pip install 'edgeproof\[openvino\]'"):
        sessions.open_session(make_model().path, "openvino", 1)


def test_openvino_in_place_of_onnxruntime_needs_no_plug_in_and_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "get_ep_devices", list)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_ep_openvino", None)
    attached = sessions.PROVIDERS["openvino"].attach(onnxruntime.SessionOptions(), 2)
    assert attached is not None
    (name, options), fallback = attached
    assert (name, fallback, options["device_type"]) == ("OpenVINOExecutionProvider", "CPUExecutionProvider", "CPU")
    properties = json.loads(options["load_config"])["CPU"]
    assert properties == {"INFERENCE_NUM_THREADS": "2", "INFERENCE_PRECISION_HINT": "f32"}


def test_a_plug_in_that_an_earlier_session_registered_is_not_taken_for_a_provider_of_this_onnxruntime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime

    openvino = SimpleNamespace(ep_name="OpenVINOExecutionProvider")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [openvino.ep_name])
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [openvino])
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime_ep_openvino", None)
    with pytest.raises(NotMeasuredError, match="expected the package onnxruntime-ep-openvino"):  # it asks the plug-in
        sessions.PROVIDERS["openvino"].attach(onnxruntime.SessionOptions(), 1)


def quantized(model: OnnxModel, static: bool) -> Path:
    """Return an int8 file beside a model: QDQ with random calibration images, or dynamic."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(np.random.default_rng(0).integers(0, 256, (16, 1, 1, 8, 8), dtype=np.uint8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image}

    path = model.path.with_name(f"{'static' if static else 'dynamic'}.onnx")
    if static:
        # Without the reduced range U8S8 saturates on a CPU without VNNI: 18 dB instead of 36.
        quantization.quantize_static(model.path, path, Reader(), per_channel=True, reduce_range=True)
    else:
        quantization.quantize_dynamic(model.path, path)
    stored = onnx.load(path)
    del stored.metadata_props[:]
    stored.metadata_props.extend(onnx.load(model.path).metadata_props)
    onnx.save(stored, path)
    return path


def test_a_qdq_model_takes_uint8_images_and_stays_near_fp32(make_model: Make) -> None:
    model = make_model()
    images = np.random.default_rng(1).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
    fp32, int8 = (
        sessions.predict(sessions.open_session(path, "cpu", 1), images, 1)
        for path in (model.path, quantized(model, static=True))
    )
    noise = np.square(int8 - fp32).sum() / np.square(fp32).sum()
    assert 1e-7 < noise < 1e-3


def test_dynamic_quantization_answers_by_the_batch(make_model: Make) -> None:
    """Why predictions are made one image at a time: a bright neighbour widens a dark image's range."""
    session = sessions.open_session(quantized(make_model(), static=False), "cpu", 1)
    images = np.random.default_rng(1).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
    images[::2] //= 8
    alone, together = sessions.predict(session, images, 1), sessions.predict(session, images, 30)
    assert np.abs(alone - together).max() > 1e-4


def test_an_operator_without_a_kernel_is_a_stage_error(make_model: Make) -> None:
    path = make_model().path
    model = onnx.load(path)
    nodes = list(model.graph.node)
    position = next(i for i, node in enumerate(nodes) if node.op_type == "Relu")
    relu = nodes[position]
    half = onnx.helper.make_node("Cast", [relu.input[0]], ["wide"], to=onnx.TensorProto.DOUBLE)
    odd = onnx.helper.make_node("Mish", ["wide"], ["odd"])
    back = onnx.helper.make_node("Cast", ["odd"], [relu.output[0]], to=onnx.TensorProto.FLOAT)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:position], half, odd, back, *nodes[position + 1 :]])
    onnx.save(model, path)
    with pytest.raises(StageError, match=r"fp32\.onnx: the provider cpu cannot run this model"):
        sessions.open_session(path, "cpu", 1)


def test_logits_that_are_not_finite_name_the_file(make_model: Make) -> None:
    path = make_model("fp16").path
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "head_bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, np.nan, 0], np.float32), "head_bias"))
    onnx.save(model, path)
    with pytest.raises(StageError, match=r"fp16\.onnx: expected finite logits.*4 of 4 images"):
        sessions.predict(sessions.open_session(path, "cpu", 1), np.zeros((4, 1, 8, 8), np.uint8), 2)


@pytest.mark.skipif(OPENVINO_REASON is not None, reason=f"openvino cannot run here: {OPENVINO_REASON}")
@pytest.mark.parametrize("static", [False, True])
def test_openvino_takes_the_whole_graph_and_agrees_with_the_cpu(make_model: Make, static: bool) -> None:
    model = make_model()
    path = quantized(model, static=True) if static else model.path
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
    session = sessions.open_session(path, "openvino", 1)
    assert sessions.nodes_on_provider(session, "openvino") == 1.0
    expected = sessions.predict(sessions.open_session(path, "cpu", 1), images, 30)
    # OpenVINO rounds at other places than ONNX Runtime where both compute in int8.
    allowed = 1e-3 if static else 1e-6
    found = sessions.predict(session, images, 30)
    assert np.square(found - expected).sum() / np.square(expected).sum() < allowed
