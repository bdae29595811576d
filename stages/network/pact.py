"""Put PACT into a network that was written without it: one graph pass, no change to the network's source.

Where the quantizers go, and why:

1. every ReLU and ReLU6 becomes a `ClipQuantizer` with an α of its own, also where one module is called twice; with
   `shortcut_bits`, what goes past the layers keeps those bits and a second clip takes it to the layers' own;
2. every convolution and linear layer, with the batch norm behind it, becomes a `QuantizedLayer`;
3. the image is quantized on 256 levels that span all channels' values, and every other input of such a layer that is
   not yet on a grid (after an average pool or an addition, say) at 8 bits;
4. a layer whose result reaches something other than a ReLU (a residual addition, say) gets a signed 8-bit clip
   behind its batch norm, because an integer convolution needs a grid at its output. The logits stay in float;
5. a batch norm that stands behind no layer (DenseNet's) stays in float, as a `FloatNorm`.

The first and the last layer stay at 8 bits (paper, section 4: quantizing them further costs most of the accuracy).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from foundation.errors import UsageError
from stages.network.bit_widths import EDGE_BITS, Bits, bits_of_layers
from stages.network.quantized_layer import FloatNorm, QuantizedLayer
from stages.network.quantizers import ClipQuantizer, InputQuantizer, learned_step_start
from stages.network.settings import PactSettings
from stages.network.traced import (
    BATCH_NORMS,
    batch_norm_after,
    branches_into_layers,
    clip_after,
    grid_of,
    insert_after,
    insert_between,
    is_average,
    is_nonnegative,
    is_relu,
    is_relu6,
    layers_fed_by,
    module_of,
    replace_call,
    weighted_layers,
)
from stages.network.tracing import trace
from stages.network.weight_quantizers import LearnedStepWeights, weight_quantizer

PACT_PREFIX = "pact_"
"""Name of the modules that stand where a ReLU stood."""


def insert_pact(
    network: nn.Module, settings: PactSettings, mean: tuple[float, ...], std: tuple[float, ...]
) -> fx.GraphModule:
    """Return the network with fake quantization in it; parameters are shared with `network`.

    Args:
        network: takes one normalised image batch [batch, channels, height, width], returns logits.
        settings: bit widths, quantizers and the clips' initial value.
        mean, std: the normalisation per channel, which bounds the input's range.

    Raises:
        UsageError: the network cannot be traced, has no ReLU to clip or no layer to quantize, or does not have the
            layers that `layer_bits` names.
    """
    graph_module = trace(network, "train.pact")
    low = min((0.0 - m) / s for m, s in zip(mean, std, strict=True))
    high = max((1.0 - m) / s for m, s in zip(mean, std, strict=True))
    layers = weighted_layers(graph_module)
    bits = bits_of_layers(_names_of(layers), settings)
    _clip_relus(graph_module, settings, bits)
    _quantize_layer_outputs(graph_module, layers, settings)
    _quantize_layer_inputs(graph_module, layers, settings, InputQuantizer(low, high))
    _quantize_layers(graph_module, layers, settings, bits)
    _keep_other_norms_in_float(graph_module)
    _tell_clips_of_averages(graph_module)
    graph_module.delete_all_unused_submodules()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def fit_clips(network: nn.Module, images: Tensor) -> None:
    """Give the learned ranges their first value from some images and from the weights, in place.

    PACT's own clips keep their large initial value and learn it down. The clips inserted at 8 bits only give integers
    a range; they start at the largest magnitude they see, where they cut nothing off. LSQ's start as its
    section 2.1 says, learned steps of weights where a normal distribution loses least.

    Args:
        network: from `insert_pact`, in training mode, so that the batch's own statistics normalise it.
        images: normalised batch [batch, channels, height, width].
    """

    def fit(clip: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(clip, ClipQuantizer)
        values = inputs[0].float() if clip.signed else inputs[0].float().clamp(min=0)
        start = learned_step_start(values, clip.levels) if clip.learning == "lsq" else values.abs().amax()
        clip.alpha.copy_(start.clamp(min=1e-3))

    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    hooks = [
        module.register_forward_pre_hook(fit)
        for name, module in network.named_modules()
        if isinstance(module, ClipQuantizer) and (module.learning == "lsq" or not name.startswith(PACT_PREFIX))
    ]
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, QuantizedLayer) and isinstance(layer.quantizer, LearnedStepWeights):
                layer.quantizer.fit(layer.original_weight)
        network(images)
        for name, buffer in network.named_buffers():
            buffer.copy_(statistics[name])
    for hook in hooks:
        hook.remove()


def _names_of(layers: list[fx.Node]) -> list[str]:
    names = [str(node.target) for node in layers]
    if not names:
        raise UsageError(
            "train.pact: expected a network with convolutions or linear layers, found none. Train it without `pact`."
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(
            f"train.pact: expected every layer to be called once, found {', '.join(sorted(twice))} called several "
            "times. Shared layers have one weight but several input scales; train this network without `pact`."
        )
    return names


def _clip_relus(graph_module: fx.GraphModule, settings: PactSettings, bits: dict[str, Bits]) -> None:
    relus = [node for node in graph_module.graph.nodes if is_relu(graph_module, node)]
    if not relus:
        raise UsageError(
            "train.pact: expected a network with ReLU or ReLU6, found none. PACT learns where those are clipped; "
            "train this network without `pact`."
        )
    for number, node in enumerate(relus):
        fed = [bits[str(layer.target)].activation for layer in layers_fed_by(graph_module, node)]
        into_layers = max(fed, default=settings.activation_bits)
        alpha = min(settings.alpha_init, 6.0) if is_relu6(graph_module, node) else settings.alpha_init
        past_layers = branches_into_layers(graph_module, node) != [(node, list(node.users))]
        own = max(into_layers, settings.shortcut_bits or 0) if past_layers else into_layers
        clip = ClipQuantizer(own, alpha, signed=False, learning=settings.activation_quantizer)
        clipped = replace_call(graph_module, node, f"{PACT_PREFIX}{number}", clip)
        if own == into_layers:
            continue
        for branch, (source, users) in enumerate(branches_into_layers(graph_module, clipped)):
            clip = ClipQuantizer(into_layers, alpha, signed=False, learning=settings.activation_quantizer)
            insert_between(graph_module, source, users, f"{PACT_PREFIX}{number}_layers_{branch}", clip)


def _quantize_layer_outputs(graph_module: fx.GraphModule, layers: list[fx.Node], settings: PactSettings) -> None:
    for number, layer in enumerate(layers):
        end = batch_norm_after(graph_module, layer) or layer
        clipped = all(isinstance(module_of(graph_module, user), ClipQuantizer) for user in end.users)
        if clipped or any(user.op == "output" for user in end.users):
            continue
        insert_after(graph_module, end, f"output_clip_{number}", _inserted_clip(settings, signed=True))


def _quantize_layer_inputs(
    graph_module: fx.GraphModule, layers: list[fx.Node], settings: PactSettings, image: InputQuantizer
) -> None:
    for number, layer in enumerate(layers):
        source = layer.args[0]
        if not isinstance(source, fx.Node) or grid_of(graph_module, source) is not None:
            continue
        if source.op == "placeholder":
            insert_after(graph_module, source, "image_quantizer", image)
        else:
            clip = _inserted_clip(settings, signed=not is_nonnegative(graph_module, source))
            insert_after(graph_module, source, f"input_clip_{number}", clip)


def _inserted_clip(settings: PactSettings, signed: bool) -> ClipQuantizer:
    return ClipQuantizer(EDGE_BITS, settings.alpha_init, signed, settings.activation_quantizer)


def _quantize_layers(
    graph_module: fx.GraphModule, layers: list[fx.Node], settings: PactSettings, bits: dict[str, Bits]
) -> None:
    for number, node in enumerate(layers):
        source, norm = node.args[0], batch_norm_after(graph_module, node)
        grid = grid_of(graph_module, source) if isinstance(source, fx.Node) else None
        assert grid is not None, f"{node.target}: its input lies on no grid"
        module = graph_module.get_submodule(str(node.target))
        weight = module.weight
        assert isinstance(weight, Tensor)
        layer = QuantizedLayer(
            module,
            None if norm is None else graph_module.get_submodule(str(norm.target)),
            grid,
            clip_after(graph_module, norm or node),
            weight_quantizer(settings.weight_quantizer, bits[str(node.target)].weight, weight),
        )
        replace_call(graph_module, node, f"layer_{number}", layer)
        if norm is not None:
            norm.replace_all_uses_with(norm.all_input_nodes[0])
            graph_module.graph.erase_node(norm)


def _keep_other_norms_in_float(graph_module: fx.GraphModule) -> None:
    norms = [node for node in graph_module.graph.nodes if isinstance(module_of(graph_module, node), BATCH_NORMS)]
    for number, node in enumerate(norms):
        norm = graph_module.get_submodule(str(node.target))
        replace_call(graph_module, node, f"norm_{number}", FloatNorm(norm))


def _tell_clips_of_averages(graph_module: fx.GraphModule) -> None:
    for node in graph_module.graph.nodes:
        clip = module_of(graph_module, node)
        if isinstance(clip, ClipQuantizer):
            clip.averages = is_average(graph_module, node.all_input_nodes[0])
