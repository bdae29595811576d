"""Which training images a quantizer calibrates on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedData
from foundation.errors import UsageError


def strata(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return what an image stands for when classes take turns, int64 [n].

    Args:
        labels: int64 [n], or int64 [n, classes] of 0 and 1.
        classes: how many there are.

    Its class; of a multi-label image the rarest of its labels, and `classes` where it has none.
    """
    if labels.ndim == 1:
        return labels
    by_rarity = np.argsort(labels.sum(axis=0), kind="stable")
    rarest = by_rarity[labels[:, by_rarity].argmax(axis=1)]
    return np.where(labels.any(axis=1), rarest, classes)


def choose_calibration_images(
    data: PreparedData, n: int, seed: int, key: str = "calibration_images"
) -> NDArray[np.int64]:
    """Choose images of the training split, the classes as equal in number as the split allows.

    The classes take turns in label order, each giving its images in seeded order, so that every batch is balanced
    too; a class that has given all its images is passed over. The first n of a larger choice are a choice of n.

    Args:
        data: only its training split is looked at.
        n: how many images, at least 1; all of them where there are fewer.
        seed: seed of the order.
        key: the configuration's key that holds n, for the message.

    Returns:
        int64 [n or fewer], distinct indices into `data.train`.

    Raises:
        UsageError: none is asked for, or the training split is empty.
    """
    labels = strata(data.train.labels, len(data.classes))
    if n < 1 or len(labels) == 0:
        raise UsageError(
            f"`{key}`: expected one training image or more to calibrate on, found {min(n, len(labels))}. "
            "Raise it, or add images."
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in range(len(data.classes) + 1):
        of_class = order[labels[order] == label]
        turn[of_class] = np.arange(len(of_class))
    return np.lexsort((labels, turn))[:n].astype(np.int64)
