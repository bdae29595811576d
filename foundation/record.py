"""The record of a run: what was measured, what the gates say, and how each stage went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from foundation.files import JSON

RANDOM_MAP = "random-map"
CENTRE_PRIOR = "centre-prior"
UNINFORMED = (RANDOM_MAP, CENTRE_PRIOR)
"""The names under which maps that know nothing of the image are measured beside the variants: a floor to read their
saliency against, not variants that could pass, fail or get worse."""


@dataclass(frozen=True)
class Measurement:
    """One number with its unit, its sample size and its 95 % interval; `value` None means not measured."""

    metric: str
    value: float | None
    unit: str
    variant: str
    provider: str | None = None
    split: str | None = None
    n: int | None = None
    ci95: tuple[float, float] | None = None
    settings: Mapping[str, JSON] = field(default_factory=dict)
    """What tells two measurements of the same metric apart: threads, saliency method, reason of an absence…"""

    def as_json(self) -> dict[str, JSON]:
        """Return the measurement as it stands in `measurements.json` and `report.json`."""
        record = asdict(self)
        record["ci95"] = list(self.ci95) if self.ci95 else None
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, JSON]) -> Measurement:
        """Return the measurement that `as_json` wrote."""
        values = dict(record)
        values["ci95"] = tuple(values["ci95"]) if values["ci95"] else None
        return cls(**values)


@dataclass(frozen=True)
class Verdict:
    """What one gate says of the measurements; `missing` means that its number was not measured."""

    gate: str
    status: Literal["passed", "failed", "missing"]
    value: float | None
    limit: float
    detail: str


@dataclass(frozen=True)
class StageRecord:
    """How one stage of a run went, as it stands in `run.json`."""

    name: str
    status: Literal["done", "reused", "failed", "not_measured"]
    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    """Path relative to the run folder → sha256."""
    seconds: float | None
    error: str | None
