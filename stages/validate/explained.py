"""What is explained: which test images get saliency maps, and which of their classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit, Task

Indices = NDArray[np.int64]


def explained_classes(logits: NDArray[np.float32], mask_class: Indices, task: Task) -> Indices:
    """Return the class that every variant's map of an image explains.

    With one class per image it is fp32's answer, also where that is wrong. With labels it is the one whose finding
    the mask shows, because only for that one the mask says where a map should look; elsewhere fp32's highest logit.

    Args:
        logits: float32 [n, classes], fp32's.
        mask_class: int64 [n], as in `PreparedSplit`.
        task: the kind of task.

    Returns:
        int64 [n].
    """
    highest = logits.argmax(axis=1).astype(np.int64)
    return highest if task == "multi_class" else np.where(mask_class >= 0, mask_class, highest)


def images_to_explain(data: PreparedSplit, count: int, seed: int) -> Indices:
    """Choose test images to explain.

    With one class per image: as evenly over the classes as they allow. With labels: half of them are images whose
    mask shows the finding of one label, spread over these labels; the rest are spread over the rarest label of each
    image, no label being one of them. Where one half has too few images, the other one fills up.

    Args:
        data: the split.
        count: how many; all of them where there are fewer.
        seed: of the choice.

    Returns:
        int64 [min(count, n)], increasing indices into the split.
    """
    if data.labels.ndim == 1:
        return choose_images(data.labels, count, seed)
    masked = np.flatnonzero(data.has_mask & (data.mask_class >= 0))
    others = np.setdiff1d(np.arange(len(data)), masked)
    frequency = data.labels.sum(axis=0)
    rarest = np.where(data.labels == 1, frequency, len(data) + 1).argmin(axis=1)
    rarest[~data.labels.any(axis=1)] = -1
    most_masked = max(count - len(others), (count + 1) // 2)
    with_mask = masked[choose_images(data.mask_class[masked], most_masked, seed)]
    without = others[choose_images(rarest[others], count - len(with_mask), seed)]
    return np.sort(np.concatenate([with_mask, without]))


def choose_images(labels: Indices, count: int, seed: int) -> Indices:
    """Choose images as evenly over the classes as they allow.

    Args:
        labels: int64 [n].
        count: how many; all of them where there are fewer.
        seed: of the choice.

    Returns:
        int64 [min(count, n)], increasing indices into `labels`.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        turn[of_class] = np.arange(len(of_class))
    # First the first image of every class, then the second…
    by_turn = order[np.argsort(turn[order], kind="stable")]
    return np.sort(by_turn[:count])
