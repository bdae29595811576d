"""Which subgroups there are, and what compression changed in each: one of several looks bad by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit
from foundation.arrays import let_go_of_pages
from foundation.measurements import Measurement
from stages.validate.intervals.multiple import holm, two_sided_p
from stages.validate.lesion_size import sizes_by_share

_MASKS_AT_ONCE = 256


def subgroups_of(split: PreparedSplit) -> tuple[tuple[str, ...], ...]:
    """Return what each image of a split belongs to: what its source says, and where it has a mask the lesion's size.

    The sizes, "lesion: small", are thirds of the split's own masks.
    """
    masked = np.flatnonzero(split.has_mask)
    shares = _shares(split.masks, masked)
    shown = masked[shares > 0]
    sizes: dict[int, tuple[str, ...]] = {}
    for size in sizes_by_share(shares[shares > 0]) if len(shown) else ():
        for index in shown[size.members].tolist():
            sizes[index] = () if size.reason else (f"lesion: {size.name.split()[0]}",)
    return tuple((*names, *sizes.get(index, ())) for index, names in enumerate(split.subgroups))


def _shares(masks: NDArray[np.bool_], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the image that each of some masks takes, float64 [m]; the masks may be mapped from disk."""
    parts = [np.empty(0)]
    for start in range(0, len(chosen), _MASKS_AT_ONCE):
        parts.append(masks[chosen[start : start + _MASKS_AT_ONCE]].mean(axis=(1, 2)))
        let_go_of_pages(masks)
    return np.concatenate(parts)


def holm_corrected(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return one file's measurements of subgroups, each difference with its p by Holm over those of its metric.

    Args:
        measurements: of one variant.
    """
    by_metric: dict[str, list[int]] = {}
    for place, one in enumerate(measurements):
        by_metric.setdefault(one.metric, []).append(place)
    corrected = list(measurements)
    for places in by_metric.values():
        found = {place: two_sided_p(change) for place in places if (change := measurements[place].difference)}
        asked = {place: p for place, p in found.items() if p is not None}
        for place, p in zip(asked, holm(list(asked.values())), strict=True):
            change = measurements[place].difference
            assert change is not None
            corrected[place] = replace(measurements[place], difference=replace(change, holm_p=p))
    return corrected
