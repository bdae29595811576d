"""A model from elsewhere run once on a blank image, in a child process: what takes all memory or time does so there.

What a model computes on other images can still be more; nothing limits that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from onnx_files.reading import guarded, read_model

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession


def run_guarded_once(proto: ModelProto, path: Path, shape: Sequence[int]) -> None:
    """Run a model on a blank image in a child process.

    Args:
        proto: the model.
        path: of its file, for its size and for messages.
        shape: of the input, the batch first.

    Raises:
        UsageError: the model cannot be run on that, or exhausts the child's memory or time, or crashes it.
    """
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as scratch:
        copy = Path(scratch) / "model.onnx"
        copy.write_bytes(proto.SerializeToString())
        arguments = (str(path), str(copy), ",".join(map(str, shape)))
        guarded(path, "onnx_files.trial_run:run_in_child", arguments, "answer one image")


# --- in the child ---


def check_in_child(path: str) -> None:
    """Read a model as `read_model` does and run it once, where that may break the process."""
    try_out(Path(path), read_model(Path(path)).SerializeToString())


def run_in_child(path: str, copy: str, shape: str) -> None:
    """Do what `run_guarded_once` does, where that may break the process."""
    try_out(Path(path), Path(copy).read_bytes(), tuple(int(size) for size in shape.split(",")))


def try_out(path: Path, content: bytes, shape: Sequence[int] | None = None, optimized: Path | None = None) -> None:
    """Load a model into ONNX Runtime and run it once on zeros.

    Args:
        path: of its file, for messages.
        content: the model.
        shape: of its input; None to take it from the model. Sizes that the file leaves open (but for the batch) are
            the caller's to know, so such a file is loaded and not run.
        optimized: a file to write the model to as ONNX Runtime's basic optimizations leave it; None for none.

    Raises:
        UsageError: ONNX Runtime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimized)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        _run_once(session, shape)
    except Exception as error:  # ONNX Runtime's own errors have no base of theirs
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"{path}: expected a model that ONNX Runtime {onnxruntime.__version__} can run, found one that it "
            f"refuses ({reason}). Export the model with operators that it has."
        ) from error


def _run_once(session: InferenceSession, shape: Sequence[int] | None) -> None:
    import numpy as np

    inputs = session.get_inputs()
    types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in types:
        return
    batch, *sizes = inputs[0].shape if shape is None else shape
    if all(isinstance(size, int) and size > 0 for size in sizes):
        blank = np.zeros([batch if isinstance(batch, int) else 1, *sizes], types[inputs[0].type])
        session.run(None, {inputs[0].name: blank})
