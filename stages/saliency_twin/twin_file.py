"""The twin as a file beside its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from foundation.files import sha256_of_file, write_bytes
from onnx_files.answers import AnswerForm
from onnx_files.judged_output import explained_tensor
from onnx_files.reading import read_foreign_model

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
        StageError: the twin breaks ONNX's rules.
    """
    from stages.saliency_twin.twin import build_twin

    return write_extended(
        path,
        twin_path(path) if output is None else output,
        lambda model: build_twin(model, input_name, logits_name or told_logits(model)),
    )


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


def write_extended(path: Path, output: Path, extend: Callable[[ModelProto], ModelProto]) -> Path:
    """Write what `extend` makes of a model, with the model's metadata and digest, and return its path.

    Raises:
        UsageError: no such model or none that can be read, or the output is the model itself.
    """
    import onnx

    if output.resolve() == path.resolve():
        raise UsageError(f"--output: expected another file than the model, found {path} itself. Choose another name.")
    model = read_foreign_model(path)
    try:
        twin = extend(model)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    twin.ClearField("metadata_props")
    onnx.helper.set_model_props(twin, dict(sorted((metadata | {TWIN_OF_KEY: sha256_of_file(path)}).items())))
    write_bytes(output, twin.SerializeToString(deterministic=True))
    return output
