"""From a network as it is written to a graph that means the same in training and in evaluation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from foundation.errors import UsageError

_DROPOUTS: Mapping[Callable[..., Any], Callable[[float], nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}


def trace(network: nn.Module, setting: str) -> fx.GraphModule:
    """Return the network as a graph; parameters are shared with `network`, and so is its mode.

    Raises:
        UsageError: it cannot be traced; names the setting that asks for it.
    """
    try:
        graph_module = fx.symbolic_trace(network)
    except Exception as error:  # fx raises whatever the traced code raises
        raise UsageError(
            f"{setting}: expected a network that torch.fx can trace, found that {type(network).__name__} cannot be "
            f"({error}). Remove control flow that depends on the image, or train without that setting."
        ) from error
    _let_dropout_follow_the_mode(graph_module, network.training)
    _let_what_comes_later_see_relus_in_place(graph_module)
    graph_module.recompile()
    return graph_module


def _let_dropout_follow_the_mode(graph_module: fx.GraphModule, training: bool) -> None:
    # Of `F.dropout(x, p, self.training)` a trace keeps the mode that it was taken in, for ever.
    calls = [node for node in graph_module.graph.nodes if node.op == "call_function" and node.target in _DROPOUTS]
    for number, node in enumerate(calls):
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs)
        if given.arguments.get("training") is not training:
            continue  # told otherwise, whatever the mode
        name = f"dropout_of_call_{number}"
        module = _DROPOUTS[node.target](given.arguments.get("p", 0.5)).train(training)
        graph_module.add_submodule(name, module)
        with graph_module.graph.inserting_after(node):
            new = graph_module.graph.call_module(name, (given.arguments["input"],))
        node.replace_all_uses_with(new)
        graph_module.graph.erase_node(node)


def _let_what_comes_later_see_relus_in_place(graph_module: fx.GraphModule) -> None:
    # A ReLU in place changes its input for all that read it afterwards; what takes the ReLU's place will not.
    order = {node: number for number, node in enumerate(graph_module.graph.nodes)}
    for node, number in order.items():
        if _is_relu_in_place(graph_module, node):
            later = {user for user in node.all_input_nodes[0].users if order[user] > number}
            node.all_input_nodes[0].replace_all_uses_with(node, delete_user_cb=later.__contains__)


def _is_relu_in_place(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        return isinstance(module, nn.ReLU | nn.ReLU6) and module.inplace
    if node.target in (F.relu, F.relu6):
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs)
        return given.arguments.get("inplace") is True
    return node.target is torch.relu_ or (node.op == "call_method" and node.target == "relu_")
