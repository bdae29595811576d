"""Edits of ONNX graphs on the level of their messages, and the graphs that a person would write to do harm."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_NUMBERS = (0, 1, -1, 2, 3, 8, 127, 4096, 65_536, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
_OPERATORS = (
    "Relu",
    "Conv",
    "Gemm",
    "Reshape",
    "Concat",
    "ConstantOfShape",
    "Shape",
    "Tile",
    "Expand",
    "Range",
    "Loop",
    "If",
    "Scan",
    "Resize",
    "Pad",
    "Slice",
    "Gather",
    "Cast",
    "Softmax",
    "ArgMax",
    "MaxPool",
    "QuantizeLinear",
    "OneHot",
    "Transpose",
    "Squeeze",
    "NonZero",
    "Split",
    "X",
)


def onnx_field(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Change one field of one message, or repeat, remove or exchange a message."""
    import onnx

    from .mutators import any_bytes

    try:
        model = onnx.ModelProto.FromString(content)
        for _ in range(rng.choice((1, 1, 2, 4))):
            _edit(model, rng)
        return model.SerializeToString()
    except Exception:
        return any_bytes(content, rng, seeds)


def _messages(message: Any) -> list[Any]:
    found, waiting = [], [message]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting += list(value) if field.is_repeated else [value]
    return found


def _edit(model: Any, rng: random.Random) -> None:
    message = rng.choice(_messages(model))
    fields = (
        list(message.DESCRIPTOR.fields) if rng.randrange(6) == 0 else [field for field, _ in message.ListFields()]
    )
    if not fields:
        return
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if field.is_repeated:
        kind = rng.randrange(5)
        if kind == 0 and len(value):
            del value[rng.randrange(len(value))]
        elif kind == 1 and len(value):
            value.extend([value[rng.randrange(len(value))]] * rng.choice((1, 1, 30)))
        elif kind == 2:
            message.ClearField(field.name)
        elif field.message_type is None:
            new = _scalar(field, value[0] if len(value) else None, model, rng)
            if len(value) and rng.randrange(3):
                value[rng.randrange(len(value))] = new
            else:
                value.append(new)
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, value, model, rng))


def _scalar(field: Any, value: Any, model: Any, rng: random.Random) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            from .mutators import any_bytes

            return any_bytes(value or b"", rng, [value or b""])
        names = [name for node in model.graph.node for name in (*node.input, *node.output)] or ["x"]
        return rng.choice(
            (
                rng.choice(names),
                rng.choice(names),
                rng.choice(_OPERATORS),
                "",
                "\x1b[2J",
                "\u202e",
                "x" * 1000,
                "../weights.bin",
            )
        )
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    number = rng.choice(_NUMBERS)
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice([one.number for one in field.enum_type.values])
    small = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32)
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        number = abs(number)
    return number % 2**31 if small else min(number, 2**63 - 1)


def onnx_bomb(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Put a part before the answers that grows, never ends or goes very deep."""
    import onnx
    from onnx import helper

    from .mutators import any_bytes

    try:
        model = onnx.ModelProto.FromString(content)
        graph = model.graph
        (name,) = {output.name for output in graph.output}
        inner = f"{name}_before"
        for node in graph.node:
            for place, output in enumerate(node.output):
                if output == name:
                    node.output[place] = inner
        kind = rng.choice((_chain, _chain, _doubled, _large, _tiled, _nested, _functions, _loop))
        kind(model, helper, inner, name, rng)
        return model.SerializeToString()
    except Exception:
        return any_bytes(content, rng, seeds)


def _constant(graph: Any, name: str, values: Sequence[int]) -> str:
    from onnx import TensorProto, helper

    graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], list(values)))
    return name


def _chain(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    length, operator = rng.choice((50, 300, 3000)), rng.choice(("Relu", "Identity", "Sigmoid", "Neg", "Dropout"))
    names = [inner, *(f"{inner}_{number}" for number in range(length - 1)), name]
    model.graph.node.extend(helper.make_node(operator, [a], [b]) for a, b in pairwise(names))


def _doubled(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    last = "doubled_0"
    model.graph.node.append(helper.make_node("Shape", [rng.choice((inner, model.graph.input[0].name))], [last]))
    for number in range(1, rng.choice((5, 20, 31, 40))):
        model.graph.node.append(helper.make_node("Concat", [last, last], [f"doubled_{number}"], axis=0))
        last = f"doubled_{number}"
    model.graph.node.append(helper.make_node("Size", [last], ["size"]))
    model.graph.node.append(helper.make_node("Cast", ["size"], ["size_float"], to=1))
    model.graph.node.append(helper.make_node("Mul", [inner, "size_float"], [name]))


def _large(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    shape = _constant(
        model.graph, "large_shape", rng.choice(((2**28,), (2**31,), (2**20, 2**12), (2**40,), (50_000_000,)))
    )
    model.graph.node.append(helper.make_node(rng.choice(("ConstantOfShape", "RandomNormalLike")), [shape], ["large"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["large"], ["largest"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", [inner, "largest"], [name]))


def _tiled(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    times = _constant(model.graph, "times", (1, rng.choice((10**6, 10**8, 2**31, 2**40))))
    model.graph.node.append(helper.make_node(rng.choice(("Tile", "Expand")), [inner, times], ["tiled"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["tiled"], ["summed"], keepdims=1))
    model.graph.node.append(helper.make_node("Add", [inner, "summed"], [name]))


def _nested(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    from onnx import TensorProto

    node = helper.make_node("Identity", [inner], ["deep_0"])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [1])
    model.graph.initializer.append(yes)
    depth = rng.choice((3, 20, 90, 150, 1000))
    for number in range(1, depth):
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info(f"deep_{number - 1}", 1, None)])
        node = helper.make_node(
            "If",
            ["yes"],
            [f"deep_{number}"],
            then_branch=graph,
            else_branch=graph if depth < 10 else graph.__class__(),
        )
    node.output[0] = name
    model.graph.node.append(node)


def _functions(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    before = helper.make_node("Relu", ["x"], ["y"])
    depth = rng.choice((3, 12, 25, 40))
    for number in range(depth):
        nodes = [before, helper.make_node(before.op_type, ["y"], ["z"], domain=before.domain)]
        model.functions.append(helper.make_function("f", f"F{number}", ["x"], ["z"], nodes, opsets))
        before = helper.make_node(f"F{number}", ["x"], ["y"], domain="f")
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.graph.node.append(helper.make_node(f"F{depth - 1}", [inner], [name], domain="f"))


def _loop(model, helper, inner, name, rng):  # type: ignore[no-untyped-def]
    from onnx import TensorProto

    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("c", 9, []),
            helper.make_tensor_value_info("v", 1, None),
        ],
        [helper.make_tensor_value_info("c2", 9, []), helper.make_tensor_value_info("v2", 1, None)],
    )
    model.graph.initializer.append(
        helper.make_tensor(
            "trips", TensorProto.INT64, [], [rng.choice((3, 3, 3, 10**5, 10**5, 10**5, 10**5, 10**5, 10**5, 2**62))]
        )
    )
    model.graph.initializer.append(helper.make_tensor("on", TensorProto.BOOL, [], [1]))
    model.graph.node.append(helper.make_node("Loop", ["trips", "on", inner], [name], body=body))
