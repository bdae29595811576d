"""Areas under the ROC curve: DeLong's variance, for clustered images Obuchowski's, on the logit scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import TAIL, Interval, interval_on_scale, t_quantile
from stages.validate.intervals.groups import come_in_groups, sums_by_unit, unit_count
from stages.validate.intervals.proportions import degrees_correction, wilson_interval

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve, or the mean of several, and what each image moves it by.

    Attributes:
        value: the area.
        influence: float64 [n]; the squared sums over units add up to the variance.
        rarer: units that hold the rarer of the two classes; of several areas the fewest.
        perfect: lower bound where the sample separates the classes, see `auroc_interval`.
        separated: the same of as many independent images as the rarer class's are worth; 1 without groups.
    """

    value: float
    influence: Floats
    rarer: int
    perfect: float
    separated: float


def area_of(scores: Floats, positive: Flags, units: Indices) -> Area:
    """Return one area with its structural components (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837).

    Sums over units and the factors I/(I−1) are Obuchowski's (1997, Biometrics 53:567); with one image per unit both
    are the same.

    Args:
        scores: float64 [n].
        positive: bool [n], neither all nor none.
        units: int64 [n].
    """
    components = _components(scores, positive)
    of_positives, of_negatives = components[positive], components[~positive]
    value = float(of_positives.mean())
    influence = np.zeros(len(scores))
    held = []
    for chosen, of_chosen in ((positive, of_positives), (~positive, of_negatives)):
        count = unit_count(units[chosen])
        correction = count / (count - 1) if count > 1 else np.nan
        influence[chosen] = (of_chosen - value) / len(of_chosen) * np.sqrt(correction)
        held.append(count)
    perfect, images = wilson_interval(min(held), min(held))[0], min(len(of_positives), len(of_negatives))
    return Area(value, influence, min(held), perfect, _separated(influence, units, min(held), images))


def mean_area(areas: Sequence[Area]) -> Area:
    """Return the mean of the areas of several classes of the same images."""
    value = float(np.mean([area.value for area in areas]))
    influence = np.mean([area.influence for area in areas], axis=0)
    perfect = float(np.mean([area.perfect for area in areas]))
    # Of areas of different classes one may be far from the truth, but hardly all: MOVER, as of balanced accuracy.
    room = float(np.sqrt(np.square([1.0 - area.separated for area in areas]).sum())) / len(areas)
    return Area(value, influence, min(area.rarer for area in areas), perfect, 1.0 - room)


def area_error(influence: Floats, units: Indices) -> float:
    """Return the standard error of an area, or of the difference of two whose influences were subtracted."""
    return float(np.sqrt(np.square(sums_by_unit(influence, units)).sum()))


def auroc_interval(area: Area, units: Indices) -> Interval | None:
    """Return an area's interval on the logit scale, by Student's t with as many degrees as the rarer class has units.

    At 1 DeLong sees no scatter. There the variance is at most A(1−A)/m with m units of the rarer class (Birnbaum and
    Klose 1957, Annals of Mathematical Statistics 28:933), so Wilson's bound of m in m holds. Of m − 1 degrees,
    because a class of few images tells its scatter inexactly, however many there are of the others.

    Near 1 few images are ranked wrong, often all of one patient, and where that patient is not in the sample hardly
    any scatter is left. So with groups the lower bound is at most the one of a sample that separates the classes, of
    as many images as the grouped ones are worth: fewer by the design effect, the variance between units over that of
    independent images, and by the degrees of freedom (see `proportions.share_interval`).

    Returns:
        None where one image or group alone has, or lacks, the class.
    """
    if area.rarer < 2:
        return None
    if area.value == 1.0:
        return area.perfect, 1.0
    error = area_error(area.influence, units)
    found = interval_on_scale(area.value, error, t_quantile(TAIL, area.rarer - 1), "logit")
    return found and (min(found[0], area.separated), found[1])


def _separated(influence: Floats, units: Indices, rarer: int, images: int) -> float:
    """Return the bound of a sample that separates the classes, of the rarer one's images less their design effect."""
    independent = float(np.square(influence).sum())
    if not come_in_groups(units) or rarer < 2 or not independent > 0:
        return 1.0
    effect = max(1.0, area_error(influence, units) ** 2 / independent)
    worth = images / effect * degrees_correction(rarer, TAIL)
    return wilson_interval(worth, worth)[0]


def _components(scores: Floats, positive: Flags) -> Floats:
    """Return the share of the other class that each image is on the right side of, ties counted half, float64 [n].

    One sort for all: DeLong's components are ranks (Sun and Xu 2014, IEEE Signal Processing Letters 21:1389).
    """
    n, order = len(scores), np.argsort(scores)
    ordered, has = scores[order], positive[order]
    begins = np.r_[True, ordered[1:] > ordered[:-1]]
    starts = np.flatnonzero(begins)
    level, ends = np.cumsum(begins) - 1, np.r_[starts[1:], n]
    found = np.empty(n)
    for of_class in (True, False):
        lowest = np.r_[0, np.cumsum(has != of_class)]  # of the other class, among the k lowest
        below = (lowest[starts] + lowest[ends])[level] / (2.0 * lowest[-1])
        chosen = has == of_class
        found[order[chosen]] = below[chosen] if of_class else 1.0 - below[chosen]
    return found
