"""One peer's int8 file of an ONNX model; runs in that peer's environment, and imports nothing of this project.

    PEER/bin/python -P benchmarks/peer_workers.py TOOL MODEL.onnx INPUTS.npy OUTPUT.onnx

Each tool gets what its documentation says for a convolutional classifier on an x86 CPU; the inputs are float32
[n, channels, height, width], as the model takes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rows = Any
"""float32 [n, channels, height, width]."""


class _Reader:
    def __init__(self, name: str, rows: Rows) -> None:
        self._feeds = _feeds(name, rows)

    def get_next(self) -> dict[str, Rows] | None:
        return next(self._feeds, None)


def _feeds(name: str, rows: Rows) -> Iterator[dict[str, Rows]]:
    return ({name: row[None]} for row in rows)


def _nncf(model: Path, name: str, rows: Rows, output: Path) -> None:
    import nncf
    import onnx

    dataset = nncf.Dataset(list(_feeds(name, rows)))
    made = nncf.quantize(
        onnx.load_model(model),
        dataset,
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(rows),
    )
    onnx.save_model(made, output)


def _modelopt(model: Path, name: str, rows: Rows, output: Path) -> None:
    from modelopt.onnx.quantization import quantize

    quantize(
        str(model),
        quantize_mode="int8",
        calibration_data={name: rows},
        calibration_method="entropy",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(output),
    )


def _aimet(model: Path, name: str, rows: Rows, output: Path) -> None:
    import aimet_onnx
    import onnx
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight

    proto = onnx.load_model(model)
    fold_all_batch_norms_to_weight(proto)
    simulated = aimet_onnx.QuantizationSimModel(
        proto, param_type=aimet_onnx.int8, activation_type=aimet_onnx.int8, providers=["CPUExecutionProvider"]
    )
    simulated.compute_encodings(list(_feeds(name, rows)))
    onnx.save_model(simulated.to_onnx_qdq(), output)


def _quark(model: Path, name: str, rows: Rows, output: Path) -> None:
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config.config import Config
    from quark.onnx.quantization.config.custom_config import get_default_config

    config = Config(global_quant_config=get_default_config("S8S8_AAWS"))
    ModelQuantizer(config).quantize_model(str(model), str(output), _Reader(name, rows))


def _onnxruntime(model: Path, name: str, rows: Rows, output: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, output, _Reader(name, rows), per_channel=True, reduce_range=False,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip
    prepared.unlink()


def _neural_compressor(model: Path, name: str, rows: Rows, output: Path) -> None:
    from neural_compressor import PostTrainingQuantConfig, quantization

    class Loader:
        batch_size = 1

        def __iter__(self) -> Iterator[tuple[Rows, int]]:
            return ((row[None], 0) for row in rows)

    config = PostTrainingQuantConfig(approach="static", quant_format="QDQ", calibration_sampling_size=[len(rows)])
    made = quantization.fit(str(model), config, calib_dataloader=Loader())
    made.save(str(output))


TOOLS: dict[str, Callable[[Path, str, Rows, Path], None]] = {
    "onnxruntime": _onnxruntime,
    "neural-compressor": _neural_compressor,
    "nncf": _nncf,
    "modelopt": _modelopt,
    "aimet": _aimet,
    "quark": _quark,
}
"""By the names that `peers.py` knows them by."""


def main() -> None:
    """Write one file."""
    import onnx

    tool, model, rows, output = sys.argv[1:5]
    proto = onnx.load_model(model, load_external_data=False)
    weights = {tensor.name for tensor in proto.graph.initializer}
    name = next(value.name for value in proto.graph.input if value.name not in weights)
    TOOLS[tool](Path(model), name, np.load(rows), Path(output))


if __name__ == "__main__":
    main()
