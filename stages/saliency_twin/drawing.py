"""A map drawn into a model that may come from anywhere; a child process does it, since it may break on the file."""

from __future__ import annotations

from pathlib import Path

from foundation.errors import EdgeproofError, UsageError
from foundation.files import sha256_of_file
from onnx_files.reading import read_model
from stages.saliency_twin.twin_file import TWIN_OF_KEY, told_logits


def draw_in_child(kind: str, path: str, target: str, input_name: str, logits_name: str) -> None:
    """Write what `twin_file.write_extended` delivers.

    Args:
        kind: "gradient" or "grad_cam".
        path: the model.
        target: the file to write.
        input_name: the image's input; empty where the model has one.
        logits_name: the tensor to explain; empty where the model or its metadata leave one.

    Raises:
        UsageError: whatever is wrong with the model.
    """
    import onnx

    from stages.saliency_twin.grad_cam import build_grad_cam
    from stages.saliency_twin.twin import build_twin

    model = read_model(Path(path))
    try:
        build = {"gradient": build_twin, "grad_cam": build_grad_cam}[kind]
        twin = build(model, input_name or None, logits_name or told_logits(model))
    except EdgeproofError as error:
        raise UsageError(f"{path}: {error}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata[TWIN_OF_KEY] = sha256_of_file(Path(path))
    twin.ClearField("metadata_props")
    onnx.helper.set_model_props(twin, dict(sorted(metadata.items())))
    Path(target).write_bytes(twin.SerializeToString(deterministic=True))
