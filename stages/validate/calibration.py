"""Whether probabilities mean what they say: each class's slope and intercept, and bins of a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foundation.answer_documents import Bin
from foundation.files import JSON
from foundation.measurements import Measurement, Where
from stages.validate.answers import Answers
from stages.validate.intervals import groups
from stages.validate.intervals.estimates import TAIL, Estimate, t_quantile
from stages.validate.intervals.paired import paired_influence
from stages.validate.intervals.proportions import Decisions, share_interval
from stages.validate.measurements import measured, not_measured
from stages.validate.metrics import ECE_BINS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_STEPS = 60
_FLATTEST = 1e-9
_SEPARATED = "the scores separate the class from the others, so the line has no bound"


@dataclass(frozen=True)
class Line:
    """A coefficient of a logistic regression on the log-odds, and how each image moves it.

    Attributes:
        value: the coefficient.
        influence: float64 [n], summing to 0.
    """

    value: float
    influence: Floats


def slope(log_odds: Floats, positive: Flags) -> Line | None:
    """Return the slope of the truth on the log-odds (Cox 1958, Biometrika 45:562); below 1 a file is too sure.

    Args:
        log_odds: float64 [n], of the class.
        positive: bool [n].

    Returns:
        None where the scores separate the class from the others.
    """
    return _fit(np.stack([np.ones_like(log_odds), log_odds], axis=1), np.zeros_like(log_odds), positive, 1)


def intercept(log_odds: Floats, positive: Flags) -> Line | None:
    """Return the intercept with the slope held at 1, calibration in the large; above 0 a file says too little.

    Args:
        log_odds: float64 [n], of the class.
        positive: bool [n].
    """
    return _fit(np.ones((len(log_odds), 1)), log_odds, positive, 0)


def _fit(design: Floats, offset: Floats, positive: Flags, wanted: int) -> Line | None:
    """Fit by Newton's method; the influences are those of an M-estimator (White 1982)."""
    truth, coefficients = positive.astype(np.float64), np.zeros(design.shape[1])
    for _ in range(_STEPS):
        expected = 0.5 * (1.0 + np.tanh(0.5 * (offset + design @ coefficients)))
        information = (design * (expected * (1.0 - expected))[:, None]).T @ design
        if np.linalg.cond(information) > 1 / _FLATTEST or np.abs(coefficients).max() > 1e3:
            return None
        step = np.linalg.solve(information, design.T @ (truth - expected))
        coefficients = coefficients + np.clip(step, -5.0, 5.0)
        if np.abs(step).max() < 1e-10:
            scores = (truth - expected)[:, None] * design
            return Line(float(coefficients[wanted]), (scores @ np.linalg.inv(information))[:, wanted])
    return None


def measure_calibration(answers: Answers, where: Where) -> list[Measurement]:
    """Return slope and intercept of every class that at least `min_positives` images have, and as many have not."""
    if answers.variant in answers.unscored:
        return []
    reference = None
    if answers.reference_logits is not None and "fp32" not in answers.unscored:
        reference = replace(answers, logits=answers.reference_logits, reference_logits=None)
    found = []
    for index in sorted(answers.looked_at):
        positive = answers.positive(index)
        if min(int(positive.sum()), int((~positive).sum())) < answers.min_positives:
            continue
        for metric, fit in (("calibration_slope", slope), ("calibration_intercept", intercept)):
            name = f"{metric}/{answers.classes[index]}"
            line = fit(answers.scores[:, index], positive)
            if line is None:
                found.append(not_measured(name, answers.variant, _SEPARATED, where, {}))
                continue
            one = _measured(name, line, answers, where)
            fp32 = fit(reference.scores[:, index], positive) if reference else None
            if fp32 is not None:
                change = paired_influence(line.value - fp32.value, line.influence - fp32.influence, answers.units)
                one = replace(one, difference=change)
            found.append(one)
    return found


def _measured(name: str, line: Line, answers: Answers, where: Where) -> Measurement:
    why_not, interval = groups.too_few(answers.units), None
    if not why_not:
        error = float(np.sqrt(groups.squared_error(line.influence, answers.units)))
        half = t_quantile(TAIL, groups.unit_count(answers.units) - 1) * error
        interval = (line.value - half, line.value + half)
    remarks = {"no_interval": why_not} if why_not else {}
    return measured(name, answers.variant, Estimate(line.value, interval, len(answers.labels)), where, remarks)


def reliability(answers: Answers) -> tuple[Bin, ...]:
    """Return the bins of a file's answers that are not empty: 15 of equal width, as the ECE takes them.

    Of images with one class it is the probability of the answered class; of labels that of each yes or no.
    """
    confidence = answers.confidence
    if answers.task == "multi_class":
        right = (answers.logits.argmax(axis=1) == answers.labels)[:, None]
    else:
        right = (answers.logits > 0) == (answers.labels == 1)
    places = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    found = []
    for place in np.unique(places).tolist():
        chosen = places == place
        of = Decisions(np.where(chosen, right, np.nan).T[None], answers.units)
        limits = (place / ECE_BINS, (place + 1) / ECE_BINS)
        share, mean = float(of.shares[0]), float(confidence[chosen].mean())
        found.append(Bin(*limits, int(chosen.sum()), mean, share, share_interval(of)))
    return tuple(found)


def reliability_document(answers: Sequence[Answers]) -> dict[str, JSON]:
    """Return the reliability diagrams of several files as JSON values; a file without scores has none."""
    bins: dict[str, JSON] = {
        one.variant: [asdict(part) for part in reliability(one)] for one in answers if one.variant not in one.unscored
    }
    return {"format_version": 1, "bins": ECE_BINS, "variants": bins}
