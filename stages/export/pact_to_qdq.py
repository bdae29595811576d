"""The trained integers and the learned α as an ONNX file: no calibration, no graph surgery."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # defines torch.ops.quantized_decomposed
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from calibration_data.preprocessing import Preprocessing
from pipeline.artifacts import Checkpoint, OnnxModel, sha256_of_file
from pipeline.errors import StageError, UsageError
from pipeline.processor import CpuTarget, detect_cpu
from stages.export.onnx_file import write_onnx
from stages.export.settings import ExportSettings, PactExportSettings
from stages.network.checkpoint import NetworkSpec, load_checkpoint
from stages.network.normalisation import normalise
from stages.network.quantized_layer import Grid, LayerIntegers, QuantizedLayer
from stages.network.quantizers import ClipQuantizer, InputQuantizer

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor
_DEQUANTIZE_CHANNELS = torch.ops.quantized_decomposed.dequantize_per_channel
MAX_DIFFERENCE = 1e-3
"""Greatest difference between the file's logits and the network's, relative to the logits' range."""
MIN_AGREEMENT = 0.999
"""Least share of images on which both give the same answer."""
_BATCH = 64
_INT16_MAX = 2**15 - 1
_INT32_MAX = 2**31 - 1


class GridQuantizer(nn.Module):
    """QuantizeLinear and DequantizeLinear in uint8; a signed grid has its zero at 128."""

    def __init__(self, scale: float, zero_point: int, clip: tuple[float, float] | None) -> None:
        super().__init__()
        self.scale = scale
        self.zero_point = zero_point
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        """Return x on the grid; any shape, float32."""
        if self.clip is not None:
            x = x.clamp(*self.clip)
        arguments = (self.scale, self.zero_point, 0, 255, torch.uint8)
        return cast(Tensor, _DEQUANTIZE(_QUANTIZE(x, *arguments), *arguments))


class DequantizedWeight(nn.Module):
    """A parametrization that ignores the float weight: the stored integers through DequantizeLinear."""

    integers: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, integers: Tensor, scale: Tensor, unsigned: bool) -> None:
        super().__init__()
        self.dtype = torch.uint8 if unsigned else torch.int8
        offset = 128 if unsigned else 0
        self.register_buffer("integers", (integers.to(torch.int16) + offset).to(self.dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.full(scale.shape, offset, dtype=torch.int64))

    def forward(self, _: Tensor) -> Tensor:
        """Return the weight in float32."""
        bounds = (0, 255) if self.dtype == torch.uint8 else (-128, 127)
        return cast(Tensor, _DEQUANTIZE_CHANNELS(self.integers, self.scale, self.zero_point, 0, *bounds, self.dtype))


class DequantizedBias(nn.Module):
    """A parametrization that ignores the float bias: stored int32 through DequantizeLinear."""

    integers: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(scale.shape, dtype=torch.int64))

    def forward(self, _: Tensor) -> Tensor:
        """Return the bias in float32."""
        bounds = (-_INT32_MAX - 1, _INT32_MAX)
        return cast(Tensor, _DEQUANTIZE_CHANNELS(self.integers, self.scale, self.zero_point, 0, *bounds, torch.int32))


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
    unsigned_layers = to_integers(network, target)
    write_onnx(network, spec, export, variant, checkpoint.sha256, path)
    parity = _parity(expected, _run(path, export, spec, images))
    if parity["max_difference_relative"] > MAX_DIFFERENCE or parity["top1_agreement"] < MIN_AGREEMENT:
        path.unlink()
        raise StageError(
            f"{path.name}: expected logits within {MAX_DIFFERENCE} of their range from the network's own fake "
            f"quantization and the same answer on {MIN_AGREEMENT:.1%} of {parity['images']} images, found "
            f"{parity['max_difference_relative']:.2g} and {parity['top1_agreement']:.2%}. This processor's integer "
            f"kernels differ from those of {target!r}; set `target` to the processor at hand."
        )
    model = OnnxModel(
        variant,
        path,
        sha256_of_file(path),
        "pact",
        checkpoint.sha256,
        settings.model_dump(mode="json"),
        {
            "weight_bits": spec.pact.weight_bits,
            "activation_bits": spec.pact.activation_bits,
            "target": target,
            "layers_stored_unsigned": unsigned_layers,
            "parity": parity,
        },
    )
    model.write_record()
    return model


def to_integers(network: fx.GraphModule, target: CpuTarget) -> list[str]:
    """Replace fake quantization by stored integers, in place; return the layers whose weights are stored unsigned.

    Args:
        network: from `insert_pact`, in evaluation mode.
        target: the processor whose kernels the storage must suit.
    """
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
            network.set_submodule(name, _grid_quantizer(module))
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


def _grid_quantizer(quantizer: Grid) -> GridQuantizer:
    scale = float(quantizer.scale)
    if isinstance(quantizer, InputQuantizer):
        return GridQuantizer(scale, int(quantizer.zero_point), None)
    # With 8 bits uint8's own ends are the clip; with fewer the clip must be stated.
    clip = quantizer.bounds if quantizer.bits < 8 else None
    return GridQuantizer(scale, 128 if quantizer.signed else 0, clip)


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


def _batches(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]


def _parity(expected: Tensor, found: Tensor) -> dict[str, float]:
    return {
        "images": len(expected),
        "max_difference_relative": ((found - expected).abs().max() / (expected.max() - expected.min())).item(),
        "top1_agreement": (found.argmax(1) == expected.argmax(1)).double().mean().item(),
    }
