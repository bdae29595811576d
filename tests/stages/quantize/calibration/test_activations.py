"""Which tensors are looked at, and that ONNX Runtime's blocks of channels hold the same values."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from quantizable import CLIP, float_proto, images

from stages.quantize.calibration.activations import ActivationReader, in_parallel, observed_tensors, workers
from stages.quantize.methods.static import quantized_operators


def test_ranges_that_follow_from_others_are_not_looked_at() -> None:
    tensors = observed_tensors(float_proto(), quantized_operators())
    # What a ReLU or Clip alone reads takes the range of what comes out; a Flatten changes no value.
    assert tensors.same_as == {
        "c1": "a1", "c2": "a2", "sum": "a3", "c5": "a5", "c6": "a6", "c7": "a7", "features": "pooled"
    }  # fmt: skip
    assert set(tensors.observed) == {
        "pixels", "scaled", "normalised", "a1", "a2", "c3", "shortcut", "a3", "a5", "a6", "a7", "pooled", "logits"
    }  # fmt: skip
    assert tensors.bounds["a1"] == (0.0, CLIP)
    assert tensors.bounds["a2"] == (0.0, np.inf)


def test_a_tensor_with_another_reader_than_its_relu_is_looked_at() -> None:
    proto = float_proto()
    proto.graph.output.append(onnx.helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, None))
    proto.graph.node.append(onnx.helper.make_node("Add", ["c2", "c2"], ["twice"], name="twice"))
    assert "c2" in observed_tensors(proto, quantized_operators()).observed


def test_the_optimized_graph_gives_the_same_values() -> None:
    proto = float_proto()
    wanted = observed_tensors(proto, quantized_operators()).observed
    feed = {"image": images(1, 4)}
    plain = ActivationReader(proto, wanted, optimized=False, threads=1).activations(feed)
    blocked = ActivationReader(proto, wanted, optimized=True, threads=1).activations(feed)
    assert plain.keys() == blocked.keys() == set(wanted)
    for name, values in plain.items():
        assert blocked[name].size == values.size  # no padding
        assert np.allclose(np.sort(blocked[name], axis=None), np.sort(values, axis=None), atol=1e-4)


def test_the_order_stays_whoever_is_done_first() -> None:
    last = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            last.wait(1)  # overtaken where there are several workers
        if number == 1:
            last.set()
        return number**2

    assert list(in_parallel(work, iter(range(20)))) == [number**2 for number in range(20)]


def test_only_a_few_inputs_are_taken_up_before_the_first_result() -> None:
    taken: list[int] = []

    def inputs() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_parallel(lambda number: number, inputs())
    assert next(results) == 0
    assert len(taken) == workers() + 1


def test_an_error_comes_at_its_input_and_later_inputs_are_not_taken_up() -> None:
    taken: list[int] = []

    def work(number: int) -> int:
        taken.append(number)
        return 10 // (5 - number)

    results = in_parallel(work, iter(range(100)))
    assert [next(results) for _ in range(5)] == [2, 2, 3, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(taken) <= 5 + workers() + 1
