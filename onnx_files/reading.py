"""ONNX files read with care: what may come from elsewhere is parsed in a process of its own before we touch it.

A file that was made to do harm can hang or crash the parser, ask for all memory, or name weights anywhere on the
disk. So a foreign file is first read by a child with limits on memory and time, and only what that child survived is
read here. Weights beside the model (ONNX's external data) are taken from its folder and from nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foundation.child import BrokenChildError, run_guarded
from foundation.errors import UsageError
from onnx_files.limits import LARGEST_FILE_BYTES, MOST_NODES, limits_for, number_of_nodes, size_with_weights

if TYPE_CHECKING:
    from onnx import ModelProto

_ADVICE = "Give the path of a classifier in ONNX format."


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file and check it against ONNX's rules; weights beside it are taken in.

    Args:
        path: the model.

    Raises:
        UsageError: no such file, too large, too many nodes, no ONNX model, or weights that lie outside the model's
            folder.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_model

    from onnx_files.preparation import mended  # which reads graphs, and those are read here

    try:
        _check_size(path, path.stat().st_size)
        model = onnx.load_model(path, load_external_data=False)
        _check_nodes(path, number_of_nodes(model))
        _check_size(path, path.stat().st_size + _bytes_beside(model, path.parent))
        # Refuses what lies outside the folder, links, and offsets beyond a file's end.
        load_external_data_for_model(model, str(path.parent))
        _check_size(path, model.ByteSize())
        model = mended(model)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected an ONNX model, found no file. {_ADVICE}") from error
    except UsageError:
        raise
    except Exception as error:  # protobuf, the checker and the reader of weights raise errors of many kinds
        reason = (str(error).strip().splitlines() or ["it cannot be parsed"])[0]
        raise UsageError(f"{path}: expected an ONNX model, found something else ({reason}). {_ADVICE}") from error
    return model


def read_foreign_model(path: Path) -> ModelProto:
    """Read an ONNX file that may come from anywhere: in a child process with limits first, then here.

    In the child it also runs once on a blank image, if it says how large one is.

    Raises:
        UsageError: as `read_model`, or ONNX Runtime refuses it, or it exhausts the child's memory or time, or crashes
            it.
    """
    guarded(path, "onnx_files.trial_run:check_in_child", (str(path),), "be read")
    return read_model(path)


def guarded(path: Path, function: str, arguments: tuple[str, ...], what: str) -> None:
    """Let a child process do something with a foreign model, within limits that follow the model's size.

    Args:
        path: the model, for its size and for messages.
        function: `module:function`, as for `run_guarded`.
        arguments: of the function.
        what: it does, as "be read" goes on after "that can".

    Raises:
        UsageError: what the function raised, or the file exhausts the child's memory or time, or crashes it.
    """
    limits = limits_for(size_with_weights(path))
    try:
        run_guarded(function, arguments, limits)
    except BrokenChildError as error:
        if error.too_slow:
            raise UsageError(
                f"{path}: expected an ONNX model that can {what} within {limits.seconds:g} s, found one that takes "
                "longer. Give a smaller model, or another export of it."
            ) from error
        raise UsageError(
            f"{path}: expected an ONNX model that can {what}, found a file that breaks the parser ({error}) "
            f"or needs more than {limits.address_space_bytes / 1e9:.2g} GB for it. {_ADVICE}"
        ) from error


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files beside a model that hold weights of it, sorted; the model was read before.

    Args:
        path: the model.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    proto = onnx.load_model(path, load_external_data=False)
    tensors = [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]
    return tuple(path.parent / name for name in sorted({ExternalDataInfo(tensor).location for tensor in tensors}))


def _bytes_beside(model: ModelProto, folder: Path) -> int:
    """Return how many bytes of weights would be read from other files; what is not there is refused later."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    total = 0
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            beside = folder / info.location
            size = beside.stat().st_size if beside.is_file() else 0
            total += min(size, info.length or size)
    return total


def _check_size(path: Path, size_bytes: int) -> None:
    if size_bytes > LARGEST_FILE_BYTES:
        raise UsageError(
            f"{path}: expected at most {LARGEST_FILE_BYTES:,} bytes with its weights, found {size_bytes:,}. "
            "A larger model does not fit into one ONNX file with what is written of it."
        )


def _check_nodes(path: Path, nodes: int) -> None:
    if nodes > MOST_NODES:
        raise UsageError(
            f"{path}: expected at most {MOST_NODES:,} nodes, found {nodes:,}. Export the model with its constants "
            "folded and without unrolled loops."
        )
