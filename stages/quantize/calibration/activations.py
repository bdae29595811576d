"""The activations of a float graph, image by image: which ones a quantizer needs, and how to get at them cheaply.

ONNX Runtime runs convolutions on blocks of channels and turns each tensor that somebody asks for back into plain
order. Ranges do not care for the order, so the graph is optimized first, with all activations as outputs, and then
asked for the blocks themselves. On MobileNetV2 at 224 px that makes a pass 1.16 times a bare one instead of 1.8.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from foundation.processor import usable_cores
from onnx_files.graph import GraphIndex, attributes_of, bounds_of
from onnx_files.shapes import with_shapes

if TYPE_CHECKING:
    from onnx import ModelProto

Activations = dict[str, NDArray[np.float32]]
"""Tensor → its values, float32; their order within one image is none in particular."""

_REARRANGING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout")
_LARGEST_BLOCK = 16
_MOST_WORKERS = 4  # of MobileNetV2 at 224 px each holds 28 MB

Input = TypeVar("Input")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ObservedTensors:
    """What to look at in a graph.

    Attributes:
        observed: tensors whose values count, in graph order.
        same_as: tensor → the observed one whose range it takes: it holds the same values in another shape, or it is
            what a ReLU or Clip reads and ONNX Runtime's writer gives it the range of what comes out.
        bounds: observed output of a ReLU or Clip → (lowest, highest) that it can hold; infinite where it is open.
    """

    observed: tuple[str, ...]
    same_as: Mapping[str, str]
    bounds: Mapping[str, tuple[float, float]]


def observed_tensors(
    proto: ModelProto, operators: Sequence[str], excluded: Collection[str] = frozenset()
) -> ObservedTensors:
    """Return the float tensors that ONNX Runtime's calibrators would collect, each range once.

    Args:
        proto: the float graph.
        operators: types of nodes whose inputs and outputs are quantized.
        excluded: names of nodes that are not, whatever their type.

    Raises:
        UsageError: shape inference fails on the graph, or finds no float tensor at those nodes.
    """
    import onnx

    graph = with_shapes(proto).graph
    index = GraphIndex.of(graph)
    floats = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    } - index.initializers.keys()
    touched = {
        name
        for node in graph.node
        if node.op_type in operators and node.name not in excluded
        for name in (*node.input, *node.output)
    } & floats
    same_as: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _REARRANGING and node.input[0] in floats and node.output[0] in touched:
            same_as[node.output[0]] = node.input[0]
    for name in touched:
        readers = index.readers.get(name, [])
        dropped = len(readers) == 1 and readers[0].op_type in ("Relu", "Clip") and readers[0].name not in excluded
        if dropped and readers[0].output[0] in touched:
            same_as[name] = readers[0].output[0]
    same_as = _ends(same_as)
    wanted = (touched - same_as.keys()) | set(same_as.values())
    if not wanted:
        raise UsageError("expected float activations between the nodes to quantize, found none. Give a float model.")
    made = [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
    bounds = {node.output[0]: bounds_of(node, index) for node in graph.node if node.op_type in ("Relu", "Clip")}
    observed = tuple(name for name in made if name in wanted)
    return ObservedTensors(observed, same_as, {name: bounds[name] for name in observed if name in bounds})


def _ends(same_as: Mapping[str, str]) -> dict[str, str]:
    # Where each chain ends; every link is walked once, since chains can be as long as a network.
    ends: dict[str, str] = {}
    for name in same_as:
        chain = []
        while name in same_as and name not in ends:
            chain.append(name)
            name = same_as[name]
        ends |= dict.fromkeys(chain, ends.get(name, name))
    return ends


class ActivationReader:
    """A session that gives the wanted activations of one input after the other.

    Args:
        proto: the float graph; left as it is.
        wanted: names of tensors.
        optimized: with ONNX Runtime's fusions, fast; without, bit for bit what its own calibrators see.
        threads: of the session.
    """

    def __init__(self, proto: ModelProto, wanted: Sequence[str], optimized: bool, threads: int) -> None:
        import onnx
        from onnxruntime import GraphOptimizationLevel, InferenceSession

        self._inputs = [value.name for value in proto.graph.input if value.name in wanted]
        made = [name for name in wanted if name not in self._inputs]
        model = onnx.ModelProto()
        model.CopyFrom(proto)
        present = {value.name for value in model.graph.output}
        model.graph.output.extend(_output(name) for name in made if name not in present)
        self._sources = {name: name for name in made}
        content = model.SerializeToString()
        del model
        if optimized:
            content, self._sources = _optimized(content, made)
        options = _options(threads)
        # What is optimized already would only be searched again.
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def activations(self, feed: Mapping[str, NDArray[Any]]) -> Activations:
        """Run one input and return its activations."""
        names = list(dict.fromkeys(self._sources.values()))
        values = dict(zip(names, self._session.run(names, dict(feed)), strict=True)) if names else {}
        found = {name: _as_float32(values[source]) for name, source in self._sources.items()}
        return found | {name: _as_float32(np.asarray(feed[name])) for name in self._inputs}


def workers() -> int:
    """Return how many inputs to run at a time, each on its share of the processors; each holds its activations."""
    return min(_MOST_WORKERS, usable_cores())


def threads_of_worker() -> int:
    """Return the threads for a session that all workers share."""
    return max(1, usable_cores() // workers())


def in_parallel(work: Callable[[Input], Result], inputs: Iterator[Input]) -> Iterator[Result]:
    """Yield what `work` makes of each input, in order; takes an input up only when a worker is about to be free."""
    from concurrent.futures import Future, ThreadPoolExecutor

    count = workers()
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=count) as executor:
        for one in inputs:
            running.append(executor.submit(work, one))
            if len(running) > count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


def _options(threads: int) -> Any:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    # Several inputs run at a time: a thread that waits for its part of one would take a core from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # it warns that an optimized graph suits this machine only, which is all we want
    return options


def _output(name: str) -> Any:
    from onnx import ValueInfoProto

    return ValueInfoProto(name=name)  # ONNX Runtime infers the type


def _optimized(content: bytes, wanted: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """Return the graph as ONNX Runtime runs it, and for each wanted tensor the one to fetch."""
    import onnx
    from onnxruntime import InferenceSession

    with tempfile.TemporaryDirectory() as folder:
        options = _options(1)
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        InferenceSession(content, options, providers=["CPUExecutionProvider"])
        model = onnx.load_model(options.optimized_model_filepath)
    index = GraphIndex.of(model.graph)
    sources: dict[str, str] = {}
    for name in wanted:
        sources[name] = name
        node = index.producers.get(name)  # None for what was folded into a constant
        if node is None or node.op_type != "ReorderOutput":
            continue
        if (
            attributes_of(node)["channels"] % _LARGEST_BLOCK == 0
        ):  # else the last block is filled up, and the filling would count
            sources[name] = node.input[0]
            if name not in index.readers:
                model.graph.node.remove(node)
    del model.graph.output[:]
    model.graph.output.extend(_output(name) for name in dict.fromkeys(sources.values()))
    del model.graph.value_info[:]
    return model.SerializeToString(), sources
