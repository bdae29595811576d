"""Questions to a traced network and changes of its graph: what a node does to a tensor, and what stands where.

Everything here works on `torch.fx` nodes and knows grids (see `quantizers`), but no policy of where to put them.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from stages.network.quantizers import ClipQuantizer, InputQuantizer

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""The layers whose weights are quantized."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

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
_AVERAGING_MODULES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_AVERAGING_FUNCTIONS = (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean)
_SIGN_KEEPING_FUNCTIONS = (
    *_AVERAGING_FUNCTIONS, torch.cat, torch.concat, torch.add, torch.sigmoid, F.sigmoid, operator.add, operator.iadd
)  # fmt: skip


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


def weighted_layers(graph_module: fx.GraphModule) -> list[fx.Node]:
    """Return the calls of convolutions and linear layers in the order of execution."""
    return [node for node in graph_module.graph.nodes if isinstance(module_of(graph_module, node), WEIGHTED)]


def is_relu(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is a ReLU or ReLU6, as a module, a function or a method."""
    return _calls(graph_module, node, _RELU_MODULES, _RELU_FUNCTIONS, _RELU_METHODS)


def is_relu6(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is a ReLU that ends at 6."""
    return isinstance(module_of(graph_module, node), nn.ReLU6) or node.target is F.relu6


def grid_of(graph_module: fx.GraphModule, node: fx.Node) -> ClipQuantizer | InputQuantizer | None:
    """Return the quantizer on whose grid a tensor lies, looking through what only selects or reorders values."""
    while True:
        module = module_of(graph_module, node)
        if isinstance(module, ClipQuantizer | InputQuantizer):
            return module
        if not _keeps_grid(graph_module, node) or not isinstance(node.args[0], fx.Node):
            return None
        node = node.args[0]


def layers_fed_by(graph_module: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Return the weighted layers that take a node's result, looking through what only selects or reorders values."""
    layers = []
    for user in node.users:
        if isinstance(module_of(graph_module, user), WEIGHTED):
            layers.append(user)
        elif _keeps_grid(graph_module, user):
            layers += layers_fed_by(graph_module, user)
    return layers


def branches_into_layers(graph_module: fx.GraphModule, node: fx.Node) -> list[tuple[fx.Node, list[fx.Node]]]:
    """Return where values leave a node's result for weighted layers alone: each such place and its users there.

    That is the node itself, or what behind it only selects or reorders values, such as a max pool.
    """
    users = [user for user in node.users if _feeds_only_layers(graph_module, user)]
    branches = [(node, users)] if users else []
    for user in node.users:
        if user not in users and _keeps_grid(graph_module, user):
            branches += branches_into_layers(graph_module, user)
    return branches


def _feeds_only_layers(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if isinstance(module_of(graph_module, node), WEIGHTED):
        return True
    onwards = [_feeds_only_layers(graph_module, user) for user in node.users]
    return _keeps_grid(graph_module, node) and bool(onwards) and all(onwards)


def begins_shortcut(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node's result goes several ways of which one leads to an addition without a ReLU on it."""
    while len(node.users) == 1 and _keeps_grid(graph_module, next(iter(node.users))):
        node = next(iter(node.users))
    return len(node.users) > 1 and any(_reaches_addition(graph_module, user) for user in node.users)


def _reaches_addition(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.target in (operator.add, operator.iadd, torch.add) or node.target in ("add", "add_"):
        return True
    if is_relu(graph_module, node):
        return False
    return any(_reaches_addition(graph_module, user) for user in node.users)


def batch_norm_after(graph_module: fx.GraphModule, layer: fx.Node) -> fx.Node | None:
    """Return the batch norm that alone consumes a layer's result, or None."""
    users = list(layer.users)
    if len(users) == 1 and isinstance(module_of(graph_module, users[0]), BATCH_NORMS):
        return users[0]
    return None


def clip_after(graph_module: fx.GraphModule, node: fx.Node) -> ClipQuantizer | None:
    """Return the clip that alone consumes a node's result, or None."""
    clips = [module_of(graph_module, user) for user in node.users]
    return clips[0] if len(clips) == 1 and isinstance(clips[0], ClipQuantizer) else None


def is_average(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a tensor is an average, looking through what only selects or reorders values."""
    while _keeps_grid(graph_module, node) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return _calls(graph_module, node, _AVERAGING_MODULES, _AVERAGING_FUNCTIONS, ("mean",))


def is_nonnegative(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a tensor can be seen to hold no negative value."""
    module = module_of(graph_module, node)
    if isinstance(module, ClipQuantizer):
        return not module.signed
    if isinstance(module, nn.Sigmoid):
        return True
    keeps_sign = _calls(graph_module, node, _AVERAGING_MODULES, _SIGN_KEEPING_FUNCTIONS, ("mean",))
    if keeps_sign or _keeps_grid(graph_module, node):
        return all(is_nonnegative(graph_module, source) for source in node.all_input_nodes)
    return False


def replace_call(graph_module: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
    """Let `module`, under `name`, take the place of a node with one input; return the new node."""
    graph_module.add_submodule(name, module)
    with graph_module.graph.inserting_after(node):
        new = graph_module.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)
    return new


def insert_after(graph_module: fx.GraphModule, node: fx.Node, name: str, module: nn.Module) -> None:
    """Put `module`, under `name`, between a node and all that use it."""
    insert_between(graph_module, node, list(node.users), name, module)


def insert_between(
    graph_module: fx.GraphModule, node: fx.Node, users: list[fx.Node], name: str, module: nn.Module
) -> None:
    """Put `module`, under `name`, between a node and some that use it."""
    graph_module.add_submodule(name, module)
    with graph_module.graph.inserting_after(node):
        new = graph_module.graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user in users)


def _keeps_grid(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.target is F.pad and len(node.args) + len(node.kwargs) > 2:
        return False  # another mode or fill value than zero, which may lie off the grid
    return node.target is operator.getitem or _calls(
        graph_module, node, _GRID_KEEPING_MODULES, _GRID_KEEPING_FUNCTIONS, _GRID_KEEPING_METHODS
    )


def _calls(
    graph_module: fx.GraphModule,
    node: fx.Node,
    modules: tuple[type[nn.Module], ...],
    functions: tuple[object, ...],
    methods: tuple[str, ...],
) -> bool:
    if node.op == "call_module":
        return isinstance(module_of(graph_module, node), modules)
    if node.op == "call_function":
        return any(node.target is function for function in functions)
    return node.op == "call_method" and node.target in methods
