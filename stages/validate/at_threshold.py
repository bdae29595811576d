"""What a file is worth at the thresholds that were chosen with fp32, image by image and patient by patient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from foundation.files import JSON
from foundation.measurements import Measurement, PairedDifference, Where
from stages.validate.answers import NO_SCORES, Answers
from stages.validate.intervals import paired, resampling
from stages.validate.intervals.estimates import Estimate, Interval
from stages.validate.intervals.likelihood import predictive_value, ratio_of_proportions_interval
from stages.validate.intervals.proportions import Decisions, share_interval
from stages.validate.intervals.sums import Sums
from stages.validate.measurements import measured, not_measured
from stages.validate.operating_points import OperatingPoint, OperatingPoints, OperatingPointSettings, choose

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

ON_TEST = Where(provider="cpu", split="test")
FAMILIES = ("sensitivity", "specificity", "ppv", "npv", "lr_positive", "lr_negative")
"""Each stands under its name and `_at_threshold`."""


@dataclass(frozen=True)
class Bootstrap:
    """How differences without a formula are told."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class _Called:
    """Decisions about one class: of images, or of patients.

    Attributes:
        called: bool [n], whose score reaches the threshold.
        positive: bool [n], the truth.
        units: int64 [n], what varies together.
    """

    called: Flags
    positive: Flags
    units: Indices

    @property
    def hits(self) -> Decisions:
        """Right decisions about positives, whose share is the sensitivity."""
        return Decisions(np.where(self.positive, self.called, np.nan)[None, None], self.units)

    @property
    def rejections(self) -> Decisions:
        """Right decisions about negatives, whose share is the specificity."""
        return Decisions(np.where(self.positive, np.nan, ~self.called)[None, None], self.units)

    def families(self, prevalence: float) -> Sums:
        """Return every family [families, b] as a function of sums, NaN or infinity where it is undefined."""
        terms = [self.positive & self.called, self.positive, ~self.positive & ~self.called, ~self.positive]
        return Sums(np.stack(terms).astype(np.float64), partial(_families_of, prevalence))


def _families_of(prevalence: float, sums: Floats) -> Floats:
    hits, positives, rejections, negatives = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = hits / positives, rejections / negatives
        odds = prevalence / (1.0 - prevalence)
        lr_positive, lr_negative = sensitivity / (1 - specificity), (1 - sensitivity) / specificity
        ppv = sensitivity * odds / (sensitivity * odds + 1 - specificity)
        npv = specificity / (specificity + (1 - sensitivity) * odds)
    return np.stack([sensitivity, specificity, ppv, npv, lr_positive, lr_negative])


@dataclass(frozen=True)
class _Asked:
    """One class of images or of patients: what the file and fp32 decide about it.

    Attributes:
        own: the file's decisions.
        reference: fp32's; None of fp32 itself and where it gives no scores.
        prevalence: that predictive values are told for.
    """

    own: _Called
    reference: _Called | None
    prevalence: float

    @property
    def is_one_sided(self) -> bool:
        """Whether all of these images have the class, or none has."""
        return bool(self.own.positive.all() or not self.own.positive.any())


def measure_at_thresholds(
    answers: Answers,
    own_validation: tuple[Floats, Mapping[str, Flags]],
    points: OperatingPoints,
    settings: OperatingPointSettings,
    bootstrap: Bootstrap,
    by_patient: bool,
) -> list[Measurement]:
    """Return sensitivity, specificity, predictive values and likelihood ratios of every class with a threshold.

    Args:
        answers: of the file to the test images, and fp32's beside them.
        own_validation: the file's own scores [n, classes] on the validation images, and class → bool [n] there.
        points: chosen with fp32.
        settings: the prevalence and the patients' rule.
        bootstrap: of differences that have no formula.
        by_patient: whether the images' groups are patients, so that these are decided about too.
    """
    found: list[Measurement] = []
    for name, reason in points.missing.items():
        found += _absent(name, answers.variant, reason, ON_TEST)
    if answers.variant in answers.unscored:
        for name in points.points:
            found += _absent(name, answers.variant, NO_SCORES.format("the model"), ON_TEST)
        return found
    asked = {
        per: {name: _asked(answers, point, settings, per) for name, point in points.points.items()}
        for per in (None, *(["patient"] if by_patient else []))
    }
    differences = {per: _differences(of_classes, bootstrap) for per, of_classes in asked.items()}
    for name, point in points.points.items():
        found.append(_own_threshold(answers, own_validation, point, settings))
        for per, of_classes in asked.items():
            found += _of_class(answers, point, points, of_classes[name], differences[per].get(name, {}), per)
    return found


def _absent(of_class: str, variant: str, reason: str, where: Where) -> list[Measurement]:
    return [not_measured(f"{family}_at_threshold/{of_class}", variant, reason, where, {}) for family in FAMILIES]


def _asked(answers: Answers, point: OperatingPoint, settings: OperatingPointSettings, per: str | None) -> _Asked:
    index = answers.classes.index(point.of_class)
    own = _decided(answers, index, point, settings, per)
    reference = None
    if answers.reference_logits is not None and "fp32" not in answers.unscored:
        fp32 = replace(answers, logits=answers.reference_logits, reference_logits=None)
        reference = _decided(fp32, index, point, settings, per)
    return _Asked(own, reference, settings.prevalence or float(own.positive.mean()))


def _of_class(
    answers: Answers,
    point: OperatingPoint,
    points: OperatingPoints,
    asked: _Asked,
    differences: Mapping[str, PairedDifference],
    per: str | None,
) -> list[Measurement]:
    own, prevalence, where = asked.own, asked.prevalence, replace(ON_TEST, per=per)
    if asked.is_one_sided:
        why = f"{answers.sample_name} has {'only' if own.positive.any() else 'no'} images of {point.of_class}"
        return _absent(point.of_class, answers.variant, why, where)
    remarks: dict[str, JSON] = {
        "threshold": point.probability,
        "rule": points.rule,
        "operating_points": (points.sha256 or "")[:12],
    }
    estimates = _estimates(own, prevalence)
    found = []
    for family in FAMILIES:
        name, estimate = f"{family}_at_threshold/{point.of_class}", estimates[family]
        told = {**remarks, "prevalence": prevalence} if family in ("ppv", "npv") else remarks
        if isinstance(estimate, str):
            found.append(not_measured(name, answers.variant, estimate, where, told))
            continue
        if estimate.ci95 is None:
            told = {**told, "no_interval": own.hits.too_few or own.rejections.too_few}
        one = measured(name, answers.variant, estimate, where, told)
        found.append(replace(one, difference=differences.get(family)))
    return found


def _decided(
    answers: Answers, index: int, point: OperatingPoint, settings: OperatingPointSettings, per: str | None
) -> _Called:
    scores, positive = answers.scores[:, index], answers.positive(index)
    if per is None:
        return _Called(scores >= point.log_odds, positive, answers.units)
    count = int(answers.units.max()) + 1
    has = np.bincount(answers.units, weights=positive, minlength=count) > 0
    patients = np.arange(count, dtype=np.int64)
    if settings.patient_rule == "max":
        highest = np.full(count, -np.inf)
        np.maximum.at(highest, answers.units, scores)
        return _Called(highest >= point.log_odds, has, patients)
    shares = 0.5 * (1.0 + np.tanh(0.5 * scores))
    means = np.bincount(answers.units, weights=shares, minlength=count) / np.bincount(answers.units, minlength=count)
    return _Called(means >= point.probability, has, patients)


def _estimates(own: _Called, prevalence: float) -> Mapping[str, Estimate | str]:
    """Return each family's estimate, or why there is none."""
    hits, rejections, n = own.hits, own.rejections, len(own.called)
    sensitivity, specificity = float(hits.shares[0]), float(rejections.shares[0])
    hit_ci, rejection_ci = share_interval(hits), share_interval(rejections)
    found: dict[str, Estimate | str] = {
        "sensitivity": Estimate(sensitivity, hit_ci, int(own.positive.sum())),
        "specificity": Estimate(specificity, rejection_ci, int((~own.positive).sum())),
    }
    missed, alarmed = 1 - sensitivity, 1 - specificity
    for name, predictive, first, first_ci, second, second_ci in (
        ("positive", "ppv", sensitivity, hit_ci, alarmed, _mirrored(rejection_ci)),
        ("negative", "npv", missed, _mirrored(hit_ci), specificity, rejection_ci),
    ):
        if first == second == 0:
            reason = f"no {'image was called' if name == 'positive' else 'image was rejected'}"
            found[f"lr_{name}"] = found[predictive] = reason
            continue
        ratio = first / second if second else math.inf
        limits = None
        if first_ci is not None and second_ci is not None:
            limits = (
                ratio_of_proportions_interval(first, first_ci, second, second_ci)
                if second
                else (first_ci[0] / second_ci[1], math.inf)
            )
        found[f"lr_{name}"] = _ratio_estimate(ratio, limits, n)
        value = _predicted(ratio, prevalence, predictive)
        between = sorted(_predicted(limit, prevalence, predictive) for limit in limits) if limits else None
        found[predictive] = Estimate(value, (between[0], between[1]) if between else None, n)
    return found


def _predicted(ratio: float, prevalence: float, predictive: str) -> float:
    share = predictive_value(ratio, prevalence)
    return share if predictive == "ppv" else 1.0 - share


def _ratio_estimate(ratio: float, limits: Interval | None, n: int) -> Estimate | str:
    if math.isinf(ratio):
        least = f"; it is at least {limits[0]:.3g} (one end of its 95 % interval)" if limits else ""
        return f"the ratio has no bound, because no decision was wrong in its denominator{least}"
    return Estimate(ratio, limits if limits and math.isfinite(limits[1]) else None, n)


def _mirrored(interval: Interval | None) -> Interval | None:
    return None if interval is None else (1.0 - interval[1], 1.0 - interval[0])


def _differences(asked: Mapping[str, _Asked], bootstrap: Bootstrap) -> Mapping[str, Mapping[str, PairedDifference]]:
    """Return for each class how each family differs from fp32's at the same threshold on the same images.

    All classes see the same resamples.
    """
    compared = {
        name: (one.own, one.reference, one.prevalence)
        for name, one in asked.items()
        if one.reference is not None and not one.is_one_sided
    }
    if not compared:
        return {}
    sums: dict[tuple[str, str], Sums] = {}
    for name, (own, reference, prevalence) in compared.items():
        sums |= {(name, "own"): own.families(prevalence), (name, "fp32"): reference.families(prevalence)}
    units = next(iter(compared.values()))[0].units
    draws = resampling.resampled(sums, units, bootstrap.resamples, bootstrap.seed)
    once = np.ones((len(units), 1))
    found = {}
    for name, (own, reference, _) in compared.items():
        of_class = {
            "sensitivity": paired.paired_shares(own.hits, reference.hits),
            "specificity": paired.paired_shares(own.rejections, reference.rejections),
        }
        here, there = (sums[name, whose](once)[:, 0] for whose in ("own", "fp32"))
        for place, family in enumerate(FAMILIES):
            if family in of_class or not (math.isfinite(here[place]) and math.isfinite(there[place])):
                continue
            of_draws = (draws[name, whose][place] for whose in ("own", "fp32"))
            first, second = (np.where(np.isfinite(one), one, np.nan) for one in of_draws)
            of_class[family] = paired.paired_draws(float(here[place] - there[place]), first, second, own.units)
        found[name] = of_class
    return found


def _own_threshold(
    answers: Answers,
    own_validation: tuple[Floats, Mapping[str, Flags]],
    point: OperatingPoint,
    settings: OperatingPointSettings,
) -> Measurement:
    """Return the threshold that the rule would pick for this file, and what fp32's shows with it on validation."""
    scores, positive = own_validation
    index, has = answers.classes.index(point.of_class), positive[point.of_class]
    name, where = f"own_threshold/{point.of_class}", replace(ON_TEST, split="validation")
    called = scores[:, index] >= point.log_odds
    remarks: dict[str, JSON] = {
        "threshold": point.probability,
        "sensitivity_with_it": float(called[has].mean()),
        "specificity_with_it": float((~called[~has]).mean()),
        "no_interval": "it is chosen, not estimated",
    }
    if settings.floor is not None:
        kept = remarks[f"{settings.rule}_with_it"]
        remarks["floor_kept"] = "yes" if isinstance(kept, float) and kept >= settings.floor - 1e-12 else "no"
    chosen = choose(scores[:, index], has, point.of_class, settings)
    if isinstance(chosen, str):
        return not_measured(name, answers.variant, chosen, where, remarks)
    return measured(name, answers.variant, Estimate(chosen.probability, None, len(has)), where, remarks)
