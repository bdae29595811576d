"""How many bits each layer gets: the network's own number, the first and the last layer's 8, and named exceptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from foundation.errors import UsageError
from stages.network.settings import LayerBits, PactSettings

EDGE_BITS = 8
"""Bits of the first and the last layer and of every tensor that the paper keeps in float."""


@dataclass(frozen=True)
class Bits:
    """Bit widths of one layer: of its weights, and of the ReLU output that feeds it."""

    weight: int
    activation: int


def bits_of_layers(names: Sequence[str], settings: PactSettings) -> dict[str, Bits]:
    """Return the bit widths of each layer.

    Args:
        names: the layers' names in the network, in the order of execution.
        settings: bit widths, with `layer_bits`.

    Raises:
        UsageError: a pattern names no layer whose bits can be chosen, or two patterns of one length name the same.
    """
    inner = names[1:-1]
    for pattern in settings.layer_bits:
        if not any(fnmatchcase(name, pattern) for name in inner):
            raise UsageError(
                "train.pact.layer_bits: expected patterns that name layers between the first and the last ("
                f"{EDGE_BITS} bits), found {pattern!r}, which names none. Layers: {', '.join(inner) or 'none'}."
            )
    edges = {name: Bits(EDGE_BITS, EDGE_BITS) for name in (names[0], names[-1])}
    return {name: _inner_bits(name, settings) for name in inner} | edges


def _inner_bits(name: str, settings: PactSettings) -> Bits:
    patterns = sorted((p for p in settings.layer_bits if fnmatchcase(name, p)), key=len)
    if len(patterns) > 1 and len(patterns[-1]) == len(patterns[-2]):
        raise UsageError(
            f"train.pact.layer_bits: expected one longest pattern for the layer {name!r}, found {patterns[-2]!r} and "
            f"{patterns[-1]!r}, equally long. The longest one holds; write one of them out further."
        )
    chosen = settings.layer_bits[patterns[-1]] if patterns else LayerBits()
    return Bits(chosen.weight_bits or settings.weight_bits, chosen.activation_bits or settings.activation_bits)
