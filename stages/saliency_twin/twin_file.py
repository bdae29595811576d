"""The twin as a file beside its model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import UsageError
from foundation.files import write_bytes
from onnx_files.answers import AnswerForm
from onnx_files.judged_output import explained_tensor
from onnx_files.reading import guarded

if TYPE_CHECKING:
    from onnx import ModelProto

TWIN_OF_KEY = "edgeproof.twin_of"
"""In the twin's metadata: sha256 of the file that it explains."""


def twin_path(path: Path) -> Path:
    """Return where the twin of a model stands: `VARIANT.saliency.onnx` beside `VARIANT.onnx`."""
    return path.with_name(f"{path.stem}.saliency.onnx")


def make_twin(path: Path, output: Path | None, input_name: str | None, logits_name: str | None) -> Path:
    """Write the saliency twin of any ONNX classifier and return its path.

    The model's metadata is carried over. The same model gives the same bytes.

    Args:
        path: the model, with its weights within or beside it.
        output: the file to write; None for `NAME.saliency.onnx` beside the model.
        input_name: the image's input, where there are several.
        logits_name: the tensor to explain, where there are several outputs, or one within the graph.

    Raises:
        UsageError: no such model or none that can be read, a name is missing, or an operator has no rule.
    """
    return write_extended("gradient", path, twin_path(path) if output is None else output, input_name, logits_name)


def told_logits(model: ModelProto) -> str | None:
    """Return the tensor to explain of a model whose metadata say what it answers with; None where they do not.

    Raises:
        UsageError: the entry is none of ours.
    """
    try:
        answers = AnswerForm.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    except ValueError as error:
        raise UsageError(f"{error}. Remove the entry.") from error
    return explained_tensor(model, answers.output) if answers else None


def write_extended(
    kind: Literal["gradient", "grad_cam"],
    path: Path,
    output: Path,
    input_name: str | None,
    logits_name: str | None,
) -> Path:
    """Write a model with a map of its answers drawn into it, with its metadata and digest, and return its path.

    The file may come from anywhere, and inferring its shapes can take all memory there is, so it is read and drawn
    into in a child process with limits; here nothing of it is parsed.

    Args:
        kind: of the map.
        path: the model.
        output: the file to write.
        input_name: as in `make_twin`.
        logits_name: likewise.

    Raises:
        UsageError: no such model or none that can be read, the output is the model itself, or the kind of map is none
            for this model.
    """
    if output.resolve() == path.resolve():
        raise UsageError(f"--output: expected another file than the model, found {path} itself. Choose another name.")
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as scratch:
        drawn = Path(scratch) / "twin.onnx"
        arguments = (kind, str(path), str(drawn), input_name or "", logits_name or "")
        guarded(path, "stages.saliency_twin.drawing:draw_in_child", arguments, "be read and explained")
        write_bytes(output, drawn.read_bytes())
    return output
