"""What the tests of the recovery steps share: batches of images, and quantization without a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_files.probes import Batches, Feeds, runner


def batches_of(images: NDArray[Any], size: int = 16) -> Batches:
    """Return what gives images batch by batch."""

    def batches() -> Iterator[Feeds]:
        for start in range(0, len(images), size):
            yield {"image": images[start : start + size]}

    return batches


def noise_images(n: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images of random patches of four pixels."""
    patches = np.random.default_rng(seed).integers(0, 256, (n, 3, size // 4, size // 4))
    return patches.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)


def minmax_calibration(batches: Batches) -> Callable[[onnx.ModelProto], Any]:
    """Return what finds the range of every float activation, by running the graph and looking."""

    def calibrate(proto: onnx.ModelProto) -> Any:
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

        names = [name for node in proto.graph.node for name in node.output]
        run = runner(proto, names)
        ranges: dict[str, tuple[float, float]] = {}
        for feeds in batches():
            for name, value in {**feeds, **run(feeds)}.items():
                if value.dtype == np.float32:
                    low, high = ranges.get(name, (np.inf, -np.inf))
                    ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
        as_float = {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
        }
        return TensorsData(CalibrationMethod.MinMax, as_float)

    return calibrate


def qdq_writer(*, per_channel: bool, reduce_range: bool = True) -> Callable[..., onnx.ModelProto]:
    """Return ONNX Runtime's QDQ writer for uint8 activations and int8 weights.

    Weights of seven bits: what the files answer is then the same with and without VNNI.
    """

    def write(proto: onnx.ModelProto, ranges: Any, options: Mapping[str, Any]) -> onnx.ModelProto:
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.registry import QDQRegistry

        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        normalisation = [node.name for node in proto.graph.node[:3] if node.op_type in ("Cast", "Mul", "Add")]
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(copy), per_channel, reduce_range, QuantType.QInt8, QuantType.QUInt8,
            ranges, [], normalisation, sorted(QDQRegistry),
            {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"], **options},
        )  # fmt: skip
        quantizer.quantize_model()
        result: onnx.ModelProto = quantizer.model.model
        return result

    return write
