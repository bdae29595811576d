"""What the files of a kit answer here, held against what was reviewed. Python, numpy and onnxruntime."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .files import IMAGES, MAPS, MODEL, TWIN, Kit, KitError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answered:
    """What the files answered to the golden images.

    Attributes:
        outputs: float32 [n, width], what the model gave for each image, as it gave it.
        maps: float32 [n, height, width]; None where the kit has no twin.
    """

    outputs: Array
    maps: Array | None


def open_session(content: bytes, threads: int) -> Any:
    """Return a session on the CPU provider: operators one after another, threads that rest between queries."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def array_of(kit: Kit, name: str) -> Array:
    """Return an array of a kit.

    Raises:
        KitError: it is none.
    """
    try:
        return np.asarray(np.load(io.BytesIO(kit.read(name)), allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise KitError(f"{kit.root}: {name} is no array ({error}). Take the kit anew.") from error


def to_input(images: Array, preprocessing: Mapping[str, Any]) -> Array:
    """Return images (uint8 [n, channels, height, width]) as the model's input, as the run makes it."""
    if preprocessing["channel_order"] == "BGR":
        images = images[:, ::-1]
    if preprocessing["input_type"] == "float32":
        mean, std = (np.asarray(preprocessing[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
        images = (images.astype(np.float32) / np.float32(255.0) - mean) / std
    return np.ascontiguousarray(np.moveaxis(images, 1, -1) if preprocessing["layout"] == "NHWC" else images)


def map_of(gradient: Array, layout: str) -> Array:
    """Return the map, float32 [height, width], of one image's gradient: its magnitude, averaged over the channels."""
    return np.asarray(np.abs(gradient).mean(axis=-1 if layout == "NHWC" else 0), dtype=np.float32)


def answer_golden(kit: Kit, facts: Mapping[str, Any], threads: int) -> Answered:
    """Return what the files answer to the golden images, one at a time.

    Raises:
        KitError: the runtime refuses a file, or an answer is not finite.
    """
    inputs = to_input(array_of(kit, IMAGES), facts["preprocessing"])
    output, image = facts["output"], facts["input"]
    try:
        session = open_session(kit.read(MODEL), threads)
        outputs = [session.run([output], {image: inputs[k : k + 1]})[0] for k in range(len(inputs))]
        maps = None
        if TWIN in facts["files"]:
            twin = open_session(kit.read(TWIN), threads)
            targets = np.array([golden["explained"] for golden in facts["golden"]], dtype=np.int64)
            maps = np.stack([_map(twin, facts, inputs[k : k + 1], targets[k : k + 1]) for k in range(len(inputs))])
    except KitError:
        raise
    except Exception as error:  # onnxruntime raises errors of many kinds
        raise KitError(f"this onnxruntime cannot run the kit's files ({str(error)[:300]}).") from error
    values = np.concatenate(outputs).reshape(len(inputs), -1).astype(np.float32)
    if not np.isfinite(values).all() or (maps is not None and not np.isfinite(maps).all()):
        raise KitError("expected finite answers and maps, found NaN or infinity: this device cannot run the file.")
    return Answered(values, maps)


def _map(twin: Any, facts: Mapping[str, Any], image: Array, target: Array) -> Array:
    (gradient,) = twin.run(["saliency"], {facts["input"]: image, "target": target})
    return map_of(gradient[0], facts["preprocessing"]["layout"])


def expected(kit: Kit, facts: Mapping[str, Any]) -> Answered:
    """Return what was reviewed."""
    outputs = np.array([golden["outputs"] for golden in facts["golden"]], dtype=np.float32)
    return Answered(outputs, array_of(kit, MAPS) if MAPS in facts["files"] else None)


def map_distances(maps: Array, reference: Array) -> Array:
    """Return ‖map − reference‖ / ‖reference‖ of each image, float64 [n]; of a reference of zeros, ‖map‖."""
    flat, against = (stack.reshape(len(stack), -1).astype(np.float64) for stack in (maps, reference))
    norm = np.linalg.norm(against, axis=1)
    return np.asarray(np.linalg.norm(flat - against, axis=1) / np.where(norm > 0, norm, 1.0))


def rank_correlations(maps: Array, reference: Array) -> Array:
    """Return Spearman's correlation of each map with its reference, float64 [n]; 0 where one of them is constant."""
    pairs = zip(maps, reference)  # noqa: B905 (devices may have an older Python)
    return np.array([_correlation(_ranks(one.ravel()), _ranks(other.ravel())) for one, other in pairs])


def _ranks(values: Array) -> Array:
    """Return ranks; ties get their average."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse.ravel()])


def _correlation(one: Array, other: Array) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float(np.clip((one * other).sum() / scale, -1.0, 1.0)) if scale > 0 else 0.0


def told(found: Answered, wanted: Answered, bounds: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether the answers and maps are the reviewed ones, and that in a sentence."""
    largest = float(np.abs(found.outputs.astype(np.float64) - wanted.outputs).max())
    same = largest <= bounds["outputs"]
    exact = found.outputs.tobytes() == wanted.outputs.tobytes()
    parts = [
        "answers equal bit for bit"
        if exact
        else f"answers differ by at most {largest:.3g} (bound {bounds['outputs']:.3g})"
    ]
    if found.maps is not None and wanted.maps is not None:
        furthest = float(map_distances(found.maps, wanted.maps).max())
        same = same and furthest <= bounds["maps"]
        exact = found.maps.tobytes() == wanted.maps.tobytes()
        parts.append(
            "maps equal bit for bit"
            if exact
            else f"maps by at most {furthest:.3g} of their norm (bound {bounds['maps']:.3g})"
        )
    return same, f"{'same' if same else 'DIFFERENT'}: {', '.join(parts)}"
