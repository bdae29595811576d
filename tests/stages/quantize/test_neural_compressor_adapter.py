from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from quantizable import (
    float_proto,
    images,
    initializers,
    logits,
    node_types,
    optimized,
    prepared_data,
    sqnr_db,
    write_float_model,
)

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import NotMeasuredError, StageError
from stages.quantize.neural_compressor.adapter import (
    GraphOptimizedSettings,
    NeuralCompressorSettings,
    optimize_graph,
    quantize_with_neural_compressor,
)
from stages.quantize.neural_compressor.environment import worker_python

CONVOLUTIONS = 7


def settings(**changes: object) -> NeuralCompressorSettings:
    return NeuralCompressorSettings.model_validate({"mode": "static", "images": 40, "reduce_range": True} | changes)


@pytest.fixture(scope="module")
def _worker() -> None:
    try:
        worker_python()
    except NotMeasuredError as error:
        pytest.skip(str(error))


@pytest.fixture
def tuning_data(float_model: OnnxModel) -> PreparedData:
    """Return data whose validation labels are what the float network answers: its accuracy is 1."""
    pixels = prepared_data().validation.images
    return prepared_data(labels=np.argmax(logits(float_model.path, pixels), axis=1))


@pytest.mark.long
@pytest.mark.usefixtures("_worker")
@pytest.mark.parametrize("graph_format", ["QDQ", "QOperator"])
def test_static_keeps_the_clips(
    graph_format: str, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    result = quantize_with_neural_compressor(
        float_model, "inc", settings(format=graph_format), data, tmp_path / "inc.onnx"
    )
    assert result.size_bytes <= 0.30 * float_model.size_bytes
    pixels = images(33, 9)
    # Without eight bits for the activations this is below 10 dB: the clips are lost.
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > 20
    counts = node_types(optimized(result.path, tmp_path))
    assert counts["QLinearConv"] == CONVOLUTIONS
    integers = [a for a in initializers(onnx.load_model(result.path)).values() if a.dtype == np.int8 and a.ndim == 4]
    assert len(integers) == CONVOLUTIONS
    assert max(int(np.abs(weight.astype(int)).max()) for weight in integers) == 64
    assert result.notes.worker["worker-neural_compressor"] == "3.7.1"
    assert result.notes.float_layers == ()


@pytest.mark.long
@pytest.mark.usefixtures("_worker")
def test_dynamic_needs_no_images(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    result = quantize_with_neural_compressor(
        float_model, "inc", settings(mode="dynamic"), data, tmp_path / "inc.onnx"
    )
    assert result.notes.calibration_images == ()
    assert result.size_bytes <= 0.32 * float_model.size_bytes
    pixels = images(33, 9)
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > 20


@pytest.mark.long
@pytest.mark.usefixtures("_worker")
def test_tuning_records_what_it_tried(float_model: OnnxModel, tuning_data: PreparedData, tmp_path: Path) -> None:
    result = quantize_with_neural_compressor(
        float_model, "inc", settings(mode="tuned", tolerable_loss=0.1), tuning_data, tmp_path / "inc.onnx"
    )
    assert result.notes.tuning.baseline_accuracy == 1.0
    assert result.notes.tuning.tuned_accuracy >= 0.9
    assert 1 <= result.notes.tuning.trials <= 20
    assert set(result.notes.calibration_images) <= {f"sha256:{digest[:12]}" for digest in tuning_data.train.sha256}
    answers = np.argmax(logits(result.path, tuning_data.validation.images), axis=1)
    accuracy = float(np.mean(answers == tuning_data.validation.labels))
    assert accuracy == pytest.approx(result.notes.tuning.tuned_accuracy, abs=1e-9)


@pytest.mark.long
@pytest.mark.usefixtures("_worker")
def test_tuning_of_yes_no_labels_counts_decisions(float_model: OnnxModel, tmp_path: Path) -> None:
    pixels = prepared_data().validation.images
    decisions = (logits(float_model.path, pixels) > 0).astype(np.int64)
    decisions[0] = 1 - decisions[0]
    result = quantize_with_neural_compressor(
        float_model, "inc", settings(mode="tuned"), prepared_data(labels=decisions), tmp_path / "inc.onnx"
    )
    # One of 33 images has every label turned round.
    assert result.notes.tuning.baseline_accuracy == pytest.approx(32 / 33)
    tuned = float(np.mean((logits(result.path, pixels) > 0) == decisions))
    assert result.notes.tuning.tuned_accuracy == pytest.approx(tuned)


@pytest.mark.long
@pytest.mark.usefixtures("_worker")
def test_tuning_leaves_in_float_what_accuracy_needs(tmp_path: Path) -> None:
    # Rows of the head that differ by less than an eighth-bit step: as integers they are alike.
    rng = np.random.default_rng(5)
    head = rng.normal(0, 0.2, (1, 96)) + rng.normal(0, 3e-3, (4, 96))
    model = write_float_model(tmp_path / "fp32.onnx", float_proto({"w8": head, "b8": np.zeros(4)}))
    labels = np.argmax(logits(model.path, prepared_data(validation=100).validation.images), axis=1)
    data = prepared_data(validation=100, labels=labels)
    folder = tmp_path / "quantize"

    once = settings(mode="tuned", tolerable_loss=0.1, max_trials=1)
    with pytest.raises(StageError, match=r"validation accuracy 1\.0000, found none in 1 trials \(best 0\."):
        quantize_with_neural_compressor(model, "inc", once, data, folder / "inc.onnx")
    assert not folder.exists()

    often = settings(mode="tuned", tolerable_loss=0.1, max_trials=20)
    result = quantize_with_neural_compressor(model, "inc", often, data, folder / "inc.onnx")
    assert result.notes.tuning.trials == 2
    assert result.notes.tuning.tuned_accuracy == 1.0
    assert result.notes.float_layers == ("Gemm_19",)


@pytest.mark.usefixtures("_worker")
def test_a_worker_that_takes_too_long_is_stopped(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="within 1 s"):
        quantize_with_neural_compressor(float_model, "inc", settings(timeout_s=1), data, tmp_path / "inc.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_worker")
@pytest.mark.parametrize(("level", "fused"), [("basic", 0), ("extended", 5)])
def test_graph_optimization_changes_no_answer(
    level: str, fused: int, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    chosen = GraphOptimizedSettings.model_validate({"level": level})
    result = optimize_graph(float_model, "fused", chosen, data, tmp_path / "fused.onnx")
    assert node_types(onnx.load_model(result.path)).get("FusedConv", 0) >= fused
    pixels = images(33, 9)
    np.testing.assert_allclose(logits(result.path, pixels), logits(float_model.path, pixels), rtol=0, atol=1e-4)
