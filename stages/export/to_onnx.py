"""`fp32.onnx`: the trained network with its learned clips and without its rounding."""

from __future__ import annotations

from pathlib import Path

from torch import fx, nn
from torch.nn.utils import parametrize

from foundation.artifacts import Checkpoint, OnnxModel
from foundation.files import sha256_of_file
from stages.export.constant_modules import ConstantAffine, ConstantClip
from stages.export.onnx_file import write_onnx
from stages.export.settings import ExportSettings
from stages.network.checkpoint import load_checkpoint
from stages.network.quantized_layer import FloatNorm, QuantizedLayer
from stages.network.quantizers import ClipQuantizer, InputQuantizer, set_rounding


def export_fp32(checkpoint: Checkpoint, settings: ExportSettings, path: Path) -> OnnxModel:
    """Write the float baseline that every other variant is compared with, and its record.

    Batch norms are folded into the convolutions; each α becomes the upper bound of a Clip node.
    """
    spec, network = load_checkpoint(checkpoint)
    if isinstance(network, fx.GraphModule):
        _without_rounding(network)
    write_onnx(network, spec, settings, "fp32", checkpoint.sha256, path)
    model = OnnxModel("fp32", path, sha256_of_file(path), checkpoint.sha256, settings.model_dump(mode="json"))
    model.write_record()
    return model


def _without_rounding(network: fx.GraphModule) -> None:
    set_rounding(network, False)
    for name, module in list(network.named_modules()):
        if isinstance(module, QuantizedLayer):
            parametrize.remove_parametrizations(module.layer, "weight", leave_parametrized=True)
            network.set_submodule(name, nn.Sequential(module.layer, module.norm or nn.Identity()))
    for name, module in list(network.named_modules()):
        if isinstance(module, ClipQuantizer):
            network.set_submodule(name, ConstantClip(*module.bounds))
        elif isinstance(module, FloatNorm):
            network.set_submodule(name, ConstantAffine(*module.affine()))
        elif isinstance(module, InputQuantizer):
            network.set_submodule(name, nn.Identity())
