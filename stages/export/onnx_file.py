"""Write a PyTorch module of images to logits as one ONNX file that says what it is."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from foundation.files import atomic_path
from onnx_files.preprocessing import Preprocessing
from stages.export.settings import ExportSettings
from stages.network.checkpoint import NetworkSpec
from stages.network.normalisation import normalise

OPSET = 21


class _Deployed(nn.Module):
    """The network as a device calls it: pixels in, normalisation inside."""

    def __init__(self, network: nn.Module, spec: NetworkSpec, input_type: str) -> None:
        super().__init__()
        self.network = network
        self.mean = spec.mean
        self.std = spec.std
        self.normalises = input_type == "uint8"

    def forward(self, image: Tensor) -> Tensor:
        return self.network(normalise(image, self.mean, self.std) if self.normalises else image)  # type: ignore[no-any-return]


def write_onnx(
    network: nn.Module,
    spec: NetworkSpec,
    settings: ExportSettings,
    variant: str,
    parent_sha256: str,
    path: Path,
    passes: Sequence[Callable[[onnx.ModelProto], None]] = (),
) -> None:
    """Export a network to `path` (atomic, byte-deterministic) with a dynamic batch.

    Args:
        network: float32 [batch, channels, size, size], normalised, to logits [batch, classes]; evaluation mode.
        spec: classes, image form and normalisation, which also go into `metadata_props`.
        settings: the form of the input.
        variant: name that the file carries.
        parent_sha256: of the checkpoint.
        path: the file to write.
        passes: change the model in place, one after the other, before it is described, checked and written.

    The file has one input `image`, one output `logits`, opset 21, and passes `onnx.checker` with full checks.
    """
    dtype = torch.uint8 if settings.input_type == "uint8" else torch.float32
    # Two images, because a dimension of size one would be taken for a constant.
    example = torch.zeros(2, spec.channels, spec.image_size, spec.image_size, dtype=dtype)
    with _quiet_exporter():
        program = torch.onnx.export(
            _Deployed(network, spec, settings.input_type).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_traces(model)
    for rewrite in passes:
        rewrite(model)
    _describe(model, spec, settings, variant, parent_sha256)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _describe(
    model: onnx.ModelProto, spec: NetworkSpec, settings: ExportSettings, variant: str, parent_sha256: str
) -> None:
    preprocessing = Preprocessing(settings.input_type, spec.mean, spec.std, spec.image_size)
    tools = {name: version(name) for name in ("edgeproof", "torch", "onnx", "onnxscript")}
    properties = {
        **preprocessing.to_metadata(),
        "edgeproof.classes": json.dumps(spec.classes),
        "edgeproof.task": spec.task,
        "edgeproof.variant": variant,
        "edgeproof.parent_sha256": parent_sha256,
        "edgeproof.tools": json.dumps(tools, sort_keys=True),
        # Every Clip of such a network is a trained α, which a quantizer takes for the range.
        **({"edgeproof.learned_clips": "true"} if spec.pact else {}),
    }
    onnx.helper.set_model_props(model, properties)
    model.graph.name = spec.network
    model.producer_name = "edgeproof"
    model.producer_version = tools["edgeproof"]


def _strip_traces(model: onnx.ModelProto) -> None:
    # The exporter notes source lines and paths of the machine it ran on: nothing that a shipped file should carry,
    # and different bytes on every machine.
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for field in ("metadata_props", "doc_string", "value_info"):  # shapes can be inferred again
        graph.ClearField(field)
    model.ClearField("metadata_props")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    # The exporter warns of optional packages that it does not need and of its own deprecated internals.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=r".*LeafSpec.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
