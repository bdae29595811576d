"""One acceptance criterion, as a configuration writes it."""

from __future__ import annotations

import difflib
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundation.files import JSON
from foundation.metrics import METRICS, row_name
from foundation.places import PLACE_NAME
from foundation.settings import Settings
from stages.validate.saliency import MethodName

WORST = "worst"
"""In place of a subgroup's name: each subgroup that the metric is measured of; "worst sex": each of that axis."""


class Gate(Settings):
    """One criterion; every measurement that fits it must hold."""

    metric: str = Field(description="a metric of the report: balanced_accuracy, size_bytes, saliency_spearman…")
    variant: str = Field(description="name of a variant")
    at_least: float | None = Field(None, description="lower bound")
    at_most: float | None = Field(None, description="upper bound")
    noninferior_to: Literal["fp32", "accepted"] | None = Field(
        None,
        description="in place of a bound: less than `margin` worse than fp32, or than itself in the accepted "
        "run, at error rate `alpha`",
    )
    equivalent_to: Literal["fp32", "accepted"] | None = Field(
        None,
        description="in place of a bound: within `margin` of fp32, or of the accepted run, at error rate `alpha`",
    )
    margin: float | None = Field(None, gt=0, description="of noninferior_to and equivalent_to, in the metric's unit")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="of noninferior_to and equivalent_to, one-sided error rate")
    confidence: Literal["point", "lower_bound"] = Field(
        "point",
        description="what a bound is held against: the estimate, or the worse end of its 95 % interval",
    )
    relative_to_fp32: Literal["difference", "ratio"] | None = Field(
        None, description="hold value − fp32's, or value / fp32's, against the bound instead of the value"
    )
    provider: str | None = Field(None, description="only measurements on this execution provider")
    threads: int | None = Field(None, ge=1, description="only measurements with this many threads")
    method: MethodName | None = Field(None, description="only saliency maps made this way")
    change: str | None = Field(
        None, description="images made worse, as `jpeg 3`, of a metric with `robust_`; null: every change must hold"
    )
    place: str | None = Field(
        None,
        pattern=PLACE_NAME,
        description="only measurements at this place, one of validation.places or the name of a device; null: here",
    )
    per: Literal["patient"] | None = Field(
        None, description="decisions about patients, of a metric with `_at_threshold`; null: about images"
    )
    subgroup: str | None = Field(
        None,
        description="only the images of this subgroup: `small lesions`, `medium lesions` or `large lesions` with a "
        "metric that needs masks, or one that the data set names with accuracy, balanced_accuracy, auroc_macro, "
        "sensitivity, specificity or auroc; `worst`: each of them must hold, `worst sex`: each of that axis; by "
        "default all images together",
    )

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if row_name(metric) not in METRICS:
            nearest = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(METRICS)}."
            raise ValueError(f"unknown metric {metric!r}; {hint}")
        return metric

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [self.at_least, self.at_most, self.noninferior_to, self.equivalent_to]
        if sum(one is not None for one in given) != 1:
            raise ValueError("a gate needs exactly one of at_least, at_most, noninferior_to and equivalent_to")
        if self.tests_difference != (self.margin is not None):
            raise ValueError("a gate needs margin with noninferior_to or equivalent_to, and only there")
        if self.relative_to_fp32 is not None and (self.tests_difference or self.confidence != "point"):
            raise ValueError(
                "relative_to_fp32 holds estimates against each other; use noninferior_to: fp32 with a margin for a "
                "difference with an error rate"
            )
        if self.confidence != "point" and self.tests_difference:
            raise ValueError(
                "confidence belongs to at_least and at_most; noninferior_to and equivalent_to have alpha"
            )
        if METRICS[row_name(self.metric)].inputs == "place" and self.place is None:
            raise ValueError(f"{self.metric} holds a place against here; name the place")
        if "fp32" in (self.noninferior_to, self.equivalent_to) and self.variant == "fp32":
            raise ValueError("fp32 is what noninferior_to and equivalent_to compare with; name another variant")
        return self

    @property
    def tests_difference(self) -> bool:
        """Whether it is a test of a difference, with an error rate."""
        return self.noninferior_to is not None or self.equivalent_to is not None

    @property
    def asks_accepted(self) -> bool:
        """Whether it holds a variant against itself in the accepted run."""
        return "accepted" in (self.noninferior_to, self.equivalent_to)

    @property
    def identity(self) -> dict[str, JSON]:
        """What a digest of the criteria is taken over: a point gate's is what it was before there were others."""
        tested = ("noninferior_to", "equivalent_to", "margin", "alpha", "confidence", "per", "change", "place")
        values: dict[str, JSON] = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if key not in tested or not self._is_default(key)}

    def _is_default(self, key: str) -> bool:
        return bool(getattr(self, key) == type(self).model_fields[key].default)

    @property
    def higher_is_better(self) -> bool:
        """The direction of its metric."""
        return METRICS[row_name(self.metric)].higher_is_better

    @property
    def limit(self) -> float:
        """The bound; of a test the difference that it must exclude."""
        if self.margin is not None:
            return -self.margin if self.higher_is_better else self.margin
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    @property
    def name(self) -> str:
        """The criterion as one reads it."""
        where = [
            self.provider,
            f"{self.threads} thr." if self.threads else None,
            self.method,
            self._images,
            f"per {self.per}" if self.per else None,
            self.change,
            f"at {self.place}" if self.place else None,
        ]
        place = ", ".join(part for part in where if part)
        metric = f"{self.variant}: {self.metric}{f' ({place})' if place else ''}"
        if self.tests_difference:
            kind = "not inferior to" if self.noninferior_to else "equivalent to"
            other = "the accepted run" if self.asks_accepted else "fp32"
            return f"{metric} {kind} {other} by {self.margin:g} (α = {self.alpha:g})"
        relation = "≥" if self.at_least is not None else "≤"
        against = {"difference": " − fp32", "ratio": " / fp32", None: ""}[self.relative_to_fp32]
        bound = "" if self.confidence == "point" else " (95 % bound)"
        metric = f"{self.variant}: {self.metric}{against}{f' ({place})' if place else ''}"
        return f"{metric} {relation} {self.limit:g}{bound}"

    @property
    def _images(self) -> str | None:
        return f"{self.subgroup} subgroup" if self.asks_worst else self.subgroup

    @property
    def asks_worst(self) -> bool:
        """Whether each of several subgroups must hold."""
        return self.subgroup == WORST or (self.subgroup or "").startswith(f"{WORST} ")

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        slack = 1e-9 * max(1.0, abs(self.limit))  # 0.88 − 0.90 is −0.02 and then some, in binary
        return value >= self.limit - slack if self.at_least is not None else value <= self.limit + slack
