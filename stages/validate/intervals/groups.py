"""Images that belong together, such as a patient's, resemble each other: the group is the unit that counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import LEAST_UNITS

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def units_of(groups: Sequence[str]) -> Indices:
    """Return the number of each image's group, int64 [n], counted in the order in which groups first appear."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def unit_count(units: Indices) -> int:
    """Return how many units there are; unlike `np.unique` it neither sorts nor hashes the images."""
    return int(np.count_nonzero(np.bincount(units)))


def come_in_groups(units: Indices) -> bool:
    """Return whether a group has more than one image, so that groups must be drawn instead of images."""
    return unit_count(units) < len(units)


def sums_by_unit(values: Floats, units: Indices) -> Floats:
    """Return the sum of each unit's values [n]; units without a value have 0."""
    return np.asarray(np.bincount(units, weights=values), dtype=np.float64)


def squared_error(influence: Floats, units: Indices) -> float:
    """Return the variance of an estimate from what each image moves it by, whole units varying together.

    The sum over units of the squared sums, times g/(g−1) (linearisation; Binder 1983, Int. Stat. Review 51:279).

    Args:
        influence: [n], summing to 0.
        units: int64 [n].
    """
    count = unit_count(units)
    if count < 2:
        return float("nan")
    return float(np.square(sums_by_unit(influence, units)).sum()) * count / (count - 1)


def too_few(units: Indices) -> str:
    """Return why so few units have no interval; "" where they are enough.

    Args:
        units: int64 [n], of the images that a number is taken over.
    """
    count = unit_count(units)
    if count >= LEAST_UNITS:
        return ""
    if come_in_groups(units):
        return f"too few patients for an interval: {count} groups of images, at least {LEAST_UNITS} are needed"
    return f"too few images for an interval: {count}, at least {LEAST_UNITS} are needed"
