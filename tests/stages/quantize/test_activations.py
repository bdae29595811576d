"""Which tensors are looked at, and that ONNX Runtime's blocks of channels hold the same values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from quantizable import CLIP, float_proto, images

from stages.quantize.activations import Observer, observed_tensors, run_ahead
from stages.quantize.static import quantized_operators


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
    plain = Observer(proto, wanted, optimized=False, threads=1).activations(feed)
    blocked = Observer(proto, wanted, optimized=True, threads=1).activations(feed)
    assert plain.keys() == blocked.keys() == set(wanted)
    for name, values in plain.items():
        assert blocked[name].size == values.size  # no padding
        assert np.allclose(np.sort(blocked[name], axis=None), np.sort(values, axis=None), atol=1e-4)


def test_the_next_input_runs_ahead_and_the_order_stays() -> None:
    proto = float_proto()
    pixels = images(5, 4)
    observer = Observer(proto, ["pixels"], optimized=True, threads=1)
    seen: list[float] = []
    run_ahead(
        observer,
        ({"image": pixels[index : index + 1]} for index in range(5)),
        lambda activations: seen.append(float(activations["pixels"].sum())),
    )
    assert seen == [float(image.sum()) for image in pixels.astype(np.float32)]
    assert all(one != other for one, other in pairwise(seen))
