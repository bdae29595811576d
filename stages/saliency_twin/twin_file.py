"""The twin as a file beside its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import sha256_of_file, write_bytes
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto

TWIN_OF_KEY = "edgeproof.twin_of"
"""In the twin's metadata: sha256 of the file that it explains."""
LARGEST_FILE_BYTES = 1_500_000_000
"""An ONNX file ends at 2 GB, and a twin is its model and a little more."""


def twin_path(path: Path) -> Path:
    """Return where the twin of a model stands: `VARIANT.saliency.onnx` beside `VARIANT.onnx`."""
    return path.with_name(f"{path.stem}.saliency.onnx")


def make_twin(path: Path, output: Path | None, input_name: str | None, logits_name: str | None) -> Path:
    """Write the saliency twin of any ONNX classifier and return its path.

    The model's metadata is carried over. The same model gives the same bytes.

    Args:
        path: the model, one self-contained file.
        output: the file to write; None for `NAME.saliency.onnx` beside the model.
        input_name: the image's input, where there are several.
        logits_name: the tensor to explain, where there are several outputs, or one within the graph.

    Raises:
        UsageError: no such model, a name is missing, or an operator has no rule.
        StageError: the twin breaks ONNX's rules.
    """
    import onnx

    from stages.saliency_twin.twin import build_twin

    output = twin_path(path) if output is None else output
    if output.resolve() == path.resolve():
        raise UsageError(f"--output: expected another file than the model, found {path} itself. Choose another name.")
    model = _read(path)
    try:
        twin = build_twin(model, input_name, logits_name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    twin.ClearField("metadata_props")
    onnx.helper.set_model_props(twin, dict(sorted((metadata | {TWIN_OF_KEY: sha256_of_file(path)}).items())))
    write_bytes(output, twin.SerializeToString(deterministic=True))
    return output


def _read(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    advice = "Give the path of a classifier in ONNX format."
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise UsageError(
                f"{path}: expected at most {LARGEST_FILE_BYTES:,} bytes, found {size:,}. "
                "A larger model does not fit into one ONNX file with its twin."
            )
        model = onnx.load_model(path, load_external_data=False)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise UsageError(
                f"{path}: expected one self-contained file, found weights in external data. "
                "Save the model with save_as_external_data=False."
            )
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected an ONNX model, found no file. {advice}") from error
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["it cannot be parsed"])[0]
        raise UsageError(f"{path}: expected an ONNX model, found something else ({reason}). {advice}") from error
    return model
