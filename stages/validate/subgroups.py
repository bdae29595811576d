"""What compression changed in each subgroup, told with the chance in mind that one of several looks bad by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foundation.measurements import Measurement
from stages.validate.intervals.multiple import holm, two_sided_p


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
