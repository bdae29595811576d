"""LSTM, GRU and RNN as the steps that they take, where their number is known.

With X [steps, batch, features], W [directions, gates·h, features], R [directions, gates·h, h] and B of both biases
side by side, as the operators' specification has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import NodeProto

from onnx_files.graph import attributes_of
from stages.saliency_twin.forward_graph import ForwardGraph
from stages.saliency_twin.parts import Parts, input_of

MOST_STEPS = 128
"""Steps that are written out; a node each would make more a file that takes minutes to open."""
_ACTIVATIONS = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_WITHOUT_PARAMETERS = frozenset(("Sigmoid", "Tanh", "Relu"))


@dataclass(frozen=True)
class _Direction:
    """One direction's constants: all [.., gates·h] or [h], and what acts on them.

    Attributes:
        recurrent: transposed matrices from h to the gates, one for each.
        bias: of the recurrent product, one for each gate; empty without one.
        activations: names of the operators f, g, h.
        first: whether a GRU's reset gate acts before its matrix.
    """

    recurrent: list[str]
    bias: list[str]
    activations: tuple[str, ...]
    first: bool


_Cell = Callable[[Parts, _Direction, list[str], list[str]], list[str]]
"""From one step's share of X for each gate, and the state before it, to the state behind it; h stands first."""


def recurrent(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """Return the steps of an LSTM, GRU or RNN; the node itself where it has options that hardly any file has.

    These are: lengths per image, peepholes, a clip, coupled gates, the batch first, activations with parameters, an
    open or a long sequence.
    """
    attributes, kind = attributes_of(node), node.op_type
    length, size = _first(forward, node.input[0], 0), attributes.get("hidden_size")
    directions = 2 if attributes.get("direction", b"forward") == b"bidirectional" else 1
    named = [name.decode() for name in attributes.get("activations", [])] or [*_ACTIVATIONS[kind]] * directions
    unusual = "clip" in attributes or attributes.get("input_forget", 0) or attributes.get("layout", 0)
    if (
        unusual or input_of(node, 4) or input_of(node, 7) or not _WITHOUT_PARAMETERS.issuperset(named)
        or length is None or not 0 < length <= MOST_STEPS or size is None
    ):  # fmt: skip
        return [node]
    parts, per_direction = Parts(node), len(_ACTIVATIONS[kind])
    states = [_split_states(parts, input_of(node, position), directions) for position in (5, 6)]
    outputs, last = [], []
    for direction in range(directions):
        backward = (directions == 2 and direction == 1) or attributes.get("direction") == b"reverse"
        chosen = tuple(named[direction * per_direction : (direction + 1) * per_direction])
        steps, weights = _prepared(parts, node, forward, direction, chosen)
        start = [state[direction] if state else "" for state in states[: 2 if kind == "LSTM" else 1]]
        found, behind = _run(parts, weights, steps[::-1] if backward else steps, start, kind)
        outputs.append(parts.op("Concat", found[::-1] if backward else found, {"axis": 0}))
        last.append(behind)
    apart = [parts.op("Unsqueeze", [output, parts.integers([1])]) for output in outputs]
    joined = [parts.op("Concat", list(names), {"axis": 0}) for names in zip(*last, strict=True)]
    return parts.done(dict(enumerate([parts.op("Concat", apart, {"axis": 1}), *joined])))


def _first(forward: ForwardGraph, name: str, axis: int) -> int | None:
    length = forward.shapes.get(name, (None,) * (axis + 1))[axis]
    return length if isinstance(length, int) else None


def _split_states(parts: Parts, name: str, directions: int) -> list[str]:
    return parts.split(name, [1] * directions, 0) if name else []


def _prepared(
    parts: Parts, node: NodeProto, forward: ForwardGraph, direction: int, activations: tuple[str, ...]
) -> tuple[list[list[str]], _Direction]:
    """Return X's share of each gate [1, batch, h] for each step, and what the steps have in common."""
    gates, attributes = _GATES[node.op_type], attributes_of(node)
    size, length = attributes["hidden_size"], _first(forward, node.input[0], 0)
    assert length is not None
    number = parts.integer(direction)

    def matrices(position: int) -> list[str]:
        own = parts.op("Gather", [node.input[position], number], {"axis": 0})
        return parts.split(parts.op("Transpose", [own], {"perm": [1, 0]}), [size] * gates, 1)

    biases: list[str] = []
    if input_of(node, 3):
        own = parts.op("Gather", [node.input[3], number], {"axis": 0})
        biases = parts.split(own, [size] * 2 * gates, 0)
    steps: list[list[str]] = [[] for _ in range(length)]
    for gate, matrix in enumerate(matrices(1)):
        share = parts.op("MatMul", [node.input[0], matrix])
        if biases:
            share = parts.op("Add", [share, biases[gate]])
        for step, part in zip(steps, parts.split(share, [1] * length, 0), strict=True):
            step.append(part)
    before = not attributes.get("linear_before_reset", 0)
    return steps, _Direction(matrices(2), biases[gates:], activations, before)


def _run(
    parts: Parts, weights: _Direction, steps: list[list[str]], start: list[str], kind: str
) -> tuple[list[str], list[str]]:
    # A state that is left out is zero: a product of the first share with zero has its shape.
    cell: _Cell = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[kind]
    nothing = [name or parts.op("Mul", [steps[0][0], parts.real(0)]) for name in start]
    state, found = nothing, []
    for shares in steps:
        state = cell(parts, weights, shares, state)
        found.append(state[0])
    return found, state


def _gate(parts: Parts, weights: _Direction, number: int, share: str, h: str) -> str:
    total = parts.op("Add", [share, parts.op("MatMul", [h, weights.recurrent[number]])])
    return parts.op("Add", [total, weights.bias[number]]) if weights.bias else total


def _rnn(parts: Parts, weights: _Direction, shares: list[str], state: list[str]) -> list[str]:
    return [parts.op(weights.activations[0], [_gate(parts, weights, 0, shares[0], state[0])])]


def _gru(parts: Parts, weights: _Direction, shares: list[str], state: list[str]) -> list[str]:
    """z, r and h̃: H = (1 − z)·h̃ + z·H, with h̃ = g(x + r·(H·R)) or g(x + (r·H)·R)."""
    (h,), (f, g) = state, weights.activations
    z, r = (parts.op(f, [_gate(parts, weights, number, shares[number], h)]) for number in (0, 1))
    if weights.first:
        candidate = _gate(parts, weights, 2, shares[2], parts.op("Mul", [r, h]))
    else:
        product = parts.op("MatMul", [h, weights.recurrent[2]])
        if weights.bias:
            product = parts.op("Add", [product, weights.bias[2]])
        candidate = parts.op("Add", [shares[2], parts.op("Mul", [r, product])])
    candidate = parts.op(g, [candidate])
    # z·(H − h̃) + h̃
    return [parts.op("Add", [parts.op("Mul", [z, parts.op("Sub", [h, candidate])]), candidate])]


def _lstm(parts: Parts, weights: _Direction, shares: list[str], state: list[str]) -> list[str]:
    """Gates i, o, f, c: C = f·C + i·c̃, H = o·h(C)."""
    (h, c), (f, g, last) = state, weights.activations
    gates = [_gate(parts, weights, number, shares[number], h) for number in range(4)]
    i, o, forget = (parts.op(f, [gate]) for gate in gates[:3])
    kept = parts.op("Mul", [forget, c])
    c = parts.op("Add", [kept, parts.op("Mul", [i, parts.op(g, [gates[3]])])])
    return [parts.op("Mul", [o, parts.op(last, [c])]), c]
