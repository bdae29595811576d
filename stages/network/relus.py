"""What stands for each ReLU of a network, so that what it passes can be compared between two of one architecture."""

from __future__ import annotations

from torch import nn

from foundation.errors import UsageError
from stages.network.pact import PACT_PREFIX
from stages.network.quantizers import ClipQuantizer
from stages.network.traced import begins_shortcut, is_relu, is_relu6, replace_call
from stages.network.tracing import trace


def relu_modules(network: nn.Module, setting: str) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Return a network of the same parameters in which every ReLU is a module of its own, and those modules.

    Args:
        network: float, or from `insert_pact`, where the clips are those modules.
        setting: what asks for it, as the user wrote it.

    Returns:
        The network, itself where PACT is in it, and its ReLUs in the order of execution.

    Raises:
        UsageError: it cannot be traced or has no ReLU.
    """
    clips = {
        int(name.removeprefix(PACT_PREFIX)): module
        for name, module in network.named_children()
        if isinstance(module, ClipQuantizer) and name.removeprefix(PACT_PREFIX).isdecimal()
    }
    if clips:
        return network, tuple(clips[number] for number in sorted(clips))
    graph_module = trace(network, setting)
    nodes = [node for node in graph_module.graph.nodes if is_relu(graph_module, node)]
    if not nodes:
        raise UsageError(f"{setting}: expected a network with ReLU or ReLU6, found none. Leave that setting out.")
    relus = tuple(nn.ReLU6() if is_relu6(graph_module, node) else nn.ReLU() for node in nodes)
    for number, (node, relu) in enumerate(zip(nodes, relus, strict=True)):
        replace_call(graph_module, node, f"relu_of_call_{number}", relu)
    graph_module.recompile()
    return graph_module, relus


def block_ends(network: nn.Module, setting: str) -> tuple[int, ...]:
    """Return the numbers of the ReLUs from which a residual network's shortcuts begin, and of the last.

    Of a network whose shortcuts pass no ReLU on, or that has none, the numbers of all. Within a block a student of
    few bits finds a way of its own; told what to pass there as well, it learns more slowly.

    Args:
        network: in float.
        setting: what asks for it, as the user wrote it.

    Raises:
        UsageError: it cannot be traced.
    """
    graph_module = trace(network, setting)
    relus = [node for node in graph_module.graph.nodes if is_relu(graph_module, node)]
    starts = [number for number, node in enumerate(relus) if begins_shortcut(graph_module, node)]
    return tuple(sorted({*starts, len(relus) - 1})) if starts else tuple(range(len(relus)))
