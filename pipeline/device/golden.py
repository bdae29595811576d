"""The golden images of a kit: which ones, what the files answer to them, and how far another device may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from foundation.errors import StageError, UsageError
from foundation.progress import Progress
from onnx_files.preprocessing import Preprocessing
from pipeline.device.kit.answers import Answered, map_distances, map_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from calibration_data.prepared import PreparedSplit
    from foundation.artifacts import Task

Images = NDArray[np.uint8]
Which = Literal["test", "generated"]

MOST_GOLDEN = 64
_DRAWS = 4
_MARGIN = 2.0
_LEAST_OF_OUTPUTS = 2.0**-18
_LEAST_OF_MAPS = 2.0**-16

DERIVATION = (
    "Twice the largest deviation found where the kit was bundled, when its files were evaluated in other ways "
    "that ONNX allows: without the runtime's graph optimizations, with the basic ones alone, and with every float "
    f"constant moved by one unit in its last place, up or down at random, {_DRAWS} times; at least 2^-18 of the "
    "largest output and 2^-16 of a map's norm. A device beyond it computes something else than rounding accounts for."
)


@dataclass(frozen=True)
class Asked:
    """How a file is asked about one image.

    Attributes:
        image: name of its input.
        output: name of the output that is judged.
        preprocessing: how images become the input.
    """

    image: str
    output: str
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Files:
    """The bytes of a model and of its twin; None where an operator has no gradient's rule."""

    model: bytes
    twin: bytes | None


@dataclass(frozen=True)
class Bounds:
    """How far answers may differ: outputs absolutely, maps as a share of their norm."""

    outputs: float
    maps: float


@dataclass(frozen=True)
class Golden:
    """What was reviewed of the golden images.

    Attributes:
        answered: outputs and maps.
        targets: int64 [n], the classes that are explained.
        bounds: how far another device may differ.
    """

    answered: Answered
    targets: NDArray[np.int64]
    bounds: Bounds


# --- which images ---


def chosen_test_images(split: PreparedSplit, count: int) -> NDArray[np.int64]:
    """Return which test images are golden, spread over the classes: int64 [min(count, n)]."""
    from stages.validate.explained import images_to_explain

    return images_to_explain(split, count, seed=0)


def generated_images(count: int, channels: int, height: int, width: int) -> Images:
    """Return images of nothing, the same for everybody: soft noise of four coarsenesses over the whole range.

    Returns:
        uint8 [count, channels, height, width].
    """
    from PIL import Image

    rng, images = np.random.default_rng(0), np.empty((count, channels, height, width), dtype=np.uint8)
    for index in range(count):
        side = 4 << (index % 4)
        for channel in range(channels):
            coarse = Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8))
            images[index, channel] = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    return images


def decisions(outputs: NDArray[np.float32], kind: str, task: Task) -> NDArray[np.int64]:
    """Return what a file decided: int64 [n] of one class each, int64 [n, labels] of 0 and 1 otherwise."""
    if kind == "label":
        return outputs[:, 0].astype(np.int64)
    threshold = 0.0 if kind == "logits" else 0.5
    if task == "multi_class" and outputs.shape[1] > 1:
        return np.asarray(outputs.argmax(axis=1), dtype=np.int64)
    return np.asarray(outputs > threshold, dtype=np.int64)


# --- what is answered ---


def evaluate(
    files: Files, asked: Asked, images: Images, targets: NDArray[np.int64] | None, level: str = "all"
) -> Answered:
    """Return what the files answer on this machine's CPU provider, one image at a time.

    Args:
        files: model and twin.
        asked: how.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the classes to explain; None: no maps.
        level: of the runtime's graph optimizations: "all", "basic" or "disable".

    Raises:
        StageError: an answer or a map is not finite.
    """
    inputs = asked.preprocessing.to_input(images)
    session = _session(files.model, level)
    outputs = np.concatenate(
        [session.run([asked.output], {asked.image: inputs[k : k + 1]})[0] for k in range(len(inputs))]
    )
    found = outputs.reshape(len(inputs), -1).astype(np.float32)
    maps = None
    if files.twin is not None and targets is not None:
        twin, layout = _session(files.twin, level), asked.preprocessing.layout
        feeds = ({asked.image: inputs[k : k + 1], "target": targets[k : k + 1]} for k in range(len(inputs)))
        maps = np.stack([map_of(twin.run(["saliency"], feed)[0][0], layout) for feed in feeds])
    if not np.isfinite(found).all() or (maps is not None and not np.isfinite(maps).all()):
        raise StageError("expected finite answers and maps of the golden images, found NaN or infinity.")
    return Answered(found, maps)


def golden_of(files: Files, asked: Asked, images: Images, progress: Progress) -> Golden:
    """Return what the files answer to the golden images, and how far another device may differ.

    What is explained is the class that the file puts highest.
    """
    targets = np.asarray(evaluate(files, asked, images, None).outputs.argmax(axis=1), dtype=np.int64)
    answered = evaluate(files, asked, images, targets)
    return Golden(answered, targets, derived_bounds(files, asked, images, targets, answered, progress))


def derived_bounds(
    files: Files, asked: Asked, images: Images, targets: NDArray[np.int64], reference: Answered, progress: Progress
) -> Bounds:
    """Return how far another device may differ, see `DERIVATION`.

    The random last places are Monte Carlo arithmetic (Parker 1997, UCLA CSD-970002) for the constants alone: what a
    file makes of them is what it would make of another order of additions, near-ties of its integers included.

    Args:
        files: model and twin.
        asked: how they are asked.
        images: the golden ones.
        targets: int64 [n], the classes that are explained.
        reference: what the files answer as they are.
        progress: called with evaluations done and in all.
    """
    ways: list[tuple[Files, str]] = [(files, "disable"), (files, "basic")]
    ways += [(Files(_moved(files.model, k), files.twin and _moved(files.twin, k)), "all") for k in range(_DRAWS)]
    outputs, maps = [0.0], [0.0]
    for done, (of_way, level) in enumerate(ways):
        found = evaluate(of_way, asked, images, targets, level)
        outputs.append(float(np.abs(found.outputs.astype(np.float64) - reference.outputs).max()))
        if found.maps is not None and reference.maps is not None:
            maps.append(float(map_distances(found.maps, reference.maps).max()))
        progress(done + 1, len(ways))
    largest = float(np.abs(reference.outputs).max(initial=1e-6))
    return Bounds(max(_MARGIN * max(outputs), _LEAST_OF_OUTPUTS * largest), max(_MARGIN * max(maps), _LEAST_OF_MAPS))


def _moved(content: bytes, seed: int) -> bytes:
    """Return a file whose float constants are each one unit in the last place higher or lower; zeros stay."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model, rng = onnx.load_model_from_string(content), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            towards = np.where(rng.random(values.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            moved = np.where(values == 0, values, np.nextafter(values, towards))
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return bytes(model.SerializeToString())


def _session(content: bytes, level: str) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = {
        "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }[level]
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises errors of many kinds
        raise StageError(f"the file cannot be run on the CPU provider ({error}). Bundle another variant.") from error


def same_as_reviewed(answered: NDArray[np.int64], reviewed: NDArray[np.int64], variant: str) -> NDArray[np.bool_]:
    """Return which golden images are answered here, one at a time, as the run's own evidence has it: bool [n].

    Raises:
        StageError: fewer than half of them are.
    """
    same = np.asarray((answered == reviewed).reshape(len(answered), -1).all(axis=1))
    if 2 * same.sum() < len(same):
        raise StageError(
            f"{variant}: expected this machine to answer as the run recorded, found {int(same.sum())} of {len(same)} "
            "golden images answered alike. Bundle on the machine of the run, or run again here."
        )
    return same


def golden_entries(names: Sequence[str], found: Golden, decided: NDArray[np.int64]) -> list[Mapping[str, Any]]:
    """Return what `kit.json` says of each golden image."""
    return [
        {
            "name": name,
            "outputs": [float(value) for value in found.answered.outputs[index]],
            "explained": int(found.targets[index]),
            "decided": decided[index].tolist(),
        }
        for index, name in enumerate(names)
    ]


def refuse_bad_count(count: int) -> None:
    """Do nothing with a number of golden images that a kit can hold.

    Raises:
        UsageError: it is none.
    """
    if not 1 <= count <= MOST_GOLDEN:
        raise UsageError(f"--golden: expected a number from 1 to {MOST_GOLDEN}, found {count}.")
