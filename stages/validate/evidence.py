"""From an estimate to a measurement, with the unit that the table knows."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.artifacts import JSON, Measurement
from stages.validate import METRICS, row_name
from stages.validate.statistics import Estimate


def measured(
    metric: str,
    variant: str,
    estimate: Estimate,
    provider: str | None,
    split: str | None,
    settings: Mapping[str, JSON],
) -> Measurement:
    """Return the measurement of an estimate."""
    unit = METRICS[row_name(metric)].unit
    return Measurement(
        metric, estimate.value, unit, variant, provider, split, estimate.n, estimate.ci95, dict(settings)
    )


def not_measured(
    metric: str,
    variant: str,
    reason: str,
    provider: str | None,
    split: str | None,
    settings: Mapping[str, JSON],
) -> Measurement:
    """Return the measurement that is absent, with the reason why."""
    unit = METRICS[row_name(metric)].unit
    return Measurement(metric, None, unit, variant, provider, split, settings={**settings, "reason": reason})
