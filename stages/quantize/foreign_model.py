"""Any ONNX classifier brought into the form that the quantizers take: weights as constants, opset 13 or more.

Quantizers look for weights among the initializers, and per-channel integers need opset 13. So functions are inlined,
old opsets converted, and what does not depend on the image is computed once, by ONNX Runtime's basic optimizations,
which stay within ONNX's own operators; batch norms go into the convolutions before them. All that, from the first
byte, happens in a child process with limits: a file made to do harm breaks the child.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from calibration_data.preprocessing import Layout
from pipeline.errors import UsageError
from pipeline.model_file import LARGEST_FILE_BYTES, TIME_LIMIT_S, read_model

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto
    from onnxruntime import InferenceSession

LEAST_OPSET: Literal[13] = 13
_IR_OF_OPSET = {13: 7, 21: 10}
ADDRESS_SPACE_BYTES = 12_000_000_000
"""The folded model, four times over, and what ONNX Runtime maps for itself."""
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ImageInput:
    """The one input of a classifier.

    Attributes:
        name: of the tensor.
        element_type: what it holds.
        batch: images per run where the file fixes it; None where any number goes.
        layout: order of its axes.
        channels: 1 or 3; None where the file leaves it open.
        height: in pixels; None where the file leaves it open.
        width: likewise.
    """

    name: str
    element_type: Literal["uint8", "float32"]
    batch: int | None
    layout: Layout
    channels: int | None
    height: int | None
    width: int | None


def prepare_foreign_model(path: Path, target: Path, least_opset: Literal[13, 21] = LEAST_OPSET) -> ModelProto:
    """Read a file that may come from anywhere, and return it in the quantizers' form.

    Args:
        path: the model, its weights within or beside it.
        target: a file to write the result to, self-contained.
        least_opset: of the result; weights of 4 bits need 21.

    Raises:
        UsageError: no ONNX model, operators that nobody knows, or an opset that cannot be converted; or it exhausts
            the child's memory or time, or crashes it.
    """
    import onnx

    command = [sys.executable, "-m", "stages.quantize.foreign_model", str(path), str(target), str(least_opset)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"{path}: expected a model that ONNX Runtime can load within {TIME_LIMIT_S} s, found one that is slower."
        ) from error
    if child.returncode == 2:
        raise UsageError(child.stdout.strip())
    if child.returncode:
        raise UsageError(
            f"{path}: expected a model that ONNX Runtime can load, found one that breaks it (exit status "
            f"{child.returncode}) or needs more than {ADDRESS_SPACE_BYTES / 1e9:g} GB. Give another export of it."
        )
    return onnx.load_model(target)


def image_input(proto: ModelProto, path: Path, layout: Layout | None = None) -> ImageInput:
    """Return the input that takes the images.

    Args:
        proto: the model.
        path: of the file, for messages.
        layout: of the input, as its user says; None to take it from the shape, where that leaves one reading.

    Raises:
        UsageError: the model has several inputs, or one that is no image, or the layout must be told.
    """
    if len(proto.graph.input) != 1:
        names = ", ".join(value.name for value in proto.graph.input) or "none"
        raise UsageError(f"{path}: expected a model with one input, the image; found {names}. Give a classifier.")
    value = proto.graph.input[0]
    element_type = _element_type(value, path)
    if not value.type.tensor_type.HasField("shape"):
        raise UsageError(
            f"{path}: expected an input of four axes, found `{value.name}` of unknown shape. Export the model with "
            "its input's shape; axes may have names in place of numbers."
        )
    shape = value.type.tensor_type.shape.dim
    if any(dimension.HasField("dim_value") and dimension.dim_value < 1 for dimension in shape):
        found = [dimension.dim_value if dimension.HasField("dim_value") else "?" for dimension in shape]
        raise UsageError(
            f"{path}: expected axes of length 1 or more, found `{value.name}` of shape {found}. Export the model "
            "with its input's shape; axes may have names in place of numbers."
        )
    dimensions = [dimension.dim_value or None for dimension in shape]
    if len(dimensions) != 4:
        raise UsageError(
            f"{path}: expected an input of four axes (batch, channels, height and width), found `{value.name}` with "
            f"{len(dimensions)}. Give a classifier of images."
        )
    batch, *rest = dimensions
    layout = layout or _layout(rest, path, value.name)
    channels, height, width = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    if channels not in (*_CHANNELS, None):
        raise UsageError(
            f"{path}: expected 1 channel (gray) or 3 (RGB), found {channels} in the input `{value.name}` of shape "
            f"{dimensions} read as {layout}. Give --layout if that is not its order; other images are not supported."
        )
    return ImageInput(value.name, element_type, batch, layout, channels, height, width)


def _element_type(value: ValueInfoProto, path: Path) -> Literal["uint8", "float32"]:
    from onnx import TensorProto

    kind = value.type.tensor_type.elem_type
    if kind == TensorProto.FLOAT:
        return "float32"
    if kind == TensorProto.UINT8:
        return "uint8"
    raise UsageError(
        f"{path}: expected an input of type float32 or uint8, found `{value.name}` of type "
        f"{TensorProto.DataType.Name(kind).lower()}. Export the model in float32."
    )


def _layout(dimensions: list[int | None], path: Path, name: str) -> Layout:
    fits: list[Layout] = []
    if dimensions[0] in _CHANNELS:
        fits.append("NCHW")
    if dimensions[2] in _CHANNELS:
        fits.append("NHWC")
    if len(fits) == 1:
        return fits[0]
    shown = ", ".join("?" if size is None else str(size) for size in dimensions)
    found = f"{path}: expected an input with 1 or 3 channels, found `{name}` of shape [batch, {shown}]"
    if not fits and None not in (dimensions[0], dimensions[2]):
        raise UsageError(f"{found}. Only gray and RGB images are supported.")
    raise UsageError(f"{found}, which can be read in two ways. Give --layout NCHW or --layout NHWC.")


# --- in the child ---


def _canonical(model: ModelProto, least_opset: int, path: Path) -> ModelProto:
    import onnx
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    unknown = sorted({f"{node.domain}:{node.op_type}" for node in model.graph.node if node.domain not in _DOMAINS})
    if unknown:
        raise UsageError(
            f"{path}: expected operators of ONNX or of ONNX Runtime, found {', '.join(unknown[:5])}. "
            "Export the model without operators of one's own."
        )
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < least_opset:
        model = _converted(model, opset, least_opset, path)
        model.ir_version = max(model.ir_version, _IR_OF_OPSET[least_opset])
    # Up to IR 3, weights were inputs too, which a caller could replace; nothing was ever folded into them.
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]
    return model


def _converted(model: ModelProto, opset: int, least_opset: int, path: Path) -> ModelProto:
    import onnx
    import onnx.version_converter

    try:
        return onnx.version_converter.convert_version(model, least_opset)
    except Exception as error:  # the converter raises whatever its C++ raises
        raise UsageError(
            f"{path}: expected a model of opset {least_opset} or one that onnx.version_converter can bring there, "
            f"found opset {opset} ({_first_line(error)}). Export the model anew with opset {least_opset} or more."
        ) from error


def _fold(model: ModelProto, target: Path, path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        _run_once(session)
    except Exception as error:  # of its own, or of protobuf beyond 2 GB
        raise UsageError(
            f"{path}: expected a model that ONNX Runtime {onnxruntime.__version__} can run, found one that it "
            f"refuses ({_first_line(error)}). Export the model with operators that it has."
        ) from error
    size = target.stat().st_size
    if size > LARGEST_FILE_BYTES:
        raise UsageError(
            f"{path}: expected at most {LARGEST_FILE_BYTES:,} bytes once its constants are computed, found {size:,}."
        )


def _run_once(session: InferenceSession) -> None:
    # What asks for all memory, or falls over, does so here and not in the process that waits. Sizes that the file
    # leaves open (but for the batch) are the caller's, so such a file is not run.
    import numpy as np

    inputs = session.get_inputs()
    types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in types:
        return
    batch, *sizes = inputs[0].shape
    if all(isinstance(size, int) and size > 0 for size in sizes):
        shape = [batch if isinstance(batch, int) else 1, *sizes]
        session.run(None, {inputs[0].name: np.zeros(shape, types[inputs[0].type])})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _prepare_in_child(path: Path, target: Path, least_opset: int) -> int:
    """Write the canonical form under limits; print what is wrong and return 2, or return 0."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _fold(_canonical(read_model(path), least_opset, path), target, path)
    except UsageError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_prepare_in_child(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
