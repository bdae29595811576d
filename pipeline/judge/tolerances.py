"""How much worse than the accepted run a measurement may be, and what is not compared from night to night."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from foundation.errors import UsageError
from foundation.metrics import METRICS, Inputs, row_name
from foundation.record import RunRecord
from foundation.settings import Settings


@dataclass(frozen=True)
class Tolerance:
    """How much worse a value may be: `absolute` in its unit, `relative` as a fraction of the accepted value."""

    kind: Literal["absolute", "relative"]
    limit: float


TOLERANCES: Mapping[Inputs, Tolerance] = {
    # A run on the same data and versions repeats its scores exactly; these leave room for another library's rounding.
    "labels": Tolerance("absolute", 0.01),
    "class_mean": Tolerance("absolute", 0.01),
    "class": Tolerance("absolute", 0.02),
    "reference": Tolerance("absolute", 0.01),
    "maps": Tolerance("absolute", 0.02),
    "randomised": Tolerance("absolute", 0.02),
    "cascade": Tolerance("absolute", 0.05),
    "noise": Tolerance("relative", 0.25),
    "path": Tolerance("relative", 0.5),
    "perturbed": Tolerance("absolute", 0.02),
    "masks": Tolerance("absolute", 0.02),
    "calibration": Tolerance("absolute", 10.0),  # neither higher nor lower is better
    "threshold": Tolerance("absolute", 0.02),
    "changed": Tolerance("absolute", 0.03),
    "file": Tolerance("relative", 0.02),
    # Medians of one machine differ by a few per cent from night to night; a lost kernel fusion costs far more.
    "timing": Tolerance("relative", 0.15),
    "place": Tolerance("absolute", 0.01),
}
"""The default of a metric by what it is computed from (the `inputs` of its row in METRICS)."""

METRIC_TOLERANCES: Mapping[str, Tolerance] = {
    "logits_sqnr_db": Tolerance("absolute", 1.0),
    "latency_speedup": Tolerance("relative", 0.10),
    "latency_against_kernel": Tolerance("relative", 0.10),
    "lr_positive_at_threshold/CLASS": Tolerance("relative", 0.25),
    "lr_negative_at_threshold/CLASS": Tolerance("relative", 0.25),
    "own_threshold/CLASS": Tolerance("absolute", 1.0),  # neither higher nor lower is better
    "place_logits_sqnr_db": Tolerance("absolute", 1.0),
    "place_largest_difference": Tolerance("relative", 0.25),
    "sparseness": Tolerance("absolute", 1.0),  # likewise
}
"""The default of a metric that needs its own."""


OF_ITS_NIGHT = ("ms", "images/s")
"""Units of what belongs to its night and its processor, and is compared only where a tolerance names it."""


OF_ITS_PROCESSOR = ("latency_against_kernel",)
"""Ratios that hold for one model of processor, whatever its clock."""


class ComparisonSettings(Settings):
    """How much worse than the accepted run a measurement may be."""

    tolerances: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Metric (accuracy, auroc/CLASS, auroc/polyp…) to tolerance, in place of the default: 0.01 for "
        "scores, 0.02 per class and for saliency, 1 dB; as a fraction of the accepted value 0.02 for sizes, 0.15 for "
        "memory, 0.10 for speed-ups and for the speed against the calibration kernel. Times in ms and throughput are "
        "compared only if they are named here.",
    )

    @field_validator("tolerances")
    @classmethod
    def _known_metrics(cls, tolerances: dict[str, float]) -> dict[str, float]:
        for metric in tolerances:
            if row_name(metric) not in METRICS:
                nearest = difflib.get_close_matches(metric, METRICS, n=1)
                hint = f"did you mean '{nearest[0]}'?" if nearest else f"known are {', '.join(METRICS)}."
                raise ValueError(f"unknown metric '{metric}'; {hint}")
        return tolerances

    def names(self, metric: str) -> bool:
        """Return whether the configuration itself gives a metric a tolerance."""
        return metric in self.tolerances or row_name(metric) in self.tolerances

    def tolerance(self, metric: str) -> Tolerance:
        """Return what applies to a metric of METRICS: its own entry, its row's, or the default."""
        row = row_name(metric)
        default = METRIC_TOLERANCES.get(row) or TOLERANCES[METRICS[row].inputs]
        return Tolerance(default.kind, self.tolerances.get(metric, self.tolerances.get(row, default.limit)))


def recorded_settings(record: RunRecord) -> ComparisonSettings:
    """Return the tolerances of a run's own configuration.

    Raises:
        UsageError: the record holds others than this version knows.
    """
    try:
        return ComparisonSettings.model_validate(record.configuration.get("comparison", {}))
    except ValidationError as error:
        raise UsageError(
            f"{record.name}: expected the key `comparison` of its configuration as this version knows it, found "
            f"{error.errors()[0]['msg']}. Run it again with this version of edgeproof."
        ) from error
