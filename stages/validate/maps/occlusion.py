"""Occlusion: how much an answer loses when a patch of the image is hidden. Any file will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import Task
from foundation.errors import StageError
from foundation.progress import Progress
from onnx_files.sessions import predict
from stages.validate import metrics

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Indices = NDArray[np.int64]


def _silent(done: int, total: int) -> None:
    pass


def occlusion_maps(
    session: InferenceSession,
    images: Images,
    targets: Indices,
    task: Task,
    patch: int,
    stride: int,
    fill: NDArray[np.uint8],
    batch_size: int,
    progress: Progress = _silent,
) -> Maps:
    """Return how much each pixel's neighbourhood speaks for a class: the drop of its log-odds when a patch hides it.

    Zeiler and Fergus 2014, with the log-odds of Robnik-Šikonja and Kononenko 2008 ("weight of evidence"): unlike the
    probability they don't saturate where a network is sure, and unlike a softmax's bare logit they don't move when
    every logit does. A yes/no label's log-odds are its logit. A pixel's value is the mean over the patches that cover
    it. Memory is bounded by `batch_size` images.

    Args:
        session: of a model with one input.
        images: uint8 [m, channels, h, w].
        targets: int64 [m], the class to explain.
        task: the kind of task; it says what log-odds are.
        patch: side of the square patch in pixels, 1 to min(h, w).
        stride: step in pixels, 1 to `patch`; a last patch at the border covers the rest.
        fill: uint8 [channels], the colour of the patch.
        batch_size: occluded images per query.
        progress: called with (images done, images in all).

    Returns:
        float32 [m, h, w].
    """
    height, width = images.shape[2:]
    corners = patch_corners(height, width, patch, stride)
    drops = np.empty((len(images), len(corners)))
    log_odds = metrics.log_odds if task == "multi_class" else _as_they_are
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        intact = log_odds(predict(session, image[None], 1))[0, target]
        for start in range(0, len(corners), batch_size):
            part = corners[start : start + batch_size]
            occluded = np.repeat(image[None], len(part), axis=0)
            for copy, (row, column) in zip(occluded, part, strict=True):
                copy[:, row : row + patch, column : column + patch] = fill[:, None, None]
            hidden = log_odds(predict(session, occluded, batch_size))[:, target]
            drops[index, start : start + len(part)] = intact - hidden
        progress(index + 1, len(images))
    return spread(drops, corners, height, width, patch)


def _as_they_are(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    return logits.astype(np.float64)


def patch_corners(height: int, width: int, patch: int, stride: int) -> list[tuple[int, int]]:
    """Return (row, column) of the upper left corner of every patch; the last ones end at the border.

    Raises:
        StageError: the patches leave pixels uncovered, or don't fit into the image.
    """
    if not 1 <= patch <= min(height, width) or not 1 <= stride <= patch:
        raise StageError(
            f"occlusion: expected 1 ≤ stride ≤ patch ≤ {min(height, width)} pixels, found stride {stride} and patch "
            f"{patch}. Change patch_share and stride_share of the saliency settings."
        )
    rows, columns = (sorted({*range(0, side - patch, stride), side - patch}) for side in (height, width))
    return [(row, column) for row in rows for column in columns]


def spread(drops: NDArray[np.float64], corners: list[tuple[int, int]], height: int, width: int, patch: int) -> Maps:
    """Give each pixel the mean of the drops [m, patches] of the patches that cover it."""
    total = np.zeros((len(drops), height, width))
    covered = np.zeros((height, width))
    for (row, column), drop in zip(corners, drops.T, strict=True):
        area = (slice(row, row + patch), slice(column, column + patch))
        total[:, *area] += drop[:, None, None]
        covered[area] += 1
    return (total / covered).astype(np.float32)
