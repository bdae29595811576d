"""The trained integers and the learned α as an ONNX file: no calibration, no graph surgery."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from foundation.artifacts import Checkpoint, OnnxModel
from foundation.errors import StageError, UsageError
from foundation.files import sha256_of_file
from foundation.note_parts import Parity
from foundation.notes import PactNotes
from foundation.processor import CpuTarget, detect_cpu
from onnx_files.packed_weights import pack_weights
from onnx_files.preprocessing import Preprocessing
from stages.export.constant_modules import ConstantAffine, DequantizedBias, DequantizedWeight, GridQuantizer
from stages.export.onnx_file import write_onnx
from stages.export.settings import ExportSettings, PactExportSettings
from stages.network.checkpoint import NetworkSpec, load_checkpoint
from stages.network.normalisation import normalise
from stages.network.quantized_layer import FloatNorm, Grid, LayerIntegers, QuantizedLayer
from stages.network.quantizers import OFF_THE_TIE, ClipQuantizer, InputQuantizer

MAX_DIFFERENCE = 1e-3
"""Greatest difference between the file's logits and the network's, relative to the logits' range."""
MIN_AGREEMENT = 0.999
"""Least share of images on which both give the same answer."""
_BATCH = 64
_INTEGER_OPERATORS = ("QLinearConv", "QGemm", "QLinearMatMul")
_INT16_MAX = 2**15 - 1


def export_pact(
    checkpoint: Checkpoint,
    variant: str,
    settings: PactExportSettings,
    export: ExportSettings,
    images: NDArray[np.uint8],
    path: Path,
) -> OnnxModel:
    """Write the trained integers as a QDQ model and its record.

    Args:
        checkpoint: of a network trained with PACT.
        variant: name that the file carries.
        settings: the processor to store weights for.
        export: the form of the input.
        images: uint8 [n, channels, size, size] on which the file is held against the network's fake quantization.
        path: the file to write.

    Raises:
        UsageError: the network was trained without PACT.
        StageError: a layer's input lies on no grid.
    """
    spec, network = load_checkpoint(checkpoint)
    if spec.pact is None or not isinstance(network, fx.GraphModule):
        raise UsageError(
            f"variants.{variant}: expected a network trained with PACT, found one trained in plain float. "
            "Set `train.pact`, or remove this variant."
        )
    expected = _logits(network, images, spec.mean, spec.std)
    # An unknown processor gets what is exact everywhere.
    target = (detect_cpu().target or "x86-avx2") if settings.target == "auto" else settings.target
    layers = sum(isinstance(module, QuantizedLayer) for module in network.modules())
    unsigned_layers = to_integers(network, target)
    passes = [pack_weights] if settings.weight_storage == "packed" else []
    write_onnx(network, spec, export, variant, checkpoint.sha256, path, passes)
    parity = _parity(expected, _run(path, export, spec, images))
    if parity.max_difference_relative > MAX_DIFFERENCE or parity.top1_agreement < MIN_AGREEMENT:
        path.unlink()
        raise StageError(
            f"{path.name}: expected logits within {MAX_DIFFERENCE} of their range from the network's own fake "
            f"quantization and the same answer on {MIN_AGREEMENT:.1%} of {parity.images} images, found "
            f"{parity.max_difference_relative:.2g} and {parity.top1_agreement:.2%}. This processor's integer "
            f"kernels differ from those of {target!r}; set `target` to the processor at hand."
        )
    model = OnnxModel(
        variant,
        path,
        sha256_of_file(path),
        checkpoint.sha256,
        settings.model_dump(mode="json"),
        PactNotes(
            weight_bits=spec.pact.weight_bits,
            activation_bits=spec.pact.activation_bits,
            target=target,
            layers_stored_unsigned=tuple(unsigned_layers),
            layers=layers,
            layers_run_in_integers=_layers_in_integers(path),
            parity=parity,
        ),
    )
    model.write_record()
    return model


def to_integers(network: fx.GraphModule, target: CpuTarget) -> list[str]:
    """Replace fake quantization by stored integers, in place; return the layers whose weights are stored unsigned.

    Args:
        network: from `insert_pact`, in evaluation mode.
        target: the processor whose kernels the storage must suit.
    """
    layers = {name for name, module in network.named_modules() if isinstance(module, QuantizedLayer)}
    behind_layers = {user.target for node in network.graph.nodes if node.target in layers for user in node.users}
    unsigned_layers = []
    for name, module in list(network.named_modules()):
        if isinstance(module, QuantizedLayer):
            integers = module.integers()
            unsigned = target == "x86-avx2" and may_saturate(module.layer, integers.weight, _greatest(module.grid))
            if unsigned:
                unsigned_layers.append(name)
            network.set_submodule(name, _stored(module.layer, integers, unsigned))
    for name, module in list(network.named_modules()):
        if isinstance(module, ClipQuantizer | InputQuantizer):
            network.set_submodule(name, _grid_quantizer(module, name in behind_layers))
        elif isinstance(module, FloatNorm):
            network.set_submodule(name, ConstantAffine(*module.affine()))
    return unsigned_layers


def may_saturate(module: nn.Module, weight: Tensor, greatest_input: int) -> bool:
    """Return whether x86's 16-bit multiply-add without VNNI could overflow on these weights.

    VPMADDUBSW adds two products of an unsigned and a signed byte in int16. Which two weights meet depends on the
    kernel's packing, so the bound takes the two greatest of each channel and sign.

    Args:
        module: the layer; depthwise convolutions use a kernel that widens first and cannot overflow.
        weight: int8 [out, …].
        greatest_input: the greatest unsigned integer at the layer's input.
    """
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels:
        return False
    channels = weight.flatten(1).to(torch.int32)
    pair = min(2, channels.shape[1])
    up = channels.clamp(min=0).topk(pair, dim=1).values.sum(dim=1).max().item()
    down = (-channels).clamp(min=0).topk(pair, dim=1).values.sum(dim=1).max().item()
    return up * greatest_input > _INT16_MAX or down * greatest_input > _INT16_MAX + 1


def _greatest(grid: Grid) -> int:
    return grid.levels if isinstance(grid, ClipQuantizer) and not grid.signed else 255


def _stored(layer: nn.Module, integers: LayerIntegers, unsigned: bool) -> nn.Module:
    parametrize.remove_parametrizations(layer, "weight")
    weight = DequantizedWeight(integers.weight, integers.weight_scale, unsigned)
    parametrize.register_parametrization(layer, "weight", weight, unsafe=True)
    if integers.bias is not None:
        layer.bias = nn.Parameter(torch.zeros_like(integers.bias_scale))
        bias = DequantizedBias(integers.bias, integers.bias_scale)
        parametrize.register_parametrization(layer, "bias", bias, unsafe=True)
    return layer


def _grid_quantizer(quantizer: Grid, behind_layer: bool) -> GridQuantizer:
    scale = float(quantizer.scale)
    if isinstance(quantizer, InputQuantizer):
        return GridQuantizer(scale, int(quantizer.zero_point), 255, behind_layer, 1)
    zero_point = 128 if quantizer.signed else 0
    factor = OFF_THE_TIE if quantizer.averages else 1
    return GridQuantizer(scale, zero_point, quantizer.levels + zero_point, behind_layer, factor)


def _logits(network: nn.Module, images: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(normalise(torch.from_numpy(batch), mean, std)) for batch in _batches(images)])


def _run(path: Path, export: ExportSettings, spec: NetworkSpec, images: NDArray[np.uint8]) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    preprocessing = Preprocessing(export.input_type, spec.mean, spec.std, spec.image_size)
    logits = [session.run(["logits"], {"image": preprocessing.to_input(batch)})[0] for batch in _batches(images)]
    return torch.from_numpy(np.concatenate(logits))


def _layers_in_integers(path: Path) -> int:
    """Return how many layers ONNX Runtime runs in integers on this machine, once it has optimized the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that what is written here suits this machine only
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return sum(node.op_type in _INTEGER_OPERATORS for node in nodes)


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]


def _parity(expected: Tensor, found: Tensor) -> Parity:
    return Parity(
        images=len(expected),
        max_difference_relative=((found - expected).abs().max() / (expected.max() - expected.min())).item(),
        top1_agreement=(found.argmax(1) == expected.argmax(1)).double().mean().item(),
    )
