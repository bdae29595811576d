"""The ranges of a network's activations, found image by image in memory that does not grow with their number.

Images are taken one at a time in the order of their content's digests, so that neither their order nor a batch size
changes a range. Minimum and maximum are ONNX Runtime's to the last bit. Percentile and entropy are its own bin for
bin where there are no more than `COUNTED_WHOLE` images; of more, all that is extreme is counted and the rest sampled
(`range_collection`). So the extremes and the ends that a percentile looks at stay exact, up to the bins; a bin that
holds a share s of n sampled values is off by about √(s / n) of all values (one standard error).

ONNX Runtime's own calibrators keep every tensor of every image; with `CalibMaxIntermediateOutputs` they throw away
what they have seen so far.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from foundation.arrays import let_go_of_pages
from foundation.errors import UsageError
from foundation.files import read_json, sha256_of_json
from foundation.progress import Progress, no_progress
from foundation.sealed_files import refuse_broken_seal, write_sealed
from foundation.versions import versions_of
from onnx_files.preprocessing import Preprocessing
from stages.quantize.calibration.activations import ObservedTensors, in_parallel, observed_tensors
from stages.quantize.calibration.histogram import Distribution
from stages.quantize.calibration.range_collection import (
    LEAST_TAIL_SHARE,
    ImageFeeds,
    collect_distributions,
    collect_extremes,
)
from stages.quantize.calibration.range_search import Range, entropy_range, mse_range, percentile_range

if TYPE_CHECKING:
    from onnx import ModelProto

CalibrationMethod = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]

LEARNED_CLIPS_KEY = "edgeproof.learned_clips"
"""In the metadata of a float export whose clips were trained: its ranges are not searched for, they are there."""
_DIGESTS_AT_A_TIME = 64
_FORMAT = 3  # of the cached file; another one where these functions come to other ranges


@dataclass(frozen=True)
class Calibration:
    """How ranges are chosen.

    Attributes:
        method: minmax: the extremes. moving_average: the mean over the images of each image's extremes. percentile:
            what leaves the outermost values out. entropy: least Kullback-Leibler divergence. mse: least expected
            squared error.
        percentile: share of the values inside the range, in percent; of `percentile` alone.
        levels: number of integers that the range is divided into; of `mse` alone.
    """

    method: CalibrationMethod = "minmax"
    percentile: float = 99.99
    levels: int = 256


def find_ranges(
    proto: ModelProto,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    input_name: str,
    operators: tuple[str, ...],
    calibration: Calibration,
    cache: Path | None = None,
    progress: Progress = no_progress,
    chosen: Sequence[int] | None = None,
    excluded: tuple[str, ...] = (),
) -> dict[str, Range]:
    """Run the calibration images through a float graph and choose a range for each activation.

    Args:
        proto: the float graph; left as it is.
        images: uint8 [n, channels, height, width]; may be mapped from disk.
        preprocessing: from images to the model's input.
        input_name: name of that input.
        operators: types of nodes whose inputs and outputs get ranges.
        calibration: the method and its parameters.
        cache: folder with ranges that were found before, by content; None for none.
        progress: called after each image.
        chosen: which of the images to take; None for all.
        excluded: names of nodes that are not quantized, whatever their type.

    Returns:
        From each tensor's name to its lowest and highest value.

    Raises:
        UsageError: no images, or no float activations.
        StageError: an activation is not finite.
    """
    images = np.asarray(images)  # a mapped one as a plain array, which is cheaper to take one image of
    indices = list(range(len(images)) if chosen is None else chosen)
    if not indices:
        raise UsageError("expected calibration images, found none. Raise the number of calibration images.")
    digests = _digests(images, indices)
    order = sorted(indices, key=digests.__getitem__)
    path, key = None, ""
    if cache:
        of_images = sorted(digests[index] for index in indices)
        key = _key(proto, of_images, preprocessing, (*operators, *excluded), calibration)
        path = cache / f"{key}.json"
    found = _read(path, key)
    if found is not None:
        progress(len(order), len(order))
        return found
    tensors = observed_tensors(proto, operators, frozenset(excluded))
    size = _batch_size(proto, input_name)
    feeds = ImageFeeds(images, order, preprocessing, input_name, size)
    learned = _learned(proto, tensors)
    searched = [name for name in tensors.observed if name not in learned]
    if calibration.method in ("minmax", "moving_average"):
        ranges = collect_extremes(proto, searched, feeds, calibration.method == "moving_average", progress)
    else:
        lower_bounds = {name: low for name, (low, _) in tensors.bounds.items()}
        distributions = collect_distributions(
            proto, searched, lower_bounds, _tail_share(calibration), feeds, progress
        )
        chosen_ends = in_parallel(lambda name: _choose(distributions[name], calibration), iter(distributions))
        ranges = dict(zip(distributions, chosen_ends, strict=True))
    ranges = ranges | learned
    ranges |= {name: ranges[other] for name, other in tensors.same_as.items() if other in ranges}
    ordered = {name: ranges[name] for name in sorted(ranges)}
    if path is not None:
        write_sealed(path, {"format": _FORMAT, "key": key, "ranges": ordered})
    return ordered


def as_tensors_data(ranges: Mapping[str, Range]) -> Any:
    """Return ranges in the form that ONNX Runtime's writers take."""
    from onnxruntime.quantization.calibrate import CalibrationMethod as Method
    from onnxruntime.quantization.calibrate import TensorsData

    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(Method.MinMax, data)


def _batch_size(proto: ModelProto, input_name: str) -> int:
    (value,) = (value for value in proto.graph.input if value.name == input_name)
    dimensions = value.type.tensor_type.shape.dim
    return max(1, dimensions[0].dim_value) if dimensions else 1


def _learned(proto: ModelProto, tensors: ObservedTensors) -> dict[str, Range]:
    if not any(entry.key == LEARNED_CLIPS_KEY for entry in proto.metadata_props):
        return {}
    return {name: bounds for name, bounds in tensors.bounds.items() if np.all(np.isfinite(bounds))}


def _tail_share(calibration: Calibration) -> float:
    if calibration.method != "percentile":
        return LEAST_TAIL_SHARE
    # Several times what is cut off at either end, since the first images only tell roughly where that is.
    return max(LEAST_TAIL_SHARE, 4 * (100 - calibration.percentile) / 200)


def _choose(distribution: Distribution, calibration: Calibration) -> Range:
    if calibration.method == "percentile":
        return percentile_range(distribution, calibration.percentile)
    if calibration.method == "entropy":
        return entropy_range(distribution)
    return mse_range(distribution, calibration.levels)


# --- the cache ---


def _digests(images: NDArray[np.uint8], indices: Sequence[int]) -> dict[int, str]:
    def digests_of(lot: Sequence[int]) -> list[tuple[int, str]]:
        return [(index, hashlib.sha256(images[index].tobytes()).hexdigest()) for index in lot]

    digests: dict[int, str] = {}
    lots = (indices[start : start + _DIGESTS_AT_A_TIME] for start in range(0, len(indices), _DIGESTS_AT_A_TIME))
    for found in in_parallel(digests_of, lots):
        digests.update(found)
        let_go_of_pages(images)
    return digests


def _key(
    proto: ModelProto,
    digests: list[str],
    preprocessing: Preprocessing,
    operators: tuple[str, ...],
    calibration: Calibration,
) -> str:
    parameters = {"percentile": calibration.percentile} if calibration.method == "percentile" else {}
    if calibration.levels != Calibration.levels:
        parameters["levels"] = calibration.levels
    return sha256_of_json(
        {
            "format": _FORMAT,
            "model": hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(),
            "images": digests,
            "preprocessing": preprocessing.to_metadata(),
            "operators": list(operators),
            "method": calibration.method,
            "parameters": parameters,
            "versions": versions_of(("numpy", "onnxruntime")),
        }
    )


def _read(path: Path | None, key: str) -> dict[str, Range] | None:
    if path is None or not path.is_file():
        return None
    try:
        refuse_broken_seal(path, "Delete it.")
        kept = read_json(path)
        if kept["key"] != key:
            return None  # of another model or other images, under this one's name
        return {str(name): (float(low), float(high)) for name, (low, high) in kept["ranges"].items()}
    except (UsageError, TypeError, LookupError, ValueError, AttributeError, RecursionError, OverflowError):
        return None  # edited, or of an earlier version: found anew, and written over
