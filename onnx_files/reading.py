"""ONNX files read with care: what may come from elsewhere is parsed in a process of its own before we touch it.

A file that was made to do harm can hang or crash the parser, ask for all memory, or name weights anywhere on the
disk. So a foreign file is first read by a child with limits on memory and time, and only what that child survived is
read here. Weights beside the model (ONNX's external data) are taken from its folder and from nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foundation.child import BrokenChildError, Limits, run_guarded
from foundation.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST_FILE_BYTES = 1_500_000_000
"""With its weights. A protobuf ends at 2 GB, and what we write of a model can be larger than the model."""
TIME_LIMIT_S = 120
ADDRESS_SPACE_BYTES = 4_000_000_000
"""On top of six times the file: the parsed model, its weights once more, and what the checker infers."""

_ADVICE = "Give the path of a classifier in ONNX format."


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file and check it against ONNX's rules; weights beside it are taken in.

    Args:
        path: the model.

    Raises:
        UsageError: no such file, too large, no ONNX model, or weights that lie outside the model's folder.
    """
    import onnx
    from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import load_external_data_for_model

    try:
        _check_size(path, path.stat().st_size)
        model = onnx.load_model(path, load_external_data=False)
        # Refuses what lies outside the folder, links, and offsets beyond a file's end.
        load_external_data_for_model(model, str(path.parent))
        _check_size(path, model.ByteSize())
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected an ONNX model, found no file. {_ADVICE}") from error
    except (DecodeError, EncodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["it cannot be parsed"])[0]
        raise UsageError(f"{path}: expected an ONNX model, found something else ({reason}). {_ADVICE}") from error
    return model


def read_foreign_model(path: Path) -> ModelProto:
    """Read an ONNX file that may come from anywhere: in a child process with limits first, then here.

    Raises:
        UsageError: as `read_model`, or the file exhausts the child's memory or time, or crashes its parser.
    """
    size_bytes = path.stat().st_size if path.is_file() else 0
    limits = Limits(ADDRESS_SPACE_BYTES + 6 * size_bytes, TIME_LIMIT_S)
    try:
        run_guarded("onnx_files.reading:check_in_child", (str(path),), limits)
    except BrokenChildError as error:
        if error.too_slow:
            raise UsageError(
                f"{path}: expected an ONNX model that can be read within {TIME_LIMIT_S} s, found one that takes "
                "longer."
            ) from error
        raise UsageError(
            f"{path}: expected an ONNX model, found a file that breaks the parser ({error}) "
            f"or needs more than {ADDRESS_SPACE_BYTES / 1e9:g} GB to be read. {_ADVICE}"
        ) from error
    return read_model(path)


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


def _check_size(path: Path, size_bytes: int) -> None:
    if size_bytes > LARGEST_FILE_BYTES:
        raise UsageError(
            f"{path}: expected at most {LARGEST_FILE_BYTES:,} bytes with its weights, found {size_bytes:,}. "
            "A larger model does not fit into one ONNX file with what is written of it."
        )


def check_in_child(path: str) -> None:
    """Read a model as `read_model` does, where that may break the process."""
    read_model(Path(path))
