"""Graphs run on calibration images for what is inside them, a batch at a time; only small results are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_files.graph import GraphIndex, opset_of, reads
from onnx_files.preprocessing import Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_PIXELS_OF_A_BATCH = 2**18
_MOST_BYTES_KEPT = 1_000_000_000

Feeds = Mapping[str, NDArray[np.generic]]
"""One batch of images, by the name of the model's input."""

Batches = Callable[[], Iterable[Feeds]]
"""Gives the calibration images from the first on, batch by batch, each time it is called."""

Memory = dict[str, list[dict[str, NDArray[np.generic]]]]
"""What small tensors of graphs were, batch by batch of the same calibration images, by a digest of what was asked."""


def answers(proto: ModelProto, batches: Batches) -> NDArray[np.float64]:
    """Return a graph's first output on all calibration images, float64 [images, …]."""
    output = proto.graph.output[0].name
    run = runner(proto, [output])
    return np.concatenate([run(feeds)[output].astype(np.float64) for feeds in batches()])


def image_batches(
    proto: ModelProto,
    images: NDArray[np.uint8],
    chosen: Sequence[int],
    preprocessing: Preprocessing,
    input_name: str,
    size: int | None = None,
) -> Batches:
    """Return the batches of some images, the last one smaller where the model takes one.

    Args:
        proto: the model. Where it takes nothing but batches of one size, that is the size, and the last batch is
            filled up with the first images.
        images: uint8 [n, channels, height, width]; may be mapped from disk.
        chosen: which of them, in order; at least one.
        preprocessing: from images to the model's input.
        input_name: name of that input.
        size: images in a batch; by default as many as take little memory, 16 or fewer.
    """
    (value,) = (value for value in proto.graph.input if value.name == input_name)
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    step = fixed or size or min(16, max(1, _PIXELS_OF_A_BATCH // (images.shape[2] * images.shape[3])))
    order = list(chosen)
    while fixed and len(order) % fixed:
        order += order[: fixed - len(order) % fixed]

    def batches() -> Iterator[Feeds]:
        for start in range(0, len(order), step):
            batch = np.stack([images[index] for index in order[start : start + step]])
            yield {input_name: preprocessing.to_input(batch)}

    return batches


def sqnr_db(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Return the power of the reference over the power of the difference, in dB; None where the ratio has no number.

    Args:
        reference: of any shape.
        other: of the same shape.
    """
    signal, noise = float(np.sum(reference**2)), float(np.sum((reference - other) ** 2))
    if not (0 < signal < np.inf and 0 < noise < np.inf):
        return None
    return 10 * float(np.log10(signal / noise))


def runner(
    proto: ModelProto, tensors: Sequence[str], known: Feeds | None = None
) -> Callable[[Feeds], dict[str, NDArray[np.generic]]]:
    """Return what runs one batch through a graph and gives the chosen tensors by name; the rest is not computed.

    Args:
        proto: any graph.
        tensors: names of values in it; distinct.
        known: values inside it that are fed as well, so that what makes them is not computed: of any batch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of initializers that the shortened graph has no use for
    options.enable_cpu_mem_arena = False  # the arena keeps growing with every batch, and is little faster
    content = upstream(proto, tensors, known).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    inputs = [value.name for value in session.get_inputs()]

    def run(feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        found = session.run(list(tensors), {name: feeds[name] for name in inputs})
        return dict(zip(tensors, found, strict=True))

    return run


def recalling(
    proto: ModelProto, tensors: Sequence[str], memory: Memory | None
) -> Callable[[int, Feeds], dict[str, NDArray[np.generic]]]:
    """Return what gives the chosen tensors of a batch by its number, and runs the graph where it never did.

    Args:
        proto: any graph.
        tensors: names of values in it, small ones: all of them are kept.
        memory: what graphs gave before, on the same batches; None to begin anew.
    """
    memory = {} if memory is None else memory
    content = proto.SerializeToString(deterministic=True)
    kept = memory.setdefault(sha256(b"\0".join([content, *map(str.encode, tensors)])).hexdigest(), [])
    run = cache(lambda: runner(proto, tensors))

    def recall(number: int, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        if number == len(kept):
            kept.append(run()(feeds))
        return kept[number]

    return recall


class Onward:
    """A graph that is run on a set of images for one tensor after the other, from front to back.

    What later nodes read is kept, as integers where the graph makes them of it, so that hardly a node runs twice.
    The weights of nodes that have not run yet may change in between.
    """

    def __init__(self, proto: ModelProto, batches: Batches) -> None:
        self._proto, self._batches = proto, batches
        self._kept: list[dict[str, NDArray[np.generic]]] = [{} for _ in batches()]
        self._ran: set[str] = set()

    def values(self, tensor: str) -> Iterator[NDArray[np.generic]]:
        """Return a tensor's values, batch by batch; each must be taken before the next tensor is asked for."""
        known = self._kept[0]
        # What follows integers is made anew from them, which is cheap, and they take a quarter of the room.
        nodes = upstream(self._proto, [tensor], known).graph.node if tensor not in known else ()
        ran = [node for node in nodes if node.op_type != "DequantizeLinear"]
        self._ran.update(node.output[0] for node in ran)
        index = GraphIndex.of(self._proto.graph)
        made = [name for node in ran for name in node.output if name and self._is_read(name, index)]
        live = {name for name in (*known, *made) if self._is_read(name, index)}
        run = runner(self._proto, list(dict.fromkeys([tensor, *made])), known) if tensor not in known else None
        size = 0
        for number, feeds in enumerate(self._batches()):
            values = dict(self._kept[number])
            values |= run({**feeds, **values}) if run else {}
            self._kept[number] = {
                name: value for name, value in values.items() if name in live and isinstance(value, np.ndarray)
            }
            size += sum(value.nbytes for value in self._kept[number].values())
            yield values[tensor]
        if size > _MOST_BYTES_KEPT:  # the next one runs from the front
            self._kept = [{} for _ in self._kept]

    def _is_read(self, name: str, index: GraphIndex) -> bool:
        """Return whether a node that has not run yet reads a tensor, by itself or made from integers."""
        return any(
            self._is_read(node.output[0], index)
            if node.op_type == "DequantizeLinear"
            else node.output[0] not in self._ran
            for node in index.readers.get(name, [])
        )


def upstream(proto: ModelProto, tensors: Iterable[str], known: Feeds | None = None) -> ModelProto:
    """Return the part of a graph that computes some tensors, which become its outputs.

    Args:
        proto: any graph.
        tensors: names of values in it; distinct.
        known: values that become inputs; only their types are looked at.
    """
    import onnx

    known = known or {}
    producers = GraphIndex.of(proto.graph).producers
    waiting, needed = list(tensors), set()
    while waiting:
        name = waiting.pop()
        if name and name not in needed:
            needed.add(name)
            waiting += reads(producers[name]) if name in producers and name not in known else []
    part = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    part.graph.name = proto.graph.name
    made = needed - known.keys()
    part.graph.node.extend(node for node in proto.graph.node if made.intersection(node.output))
    part.graph.initializer.extend(value for value in proto.graph.initializer if value.name in needed)
    part.graph.sparse_initializer.extend(
        value for value in proto.graph.sparse_initializer if value.values.name in needed
    )
    part.graph.input.extend(value for value in proto.graph.input if value.name in needed)
    part.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), None)
        for name, value in known.items()
        if name in needed
    )
    declared = {value.name: value for value in proto.graph.output}
    part.graph.output.extend(declared.get(name, onnx.ValueInfoProto(name=name)) for name in tensors)
    return part


def reduction(
    proto: ModelProto,
    operator: Literal["ReduceMean", "ReduceMax"],
    tensor: str,
    output: str,
    axes: Sequence[int],
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the node and the constants that reduce a tensor, in the form of the graph's opset; sizes stay as 1."""
    from onnx import helper, numpy_helper

    if opset_of(proto) < 18:
        return [helper.make_node(operator, [tensor], [output], axes=list(axes), keepdims=1)], []
    name = f"{output}_axes"
    constant = numpy_helper.from_array(np.array(axes, dtype=np.int64), name)
    return [helper.make_node(operator, [tensor, name], [output], keepdims=1)], [constant]


def channel_peaks(
    proto: ModelProto, tensors: Sequence[str], batches: Batches, memory: Memory | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the greatest value that each channel takes on the calibration images, float64 [channels] by tensor.

    Args:
        proto: any graph.
        tensors: names of values [images, channels, height, width].
        batches: the calibration images.
        memory: what graphs gave before, on the same images.
    """
    import onnx

    if not tensors:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    outputs = {name: f"{name}_peak" for name in tensors}
    for name, output in outputs.items():
        nodes, constants = reduction(proto, "ReduceMax", name, output, (0, 2, 3))
        probe.graph.node.extend(nodes)
        probe.graph.initializer.extend(constants)
    peaks: dict[str, NDArray[np.float64]] = {}
    recall = recalling(probe, list(outputs.values()), memory)
    for number, feeds in enumerate(batches()):
        values = recall(number, feeds)
        for name, output in outputs.items():
            peak = values[output].astype(np.float64).ravel()
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks
