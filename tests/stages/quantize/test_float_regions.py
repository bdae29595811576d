"""Which regions integers do not speed up: a minimum cut over a table of times."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto
from onnx.parser import parse_model

from stages.quantize.float_regions import nodes_faster_float


def model_of(body: str, image: str, **weights: tuple[int, ...]) -> ModelProto:
    """Return a graph whose nodes are named after what they make, with weights of random numbers."""
    model = parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> regions (float[{image}] image) => (float[n] answers) {{ {body} }}'
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(0, 1, shape).astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def transformer(tokens: int, width: int) -> ModelProto:
    return model_of(
        "a = MatMul (image, w) n = LayerNormalization (a, s, s) b = MatMul (n, w) "
        "m = LayerNormalization (b, s, s) answers = MatMul (m, w)",
        f"1, {tokens}, {width}",
        w=(width, width),
        s=(width,),
    )


def test_small_layers_between_islands_stay_float_and_large_ones_do_not() -> None:
    # 16 · 16 · 4 products take 27 ns in float, and the numbers around them 4 µs to turn into integers.
    assert nodes_faster_float(transformer(4, 16), ()) == ("a", "n", "b", "m", "answers")
    # 38 million products: 1.0 ms in float, 0.4 ms in integers, and 75,264 numbers 10 µs to turn.
    assert nodes_faster_float(transformer(196, 384), ()) == ("n", "m")


def convolutions(islands: str, **weights: tuple[int, ...]) -> ModelProto:
    return model_of(
        f"c = Conv <pads = [1, 1, 1, 1]> (image, first) r = Relu (c) {islands} "
        "d = Conv <pads = [1, 1, 1, 1]> (x, second) answers = GlobalAveragePool (d)",
        "1, 64, 28, 28",
        first=(64, 64, 3, 3),
        second=(64, 64, 3, 3),
        **weights,
    )


def test_what_is_slower_in_integers_stays_there_where_the_way_out_and_back_costs_more() -> None:
    depthwise = convolutions("x = Conv <group = 64, pads = [1, 1, 1, 1]> (r, third)", third=(64, 1, 3, 3))
    # A depthwise convolution loses 11 µs in integers, and turning 50,176 numbers twice costs 15.
    assert nodes_faster_float(depthwise, ("answers",)) == ("answers",)
    island = convolutions("x = Erf (r)")
    assert nodes_faster_float(island, ("answers",)) == ("x", "answers")


def test_what_the_user_keeps_in_float_pulls_its_small_neighbours_along() -> None:
    # An addition is faster in float, by less than its way out of the integers; beside a float layer it has none.
    beside = convolutions("y = Add (r, r) x = Add (y, y)")
    assert nodes_faster_float(beside, ("answers",)) == ("answers",)
    assert nodes_faster_float(beside, ("d", "answers")) == ("y", "x", "d", "answers")
