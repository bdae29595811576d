"""Any ONNX classifier brought into the form that the quantizers take: weights as constants, opset 13 or more.

Quantizers look for weights among the initializers, and per-channel integers need opset 13. So functions are inlined,
old opsets converted, and what does not depend on the image is computed once, by ONNX Runtime's basic optimizations,
which stay within ONNX's own operators; batch norms go into the convolutions before them. All that, from the first
byte, happens in a child process with limits: a file made to do harm breaks the child.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.child import BrokenChildError, Limits, run_guarded
from foundation.errors import UsageError
from onnx_files.graph import opset_of, without_functions
from onnx_files.reading import LARGEST_FILE_BYTES, TIME_LIMIT_S, read_model

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

LEAST_OPSET: Literal[13] = 13
_IR_OF_OPSET = {13: 7, 21: 10}
ADDRESS_SPACE_BYTES = 12_000_000_000
"""The folded model, four times over, and what ONNX Runtime maps for itself."""
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


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

    try:
        run_guarded(
            "onnx_files.canonical:prepare_in_child",
            (str(path), str(target), str(least_opset)),
            Limits(ADDRESS_SPACE_BYTES, TIME_LIMIT_S),
        )
    except BrokenChildError as error:
        if error.too_slow:
            raise UsageError(
                f"{path}: expected a model that ONNX Runtime can load within {TIME_LIMIT_S} s, found one that is "
                "slower."
            ) from error
        raise UsageError(
            f"{path}: expected a model that ONNX Runtime can load, found one that breaks it ({error}) "
            f"or needs more than {ADDRESS_SPACE_BYTES / 1e9:g} GB. Give another export of it."
        ) from error
    return onnx.load_model(target)


# --- in the child ---


def _canonical(model: ModelProto, least_opset: int, path: Path) -> ModelProto:
    model = without_functions(model)
    unknown = sorted({f"{node.domain}:{node.op_type}" for node in model.graph.node if node.domain not in _DOMAINS})
    if unknown:
        raise UsageError(
            f"{path}: expected operators of ONNX or of ONNX Runtime, found {', '.join(unknown[:5])}. "
            "Export the model without operators of one's own."
        )
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    opset = opset_of(model)
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


def prepare_in_child(path: str, target: str, least_opset: str) -> None:
    """Write the canonical form of a model, where that may break the process."""
    _fold(_canonical(read_model(Path(path)), int(least_opset), Path(path)), Path(target), Path(path))
