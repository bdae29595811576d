"""The program that runs inside the pinned environment. It imports nothing of this project and reads three files.

    worker.py FOLDER

FOLDER/job.json says what to do, FOLDER/float.onnx is the model, FOLDER/images.npz holds the model's inputs; it writes
FOLDER/compiled.onnx and, last, FOLDER/result.json. What goes wrong ends it with a traceback and a code other than 0.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime


def main(folder: Path) -> None:
    """Do the job of a folder."""
    os.chdir(folder)  # Neural Compressor leaves its history in the working directory
    job: dict[str, Any] = json.loads(Path("job.json").read_text(encoding="utf-8"))
    _limit_threads(job["threads"])
    result = _optimize_graph(job) if job["task"] == "graph_optimized" else _quantize(job)
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")


class _Batches:
    """What Neural Compressor takes for a data loader: batches of inputs, each with labels that nobody reads."""

    def __init__(self, inputs: np.ndarray[Any, Any], batch_size: int) -> None:
        self.inputs = inputs
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        for start in range(0, len(self.inputs), self.batch_size):
            batch = self.inputs[start : start + self.batch_size]
            yield batch, np.zeros(len(batch), dtype=np.int64)


def _quantize(job: dict[str, Any]) -> dict[str, Any]:
    from neural_compressor import PostTrainingQuantConfig, quantization
    from neural_compressor.config import AccuracyCriterion, TuningCriterion

    _keep_activations_at_eight_bits()
    with np.load("images.npz", allow_pickle=False) as arrays:
        images, validation_images, validation_labels = (
            arrays[name] for name in ("images", "validation_images", "validation_labels")
        )
    dynamic, tuned = job["mode"] == "dynamic", job["mode"] == "tuned"
    baseline: list[float] = []
    trials: list[float] = []

    def accuracy(model: Any) -> float:
        quantized = any("Quantize" in node.op_type for node in model.graph.node)
        value = _accuracy(model, validation_images, validation_labels)
        (trials if quantized else baseline).append(value)
        return value

    in_float = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    configuration = PostTrainingQuantConfig(
        approach="dynamic" if dynamic else "static",
        quant_format="default" if dynamic else job["format"],
        calibration_sampling_size=[max(len(images), 1)],
        op_name_dict=dict.fromkeys(job["nodes_in_float"], in_float),
        reduce_range=job["reduce_range"],
        recipes={"gemm_to_matmul": False},
        accuracy_criterion=AccuracyCriterion(
            higher_is_better=True, criterion="absolute", tolerable_loss=job["tolerable_loss"]
        ),
        tuning_criterion=TuningCriterion(max_trials=job["max_trials"], timeout=0),
    )
    compiled = quantization.fit(
        onnx.load_model("float.onnx"),
        configuration,
        calib_dataloader=None if dynamic else _Batches(images, job["batch_size"]),
        eval_func=accuracy if tuned else None,
    )
    met = compiled is not None
    if not met and not (tuned and trials):
        # `fit` prints what went wrong and returns None.
        raise RuntimeError("neural_compressor.quantization.fit returned no model")
    if compiled is not None:
        onnx.save_model(compiled.model, "compiled.onnx")
    return {"met": met, "baseline_accuracy": baseline[0] if baseline else None, "trial_accuracies": trials}


def _accuracy(model: Any, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], batch_size: int = 64) -> float:
    """Return the share of right answers; of yes/no labels [n, classes] the share of right decisions, yes above 0."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    correct = 0
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        logits = session.run(None, {name: images[part]})[0]
        answers = np.argmax(logits, axis=1) if labels.ndim == 1 else logits > 0
        correct += int(np.count_nonzero(answers == labels[part]))
    return correct / labels.size


def _optimize_graph(job: dict[str, Any]) -> dict[str, Any]:
    from onnxruntime_tools.transformers.optimizer import optimize_model  # type: ignore[import-not-found]

    level = {"basic": 1, "extended": 2}[job["level"]]
    optimizer = optimize_model("float.onnx", opt_level=level, only_onnxruntime=True)
    onnx.save_model(optimizer.model, "compiled.onnx")
    return {"met": True}


def _keep_activations_at_eight_bits() -> None:
    # With reduce_range, Neural Compressor gives the activations 7 bits as well, yet still drops the Clip or ReLU
    # behind a layer as if the integers saturated where it clipped. They saturate at twice that value, so the clip is
    # lost: a residual network with clips fell to 4.6 dB logits SQNR (QOperator) and 22 dB (QDQ). With 8 bits for the
    # activations and 7 for the weights, which is all that saturation asks for, both are at 30.5 dB.
    from neural_compressor.adaptor.ox_utils import calibration

    original = calibration._get_qrange_for_qType

    def full_range(quantized_type: int, reduce_range: bool = False) -> Any:
        return original(quantized_type, False)

    calibration._get_qrange_for_qType = full_range


def _limit_threads(threads: int) -> None:
    # Neural Compressor opens its sessions itself and offers no setting.
    class LimitedSession(onnxruntime.InferenceSession):  # type: ignore[misc] # onnxruntime is untyped
        def __init__(self, model: Any, sess_options: Any = None, **others: Any) -> None:
            options = sess_options or onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            super().__init__(model, options, **others)

    onnxruntime.InferenceSession = LimitedSession


if __name__ == "__main__":
    main(Path(sys.argv[1]))
