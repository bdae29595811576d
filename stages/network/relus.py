"""What stands for each ReLU of a network, so that what it passes can be compared between two of one architecture."""

from __future__ import annotations

import re

from torch import nn

from pipeline.errors import UsageError
from stages.network.pact import PACT_PREFIX
from stages.network.traced import goes_several_ways, is_relu, is_relu6, replace_call, trace


def relu_modules(network: nn.Module, setting: str) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Return a network of the same parameters in which every ReLU is a module of its own, and those modules.

    Args:
        network: float, or from `insert_pact`, where the clips are those modules; in the mode it will be used in,
            because functions such as dropout are told when it is traced.
        setting: what asks for it, as the user wrote it.

    Returns:
        The network, itself where PACT is in it, and its ReLUs in the order of execution.

    Raises:
        UsageError: it cannot be traced or has no ReLU.
    """
    clips = [name for name, _ in network.named_children() if re.fullmatch(rf"{PACT_PREFIX}\d+", name)]
    if clips:
        clips.sort(key=lambda name: int(name.removeprefix(PACT_PREFIX)))
        return network, tuple(network.get_submodule(name) for name in clips)
    graph_module = trace(network, setting)
    nodes = [node for node in graph_module.graph.nodes if is_relu(graph_module, node)]
    if not nodes:
        raise UsageError(f"{setting}: expected a network with ReLU or ReLU6, found none. Leave that setting out.")
    relus = tuple(nn.ReLU6() if is_relu6(graph_module, node) else nn.ReLU() for node in nodes)
    for number, (node, relu) in enumerate(zip(nodes, relus, strict=True)):
        replace_call(graph_module, node, f"{PACT_PREFIX}{number}", relu)
    graph_module.recompile()
    return graph_module, relus


def block_ends(network: nn.Module, setting: str) -> tuple[int, ...]:
    """Return the numbers of the ReLUs behind which a residual network's blocks begin and end, the last among them.

    Of a network whose ReLUs pass their values one way only, those of all. Within a block a student of few bits finds
    a way of its own; told what to pass there as well, it learns more slowly.

    Args:
        network: in float, any mode.
        setting: what asks for it, as the user wrote it.

    Raises:
        UsageError: it cannot be traced.
    """
    graph_module = trace(network, setting)
    relus = [node for node in graph_module.graph.nodes if is_relu(graph_module, node)]
    forks = [number for number, node in enumerate(relus) if goes_several_ways(graph_module, node)]
    return tuple(sorted({*forks, len(relus) - 1})) if forks else tuple(range(len(relus)))
