"""Any ONNX classifier brought into the form that the quantizers take: weights as constants, opset 13 or more.

Quantizers look for weights among the initializers, and per-channel integers need opset 13. So functions are inlined,
old opsets converted, and what does not depend on the image is computed once, by ONNX Runtime's basic optimizations,
which stay within ONNX's own operators; batch norms go into the convolutions before them. All that, from the first
byte, happens in a child process with limits: a file made to do harm breaks the child.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import UsageError
from onnx_files.graph import opset_of, without_functions
from onnx_files.limits import largest_grown_bytes, size_with_weights
from onnx_files.preparation import prepared
from onnx_files.reading import guarded, read_model
from onnx_files.trial_run import try_out

if TYPE_CHECKING:
    from onnx import ModelProto

LEAST_OPSET: Literal[13] = 13
_IR_OF_OPSET = {13: 7, 21: 10}
_MICROSOFT = "com.microsoft"
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", _MICROSOFT})
_ELEMENTS = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(double)": 11}
"""ONNX's numbers for the types of real numbers."""


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

    arguments = (str(path), str(target), str(least_opset))
    guarded(path, "onnx_files.canonical:prepare_in_child", arguments, "be loaded into ONNX Runtime")
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
    try_out(path, model.SerializeToString(), optimized=target)
    size, most = target.stat().st_size, largest_grown_bytes(size_with_weights(path))
    if size > most:
        raise UsageError(
            f"{path}: expected at most {most:,} bytes once its constants are computed, found {size:,}. Export the "
            "model with its constants folded."
        )


def _noted_types(model: ModelProto) -> bool:
    """Note in place what ONNX Runtime's own operators make, which ONNX cannot infer; return whether there are any.

    Without it every tensor behind such a node is of no known type, and a layer that reads it has no scale.
    """
    import onnx
    import onnxruntime

    made = [name for node in model.graph.node if node.domain == _MICROSOFT for name in node.output if name]
    made = [name for name in made if name not in {value.name for value in model.graph.output}]
    if not made:
        return False
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = {value.name: value for value in session.get_outputs()}
    for name in made:
        elements = _ELEMENTS.get(found[name].type)
        if elements is not None:
            # No sizes at all may mean that it does not know how many there are.
            shape = found[name].shape or None
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, elements, shape))
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def prepare_in_child(path: str, target: str, least_opset: str) -> None:
    """Write the canonical form of a model, where that may break the process."""
    import onnx

    _fold(_canonical(read_model(Path(path)), int(least_opset), Path(path)), Path(target), Path(path))
    folded = onnx.load_model(target)
    if prepared(folded) | _noted_types(folded):
        Path(target).write_bytes(folded.SerializeToString(deterministic=True))
