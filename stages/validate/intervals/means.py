"""Means of skewed values, such as the likeness of saliency maps: studentised on the scale that fits them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import ROUNDING, SCALES, TAIL, Estimate, Interval, ScaleName
from stages.validate.intervals.groups import come_in_groups, squared_error, sums_by_unit, too_few
from stages.validate.intervals.proportions import Decisions, share_interval
from stages.validate.intervals.resampling import unit_weights

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def mean_error(values: Floats, units: Indices) -> float:
    """Return the standard error of the mean of values [n], whole units varying together; NaN of a single unit."""
    return float(np.sqrt(squared_error((values - values.mean()) / len(values), units)))


def studentised_interval(
    values: Floats, units: Indices, scale: ScaleName, resamples: int, seed: int
) -> Interval | None:
    """Return the interval of a mean by the studentised bootstrap (Davison and Hinkley 1997, 5.2.1), on a scale.

    Each resample of whole units is measured in its own standard errors, so that the interval leans to where the
    values' tail is; the plain percentile form covers .78 to .86 of skewed values.

    Args:
        values: float64 [n].
        units: int64 [n].
        scale: "fisher_z" for correlations, "logit" for shares, "log" for what is positive.
        resamples: at least 1000.
        seed: of the resampling.

    Returns:
        None where the units are too few, or show no scatter.
    """
    mean, error = float(values.mean()), mean_error(values, units)
    if too_few(units) or not error > ROUNDING * max(1.0, abs(mean)):
        return None
    on, centre = SCALES[scale], np.array(mean)
    if not on.holds(centre):
        return None
    sums, sizes = sums_by_unit(values, units), sums_by_unit(np.ones(len(values)), units)
    moments = np.stack([sums, sizes, sums**2, sums * sizes, sizes**2])[:, sizes > 0]
    count = moments.shape[1]
    drawn = np.concatenate([moments @ weights for weights in unit_weights(count, resamples, seed)], axis=1)
    means = drawn[0] / drawn[1]
    squares = drawn[2] - 2 * means * drawn[3] + means**2 * drawn[4]
    errors = np.sqrt(np.maximum(squares, 0.0) * count / (count - 1)) / drawn[1]
    usable = on.holds(means) & (errors > ROUNDING)
    if usable.mean() < 0.5:
        return None
    means, errors = means[usable], errors[usable]
    pivots = (on.to(means) - on.to(centre)) / (errors * on.slope(means))
    first, last = np.quantile(pivots, [TAIL, 1.0 - TAIL]) * error * on.slope(centre)
    bounds = on.back(on.to(centre) - np.array([last, first]))
    # Near an end of the scale a single value far away may throw a bound across it; no mean is beyond all values.
    low, high = np.clip(bounds, values.min(), values.max())
    return min(mean, float(low)), max(mean, float(high))


def mean_estimate(
    values: NDArray[np.floating], resamples: int, seed: int, units: Indices, scale: ScaleName
) -> Estimate:
    """Return the mean of one value per image with its interval over the images, or over their groups.

    A mean of shares that shows no scatter, as where every one is 1, has Wilson's.

    Args:
        values: [n].
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        units: int64 [n], see `groups.units_of`.
        scale: "logit" says that the values are shares, 0 to 1.
    """
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    interval = studentised_interval(data, units, scale, resamples, seed)
    if interval is None and scale == "logit" and not (come_in_groups(units) and too_few(units)):
        interval = share_interval(Decisions(data[None, None], units))
    return Estimate(mean, interval, len(data))
