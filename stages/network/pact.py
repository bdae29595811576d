"""Put PACT into a network that was written without it: one graph pass, no change to the network's source.

Where the quantizers go, and why:

1. every ReLU and ReLU6 becomes a `ClipQuantizer` with an α of its own, also where one module is called twice;
2. every convolution and linear layer, with the batch norm behind it, becomes a `QuantizedLayer`;
3. the image is quantized on 256 levels that span all channels' values, and every other input of such a layer that is
   not yet on a grid (after an average pool or an addition, say) at 8 bits;
4. a layer whose result reaches something other than a ReLU (a residual addition, say) gets a signed 8-bit clip
   behind its batch norm, because an integer convolution needs a grid at its output. The logits stay in float.

The first and the last layer stay at 8 bits (paper, section 4: quantizing them further costs most of the accuracy).
"""

from __future__ import annotations

import operator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pipeline.errors import UsageError
from stages.network import PactSettings
from stages.network.quantized_layer import QuantizedLayer
from stages.network.quantizers import ClipQuantizer, InputQuantizer

EDGE_BITS = 8
"""Bits of the first and the last layer and of every tensor that the paper keeps in float."""

PACT_PREFIX = "pact_"
"""Name of the modules that stand where a ReLU stood."""


WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RELU_MODULES = (nn.ReLU, nn.ReLU6)
_RELU_FUNCTIONS = (F.relu, F.relu6, torch.relu, torch.relu_)
_RELU_METHODS = ("relu", "relu_")
# What only selects or reorders values: a tensor on a grid stays on it, a tensor without negatives keeps none.
_GRID_KEEPING_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout2d
)  # fmt: skip
_GRID_KEEPING_FUNCTIONS = (
    torch.flatten, torch.reshape, torch.permute, torch.squeeze, torch.unsqueeze,
    F.max_pool2d, F.adaptive_max_pool2d, F.dropout, F.pad,
)  # fmt: skip
_GRID_KEEPING_METHODS = (
    "flatten", "reshape", "view", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "__getitem__"
)  # fmt: skip
_SIGN_KEEPING_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_SIGN_KEEPING_FUNCTIONS = (
    F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, torch.cat, torch.concat, torch.add, torch.sigmoid, F.sigmoid
)  # fmt: skip


def insert_pact(
    network: nn.Module, settings: PactSettings, mean: tuple[float, ...], std: tuple[float, ...]
) -> fx.GraphModule:
    """Return the network with fake quantization in it; parameters are shared with `network`.

    Args:
        network: takes one normalised image batch [batch, channels, height, width], returns logits.
        settings: bit widths and the clips' initial value.
        mean, std: the normalisation per channel, which bounds the input's range.

    Raises:
        UsageError: the network cannot be traced, or has no ReLU to clip.
    """
    try:
        graph_module = fx.symbolic_trace(network)
    except Exception as error:  # fx raises whatever the traced code raises
        raise UsageError(
            f"train.pact: expected a network that torch.fx can trace, found that {type(network).__name__} cannot be "
            f"({error}). Remove control flow that depends on the image, or train without `pact`."
        ) from error
    low = min((0.0 - m) / s for m, s in zip(mean, std, strict=True))
    high = max((1.0 - m) / s for m, s in zip(mean, std, strict=True))
    _clip_relus(graph_module, settings)
    layers = _weighted_layers(graph_module)
    _quantize_layer_outputs(graph_module, layers, settings)
    _quantize_layer_inputs(graph_module, layers, settings, InputQuantizer(low, high))
    _quantize_layers(graph_module, layers, settings.weight_bits)
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def fit_inserted_clips(network: nn.Module, images: Tensor) -> None:
    """Set every clip that the paper does not have to the largest magnitude it sees on some images, in place.

    PACT's own clips keep their large initial value and learn it down. The clips inserted at 8 bits only give integers
    a range; they start where they cut nothing off.

    Args:
        network: from `insert_pact`, in training mode, so that the batch's own statistics normalise it.
        images: normalised batch [batch, channels, height, width].
    """
    inserted = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, ClipQuantizer) and not name.startswith(PACT_PREFIX)
    }

    def widen(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        cast(ClipQuantizer, module).alpha.data.fill_(max(float(inputs[0].abs().max()), 1e-3))
        return inputs[0]

    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    hooks = [module.register_forward_hook(widen) for module in inserted.values()]
    with torch.no_grad():
        network(images)
        for name, buffer in network.named_buffers():
            buffer.copy_(statistics[name])
    for hook in hooks:
        hook.remove()


def _module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _grid_of(graph_module: fx.GraphModule, node: fx.Node) -> ClipQuantizer | InputQuantizer | None:
    """Return the quantizer on whose grid a tensor lies, looking through what only selects or reorders values."""
    while True:
        module = _module_of(graph_module, node)
        if isinstance(module, ClipQuantizer | InputQuantizer):
            return module
        if not _keeps_grid(graph_module, node) or not isinstance(node.args[0], fx.Node):
            return None
        node = node.args[0]


def _batch_norm_after(graph_module: fx.GraphModule, layer: fx.Node) -> fx.Node | None:
    """Return the batch norm that alone consumes a layer's result, or None."""
    users = list(layer.users)
    if len(users) == 1 and isinstance(_module_of(graph_module, users[0]), _BATCH_NORMS):
        return users[0]
    return None


def _weighted_layers(graph_module: fx.GraphModule) -> list[fx.Node]:
    """Return the calls of convolutions and linear layers in the order of execution."""
    return [node for node in graph_module.graph.nodes if isinstance(_module_of(graph_module, node), WEIGHTED)]


def _clip_relus(graph_module: fx.GraphModule, settings: PactSettings) -> None:
    relus = [node for node in graph_module.graph.nodes if _is_relu(graph_module, node)]
    if not relus:
        raise UsageError(
            "train.pact: expected a network with ReLU or ReLU6, found none. PACT learns where those are clipped; "
            "train this network without `pact`."
        )
    last_layer = _weighted_layers(graph_module)[-1]
    for number, node in enumerate(relus):
        feeds_last = list(node.users) == [last_layer]
        alpha = min(settings.alpha_init, 6.0) if "6" in _name(graph_module, node) else settings.alpha_init
        clip = ClipQuantizer(EDGE_BITS if feeds_last else settings.activation_bits, alpha, signed=False)
        _replace_call(graph_module, node, f"{PACT_PREFIX}{number}", clip)


def _quantize_layer_outputs(graph_module: fx.GraphModule, layers: list[fx.Node], settings: PactSettings) -> None:
    for number, layer in enumerate(layers):
        end = _batch_norm_after(graph_module, layer) or layer
        clipped = all(isinstance(_module_of(graph_module, user), ClipQuantizer) for user in end.users)
        if clipped or any(user.op == "output" for user in end.users):
            continue
        clip = ClipQuantizer(EDGE_BITS, settings.alpha_init, signed=True)
        _insert_after(graph_module, end, f"output_clip_{number}", clip)


def _quantize_layer_inputs(
    graph_module: fx.GraphModule, layers: list[fx.Node], settings: PactSettings, image: InputQuantizer
) -> None:
    for number, layer in enumerate(layers):
        source = layer.args[0]
        if not isinstance(source, fx.Node) or _grid_of(graph_module, source) is not None:
            continue
        if source.op == "placeholder":
            _insert_after(graph_module, source, "image_quantizer", image)
        else:
            signed = not _is_nonnegative(graph_module, source)
            clip = ClipQuantizer(EDGE_BITS, settings.alpha_init, signed=signed)
            _insert_after(graph_module, source, f"input_clip_{number}", clip)


def _quantize_layers(graph_module: fx.GraphModule, layers: list[fx.Node], bits: int) -> None:
    targets = [str(node.target) for node in layers]
    twice = {target for target in targets if targets.count(target) > 1}
    if twice:
        raise UsageError(
            f"train.pact: expected every layer to be called once, found {', '.join(sorted(twice))} called several "
            "times. Shared layers have one weight but several input scales; train this network without `pact`."
        )
    for number, node in enumerate(layers):
        source, norm = node.args[0], _batch_norm_after(graph_module, node)
        grid = _grid_of(graph_module, source) if isinstance(source, fx.Node) else None
        assert grid is not None, f"{node.target}: its input lies on no grid"
        layer_bits = EDGE_BITS if number in (0, len(layers) - 1) else bits
        layer = QuantizedLayer(
            graph_module.get_submodule(str(node.target)),
            None if norm is None else graph_module.get_submodule(str(norm.target)),
            grid,
            _clip_after(graph_module, norm or node),
            layer_bits,
        )
        _replace_call(graph_module, node, f"layer_{number}", layer)
        if norm is not None:
            norm.replace_all_uses_with(norm.all_input_nodes[0])
            graph_module.graph.erase_node(norm)
    graph_module.delete_all_unused_submodules()


def _clip_after(graph_module: fx.GraphModule, node: fx.Node) -> ClipQuantizer | None:
    clips = [_module_of(graph_module, user) for user in node.users]
    return clips[0] if len(clips) == 1 and isinstance(clips[0], ClipQuantizer) else None


def _replace_call(graph_module: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    graph_module.add_submodule(name, module)
    with graph_module.graph.inserting_after(node):
        new = graph_module.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)


def _insert_after(graph_module: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    graph_module.add_submodule(name, module)
    with graph_module.graph.inserting_after(node):
        new = graph_module.graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def _name(graph_module: fx.GraphModule, node: fx.Node) -> str:
    module = _module_of(graph_module, node)
    return type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))


def _calls(
    graph_module: fx.GraphModule,
    node: fx.Node,
    modules: tuple[type[nn.Module], ...],
    functions: tuple[object, ...],
    methods: tuple[str, ...],
) -> bool:
    if node.op == "call_module":
        return isinstance(_module_of(graph_module, node), modules)
    if node.op == "call_function":
        return any(node.target is function for function in functions)
    return node.op == "call_method" and node.target in methods


def _is_relu(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return _calls(graph_module, node, _RELU_MODULES, _RELU_FUNCTIONS, _RELU_METHODS)


def _keeps_grid(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.target is F.pad and len(node.args) + len(node.kwargs) > 2:
        return False  # another mode or fill value than zero, which may lie off the grid
    return node.target is operator.getitem or _calls(
        graph_module, node, _GRID_KEEPING_MODULES, _GRID_KEEPING_FUNCTIONS, _GRID_KEEPING_METHODS
    )


def _is_nonnegative(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    module = _module_of(graph_module, node)
    if isinstance(module, ClipQuantizer):
        return not module.signed
    if isinstance(module, nn.Sigmoid):
        return True
    keeps_sign = _keeps_grid(graph_module, node) or node.target in (operator.add, operator.iadd)
    if keeps_sign or _calls(graph_module, node, _SIGN_KEEPING_MODULES, _SIGN_KEEPING_FUNCTIONS, ("mean",)):
        return all(_is_nonnegative(graph_module, source) for source in node.all_input_nodes)
    return False
