"""A built-in reference model: compiled and asked here, held against what known processors and runtimes answered.

A package, a processor or a compiler flag that changes what files answer is seen before any model of the user's is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import EdgeproofError
from foundation.files import JSON, sha256_of_file, write_bytes
from foundation.processor import CpuTarget, detect_cpu
from foundation.versions import installed_version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from calibration_data.prepared import PreparedData
    from foundation.artifacts import OnnxModel

IMAGES, SIZE, CLASSES = 16, 32, 10
_KNOWN = Path(__file__).with_name("known_answers.json")
_TOLERANCE: Mapping[str, float] = {"float": 1e-5, "static": 0.02, "dynamic": 0.02}
"""Of the largest logit, where no answers of just this runtime and processor are stored: kernels sum in another order,
and an integer that rounds the other way moves by its step. Saturation moves a logit by more than a tenth."""

Outcome = Literal["equal", "close", "different", "unable"]


@dataclass(frozen=True)
class ReferenceAnswer:
    """What one file of the reference model answered here.

    Attributes:
        variant: "float", "static" or "dynamic".
        outcome: bit for bit what was stored of this runtime and processor; within the tolerance of the nearest that
            is stored; neither; or there is no answer.
        found: that in words.
    """

    variant: str
    outcome: Outcome
    found: str


def check_reference(folder: Path) -> tuple[ReferenceAnswer, ...]:
    """Compile the reference model, ask it, and hold its answers against the stored ones.

    Args:
        folder: an empty one to work in.
    """
    target = detect_cpu().target
    if target is None:
        return (ReferenceAnswer("float", "unable", "no answers are stored of this architecture"),)
    return tuple(_judged(variant, logits, target) for variant, logits in answers_here(folder, target))


def answers_here(folder: Path, target: CpuTarget) -> Iterator[tuple[str, NDArray[np.float32] | str]]:
    """Yield each variant of the reference model with its logits, float32 [images, classes], or why it has none.

    Args:
        folder: an empty one to work in.
        target: the processor that integer types are chosen for.
    """
    from onnx_files.sessions import open_session, predict
    from stages.quantize.methods.dynamic import DynamicSettings, quantize_dynamic
    from stages.quantize.methods.static import StaticSettings, quantize_static

    source, data = _source(folder), _data()
    static, dynamic = StaticSettings(target=target, images=IMAGES), DynamicSettings(reduce_range=target == "x86-avx2")
    compiled: Mapping[str, Callable[[], OnnxModel]] = {
        "float": lambda: source,
        "static": lambda: quantize_static(source, "static", static, data, folder / "static.onnx"),
        "dynamic": lambda: quantize_dynamic(source, "dynamic", dynamic, data, folder / "dynamic.onnx"),
    }
    for variant, compile_it in compiled.items():
        try:
            session = open_session(compile_it().path, "cpu", 1)
            yield variant, predict(session, data.test.images, IMAGES)
        except (EdgeproofError, RuntimeError) as error:
            yield variant, f"could not be compiled or asked: {error}"


def row_here(folder: Path, target: CpuTarget) -> dict[str, JSON]:
    """Return what `known_answers.json` would hold of this processor and runtime.

    Args:
        folder: an empty one to work in.
        target: the processor that integer types are chosen for.
    """
    found = list(answers_here(folder, target))
    return {
        "processor": detect_cpu().model,
        "target": target,
        "onnxruntime": [installed_version("onnxruntime")],
        "answers": {variant: as_known(logits) for variant, logits in found if not isinstance(logits, str)},
    }


def as_known(logits: NDArray[np.float32]) -> dict[str, JSON]:
    """Return logits as they are stored: a digest of their bytes, and the numbers to seven digits."""
    return {
        "sha256": hashlib.sha256(logits.astype("<f4").tobytes()).hexdigest(),
        "logits": [[float(f"{value:.7g}") for value in row] for row in logits.tolist()],
    }


def _judged(variant: str, logits: NDArray[np.float32] | str, target: CpuTarget) -> ReferenceAnswer:
    import numpy as np

    if isinstance(logits, str):
        return ReferenceAnswer(variant, "unable", logits)
    runtime = installed_version("onnxruntime") or "unknown"
    stored = [row for row in _known() if row["target"] == target]
    same = [row for row in stored if runtime in row["onnxruntime"]]
    digest = as_known(logits)["sha256"]
    if any(row["answers"][variant]["sha256"] == digest for row in same):
        return ReferenceAnswer(variant, "equal", f"as stored of onnxruntime {runtime} on {target}, bit for bit")
    if not stored:
        return ReferenceAnswer(variant, "unable", f"no answers are stored of {target}")
    nearest, largest = None, math.inf
    for row in same or stored:
        expected = np.asarray(row["answers"][variant]["logits"], dtype=np.float32)
        difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
        if difference < largest:
            nearest, largest = row, difference
    assert nearest is not None
    of = f"onnxruntime {nearest['onnxruntime'][-1]} on {nearest['processor']}"
    told = f"off those of {of} by {largest:.1e} of the largest logit, {_TOLERANCE[variant]:g} allowed"
    return ReferenceAnswer(variant, "close" if largest <= _TOLERANCE[variant] else "different", told)


@cache
def _known() -> list[dict[str, JSON]]:
    rows: list[dict[str, JSON]] = json.loads(_KNOWN.read_text(encoding="utf-8"))["known"]
    return rows


def _numbers(count: int, seed: int) -> NDArray[np.float32]:
    """Return numbers between −1 and 1 that no next version of a library changes (Park and Miller 1988)."""
    import numpy as np

    state, found = seed, []
    for _ in range(count):
        state = 48_271 * state % 2_147_483_647
        found.append(state / 2_147_483_647 * 2 - 1)
    return np.array(found, dtype=np.float32)


def _pixels(count: int, seed: int) -> NDArray[np.uint8]:
    import numpy as np

    patches = (_numbers(count * 3 * 64, seed) * 110 + 128).reshape(count, 3, 8, 8)
    return patches.repeat(SIZE // 8, axis=2).repeat(SIZE // 8, axis=3).astype(np.uint8)


def _data() -> PreparedData:
    import numpy as np

    from calibration_data.prepared import PreparedData, PreparedSplit

    def split(pixels: NDArray[np.uint8]) -> PreparedSplit:
        names = tuple(f"reference-{index}" for index in range(len(pixels)))
        nothing = np.zeros((len(pixels), SIZE, SIZE), dtype=np.bool_)
        labels = np.arange(len(pixels), dtype=np.int64) % CLASSES
        return PreparedSplit(
            pixels, labels, nothing, nothing[:, 0, 0], labels, names, names, ((),) * len(names), names
        )

    train, validation, test = (split(_pixels(IMAGES, seed)) for seed in (1, 2, 3))
    classes, half = tuple(map(str, range(CLASSES))), (0.5,) * 3
    return PreparedData("reference", classes, half, half, True, (), "0" * 64, train, validation, test)


def _source(folder: Path) -> OnnxModel:
    """Write the float file: a convolution, a depthwise one, a pointwise one, a mean and a linear layer."""
    from foundation.artifacts import OnnxModel

    path = folder / "reference.onnx"
    write_bytes(path, _proto().SerializeToString(deterministic=True))
    return OnnxModel("reference", path, sha256_of_file(path), None)


def _proto() -> ModelProto:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from onnx_files.preprocessing import Preprocessing

    shapes = {
        "first": (16, 3, 3, 3), "first_bias": (16,), "depthwise": (16, 1, 3, 3), "depthwise_bias": (16,),
        "pointwise": (32, 16, 1, 1), "pointwise_bias": (32,), "head": (CLASSES, 32), "head_bias": (CLASSES,),
    }  # fmt: skip
    weights = [
        numpy_helper.from_array(_numbers(math.prod(shape), 7 + number).reshape(shape) * 0.5, name)
        for number, (name, shape) in enumerate(shapes.items())
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first", "first_bias"], ["a"], "first", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "relu_a"),
        helper.make_node("Conv", ["b", "depthwise", "depthwise_bias"], ["c"], "depthwise", pads=[1] * 4, group=16),
        helper.make_node("Relu", ["c"], ["d"], "relu_c"),
        helper.make_node("Conv", ["d", "pointwise", "pointwise_bias"], ["e"], "pointwise"),
        helper.make_node("Relu", ["e"], ["f"], "relu_e"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["h"], "flat"),
        helper.make_node("Gemm", ["h", "head", "head_bias"], ["logits"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, Preprocessing("float32", (0.5,) * 3, (0.25,) * 3, SIZE).to_metadata())
    onnx.checker.check_model(proto)
    return proto
