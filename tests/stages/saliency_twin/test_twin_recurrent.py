"""Recurrent layers: their gradient against torch's, in every direction, and by name what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from foundation.errors import UsageError
from stages.saliency_twin.twin import build_twin

STEPS, FEATURES, HIDDEN, CLASSES = 5, 4, 3, 3
RNG = np.random.default_rng(0)
HEAD = RNG.normal(size=(3 * 2 * HIDDEN, CLASSES)).astype(np.float32)
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Of ONNX's gates among torch's."""
MAKERS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def gates(kind: str, values: torch.Tensor) -> np.ndarray:
    parts = values.detach().split(HIDDEN)
    return torch.cat([parts[number] for number in ORDER[kind]]).numpy()


def exported(
    kind: str, layer: nn.RNNBase, states: dict[str, np.ndarray], batch: str | int = "batch"
) -> onnx.ModelProto:
    """Return x [batch, 1, steps, features] through the layer to logits of its last output and its last states."""
    directions = ["", "_reverse"] if layer.bidirectional else [""]

    def both(name: str) -> np.ndarray:
        return np.stack([gates(kind, getattr(layer, f"{name}_l0{direction}")) for direction in directions])

    weights = {"w": both("weight_ih"), "r": both("weight_hh")}
    weights["b"] = np.concatenate([both("bias_ih"), both("bias_hh")], axis=1)
    weights |= states | {"head": HEAD, "flat": np.array([0, -1]), "one": np.array([1]), "last": np.array(STEPS - 1)}
    inputs = ["sequence", "w", "r", "b", "", *(name for name in ("h0", "c0") if name in states)]
    attributes = {"direction": "bidirectional" if layer.bidirectional else "forward", "hidden_size": HIDDEN}
    attributes |= {"linear_before_reset": 1} if kind == "GRU" else {}
    outputs = ["y", "h", *(["c"] if kind == "LSTM" else [])]
    nodes = [
        helper.make_node("Squeeze", ["x", "one"], ["steps_inside"]),
        helper.make_node("Transpose", ["steps_inside"], ["sequence"], perm=[1, 0, 2]),
        helper.make_node(kind, inputs, outputs, **attributes),
        helper.make_node("Gather", ["y", "last"], ["y_last"], axis=0),
        *(helper.make_node("Transpose", [name], [f"{name}_t"], perm=[1, 0, 2]) for name in ("y_last", *outputs[1:])),
        helper.make_node("Concat", [f"{name}_t" for name in ("y_last", *outputs[1:])], ["all"], axis=2),
        helper.make_node("Flatten", ["all"], ["f"]),
        helper.make_node("MatMul", ["f", "used_head"], ["logits"]),
    ]
    width = (3 if kind == "LSTM" else 2) * HIDDEN * len(directions)
    weights["used_head"] = HEAD[:width]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", 1, [batch, 1, STEPS, FEATURES])],
        [helper.make_tensor_value_info("logits", 1, [batch, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def logits_of(kind: str, layer: nn.RNNBase, x: torch.Tensor, states: dict[str, np.ndarray]) -> torch.Tensor:
    given = [torch.from_numpy(value) for value in states.values()]
    start = None if not given else tuple(given) if kind == "LSTM" else given[0]
    y, last = layer(x[:, 0].transpose(0, 1), start)
    directions = 2 if layer.bidirectional else 1
    y_last = y[-1].unflatten(1, (directions, HIDDEN))
    behind = [y_last, *(state.transpose(0, 1) for state in (last if kind == "LSTM" else [last]))]
    flat = torch.cat(behind, 2).flatten(1)
    return flat @ torch.from_numpy(HEAD)[: flat.shape[1]]


@pytest.mark.parametrize("started", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_recurrent_layers_gradient_is_torchs(kind, bidirectional, started, session):
    torch.manual_seed(0)
    layer = MAKERS[kind](FEATURES, HIDDEN, bidirectional=bidirectional)
    batch = 2
    names = {"LSTM": ("h0", "c0")}.get(kind, ("h0",))
    states = {
        name: RNG.normal(size=(1 + bidirectional, batch, HIDDEN)).astype(np.float32) for name in names if started
    }
    x = torch.from_numpy(RNG.normal(size=(batch, 1, STEPS, FEATURES)).astype(np.float32)).requires_grad_()
    expected = logits_of(kind, layer, x, states)
    (slope,) = torch.autograd.grad(expected[:, 1].sum(), x)
    model = exported(kind, layer, states, batch if started else "batch")
    logits, saliency, _ = session(build_twin(model)).run(
        None, {"x": x.detach().numpy(), "target": np.ones(batch, np.int64)}
    )
    assert logits == pytest.approx(expected.detach().numpy(), rel=1e-4, abs=1e-5)
    assert saliency == pytest.approx(slope.numpy(), rel=1e-4, abs=1e-6)


def test_a_layer_read_from_the_end_is_one_of_the_reversed_sequence(session):
    torch.manual_seed(0)
    layer = nn.GRU(FEATURES, HIDDEN)
    model = exported("GRU", layer, {})
    (node,) = (node for node in model.graph.node if node.op_type == "GRU")
    next(a for a in node.attribute if a.name == "direction").s = b"reverse"
    x = torch.from_numpy(RNG.normal(size=(2, 1, STEPS, FEATURES)).astype(np.float32)).requires_grad_()
    y, last = layer(x[:, 0].transpose(0, 1).flip(0))
    # The last row of the output belongs to the step that is read first.
    logits = torch.cat([y[0], last[0]], 1) @ torch.from_numpy(HEAD)[: 2 * HIDDEN]
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), x)
    saliency = session(build_twin(model)).run(
        ["saliency"], {"x": x.detach().numpy(), "target": np.zeros(2, np.int64)}
    )[0]
    assert saliency == pytest.approx(slope.numpy(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("clip", 1.0), ("activations", ["HardSigmoid", "Tanh", "Tanh"]), ("input_forget", 1)],
)
def test_options_that_hardly_any_file_has_are_refused_with_the_layer(attribute, value):
    torch.manual_seed(0)
    model = exported("LSTM", nn.LSTM(FEATURES, HIDDEN), {})
    (node,) = (node for node in model.graph.node if node.op_type == "LSTM")
    node.attribute.append(helper.make_attribute(attribute, value))
    with pytest.raises(UsageError, match=r"found LSTM .*occlusion"):
        build_twin(model)


def test_a_sequence_of_open_length_is_refused_with_the_layer():
    torch.manual_seed(0)
    model = exported("GRU", nn.GRU(FEATURES, HIDDEN), {})
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "steps"
    with pytest.raises(UsageError, match=r"found GRU .*occlusion"):
        build_twin(model)
