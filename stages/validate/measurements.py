"""From an estimate to a measurement, with the unit that the table knows."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.files import JSON
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS, row_name
from stages.validate.intervals.estimates import Estimate

NO_SPREAD = "every resample gives the same value"
"""Why a bootstrap has no interval, as with an AUROC of 1: an interval of no width would claim certainty."""


def measured(
    metric: str,
    variant: str,
    estimate: Estimate,
    where: Where,
    remarks: Mapping[str, JSON],
) -> Measurement:
    """Return the measurement of an estimate, with a word on why it has no interval where that is so."""
    row = METRICS[row_name(metric)]
    described = dict(remarks)
    if row.inputs not in ("file", "timing", "calibration", "threshold", "changed", "place") and estimate.ci95 is None:
        described.setdefault("no_interval", NO_SPREAD)
    return Measurement(metric, estimate.value, row.unit, variant, where, estimate.n, estimate.ci95, described)


def not_measured(metric: str, variant: str, reason: str, where: Where, remarks: Mapping[str, JSON]) -> Measurement:
    """Return the measurement that is absent, with the reason why."""
    unit = METRICS[row_name(metric)].unit
    return Measurement(metric, None, unit, variant, where, remarks={**remarks, "reason": reason})
