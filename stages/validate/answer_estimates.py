"""The value, the interval and the difference from fp32 of one row of `METRICS` that is computed from logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.measurements import PairedDifference
from foundation.metrics import Definition, Metric
from stages.validate import Computation
from stages.validate.answers import Answers
from stages.validate.intervals import groups, means, paired, proportions, ranks, resampling
from stages.validate.intervals.estimates import Interval
from stages.validate.intervals.sums import Sums

Floats = NDArray[np.float64]
Part = tuple[Callable[..., Floats], int | None]
"""A metric's function and the class that it is asked of; a metric is the mean of its parts."""


@dataclass(frozen=True)
class Row:
    """One measurement to be taken.

    Attributes:
        name: of the metric.
        metric: its row of `METRICS`.
        definition: for the kind of task.
        computation: likewise.
        classes: that it is the mean over; the one that it is about; or (None,) of no class in particular.
    """

    name: str
    metric: Metric
    definition: Definition
    computation: Computation
    classes: tuple[int | None, ...]

    @property
    def class_index(self) -> int | None:
        """The class that it is about; None of no single one."""
        return self.classes[0] if self.metric.inputs == "class" else None

    @property
    def parts(self) -> tuple[Part, ...]:
        """What it is the mean of."""
        return tuple((self.computation.function, index) for index in self.classes)


@dataclass(frozen=True)
class Answered:
    """The answers of a file to some images with what intervals take from all of them.

    Attributes:
        answers: of the file.
        draws: (function, class) → its values in bootstrap resamples, float64 [resamples].
        reference_draws: the same of fp32's answers in the same resamples; empty where there are none.
    """

    answers: Answers
    draws: Mapping[Part, Floats]
    reference_draws: Mapping[Part, Floats]

    @cached_property
    def reference(self) -> Answers | None:
        """fp32's own answers to the same images; None of fp32 itself."""
        given = self.answers.reference_logits
        return None if given is None else replace(self.answers, logits=given, reference_logits=None)

    def area(self, row: Row) -> ranks.Area:
        """Return the area under the ROC curve that a row is about, or the mean of several."""
        return _mean_area(row, self._areas)

    def reference_area(self, row: Row) -> ranks.Area:
        """Return the same of fp32's answers, where there are any."""
        return _mean_area(row, self._reference_areas)

    @cached_property
    def _areas(self) -> dict[int, ranks.Area]:
        return _areas(self.answers)

    @cached_property
    def _reference_areas(self) -> dict[int, ranks.Area]:
        return {} if self.reference is None else _areas(self.reference)


def resample(rows: Sequence[Row], answers: Answers, resamples: int, seed: int) -> Answered:
    """Return the answers with the bootstrap distributions that the rows need, each part computed once.

    Args:
        rows: to be taken.
        answers: of the file, and fp32's where it is held against them.
        resamples: how many.
        seed: of the resampling.
    """
    paired_too = answers.reference_logits is not None
    needing = [row for row in rows if row.computation.interval == "bootstrap" or _needs_draws(row, paired_too)]
    own = {part: _sums(row, part, answers) for row in needing for part in row.parts}
    answered = Answered(answers, {}, {})
    reference: dict[Part, Sums] = {}
    if answered.reference is not None:
        compared = [row for row in needing if not row.metric.against_fp32]
        reference = {part: _sums(row, part, answered.reference) for row in compared for part in row.parts}
    both = {("own", part): of for part, of in own.items()} | {("fp32", part): of for part, of in reference.items()}
    draws = resampling.resampled(both, answers.units, resamples, seed)
    return Answered(
        answers,
        {part: values for (whose, part), values in draws.items() if whose == "own"},
        {part: values for (whose, part), values in draws.items() if whose == "fp32"},
    )


def _needs_draws(row: Row, paired_too: bool) -> bool:
    return row.computation.interval is None and paired_too


def _sums(row: Row, part: Part, answers: Answers) -> Sums:
    """Return a part of what is resampled as a function of sums."""
    sums, index = row.computation.sums, part[1]
    assert sums is not None  # every row that is resampled has them
    if index is not None:
        return sums(answers.scores[:, index], answers.positive(index))
    return sums(answers.logits, _truth(row, answers))


def _truth(row: Row, answers: Answers) -> NDArray[Any] | None:
    return answers.reference_logits if row.metric.inputs == "reference" else answers.labels


def value_of(row: Row, answers: Answers) -> float:
    """Return the metric itself."""
    return float(np.mean([_value_of_part(row, part, answers) for part in row.parts]))


def _value_of_part(row: Row, part: Part, answers: Answers) -> float:
    function, index = part
    once, of_scores = np.ones((1, len(answers.labels))), row.computation.of_scores
    if index is None:
        return float(function(answers.logits, _truth(row, answers), once)[0])
    if of_scores is not None:
        return float(of_scores(answers.scores[:, index], answers.positive(index), once)[0])
    return float(function(answers.logits, answers.labels, index, once)[0])


def interval_of(row: Row, value: float, answered: Answered, resamples: int, seed: int) -> tuple[Interval | None, str]:
    """Return the 95 % interval of a row, and where there is none the reason if it has to be told."""
    answers, computation = answered.answers, row.computation
    match computation.interval:
        case None:
            return None, ""
        case "share":
            decisions = _decisions(row, answers)
            return proportions.share_interval(decisions), decisions.too_few
        case "auroc":
            why_not = _too_few_groups(answers)
            return (None if why_not else ranks.auroc_interval(answered.area(row), answers.units)), why_not
        case "mean":
            values = _by_image(row, answers)
            interval = means.studentised_interval(values, answers.units, computation.scale, resamples, seed)
            return interval, groups.too_few(answers.units)
        case "bootstrap":
            why_not = groups.too_few(answers.units)
            draws = _mean_of(row, answered.draws)
            if why_not or resampling.mostly_undefined(draws):
                return None, why_not or paired.RARE_RESAMPLES
            units = groups.unit_count(answers.units)
            return resampling.bootstrap_t_interval(value, draws, units, computation.scale), ""


def difference_of(row: Row, value: float, answered: Answered) -> PairedDifference | None:
    """Return how a row differs from fp32's on the same images; None where it is no difference of two files.

    Agreement is held against the 1 that fp32 has with itself.
    """
    answers, reference = answered.answers, answered.reference
    if reference is None or (row.metric.of_scores and answers.unscored):
        return None
    if row.metric.against_fp32:
        if row.computation.interval != "share":
            return None
        given = _decisions(row, answers)
        all_the_same = replace(given, values=np.where(given.asked, 1.0, np.nan))
        return paired.paired_shares(given, all_the_same)
    match row.computation.interval:
        case "share":
            return paired.paired_shares(_decisions(row, answers), _decisions(row, reference))
        case "auroc":
            return paired.paired_areas(answered.area(row), answered.reference_area(row), answers.units)
        case "mean":
            return paired.paired_means(_by_image(row, answers), _by_image(row, reference), answers.units)
        case _:
            first, second = (_mean_of(row, draws) for draws in (answered.draws, answered.reference_draws))
            return paired.paired_draws(value - value_of(row, reference), first, second, answers.units)


def _decisions(row: Row, answers: Answers) -> proportions.Decisions:
    function = row.computation.by_image
    assert function is not None  # every "share" of answers has one
    strata = [function(answers.logits, _truth(row, answers), index) for index in row.classes]
    return proportions.Decisions(np.concatenate(strata), answers.units)


def _by_image(row: Row, answers: Answers) -> Floats:
    function = row.computation.by_image
    assert function is not None  # every "mean" of answers has one
    return function(answers.logits, answers.labels)


def _areas(answers: Answers) -> dict[int, ranks.Area]:
    """Return the area of each class that some of the images have, and others have not."""
    positives = {index: answers.positive(index) for index in sorted(answers.looked_at)}
    return {
        index: ranks.area_of(answers.scores[:, index], positive, answers.units)
        for index, positive in positives.items()
        if 0 < np.count_nonzero(positive) < len(positive)
    }


def _mean_area(row: Row, areas: Mapping[int, ranks.Area]) -> ranks.Area:
    return ranks.mean_area([areas[index] for index in row.classes if index is not None])


def _mean_of(row: Row, draws: Mapping[Part, Floats]) -> Floats:
    return np.asarray(np.mean([draws[part] for part in row.parts], axis=0))


def _too_few_groups(answers: Answers) -> str:
    return groups.too_few(answers.units) if groups.come_in_groups(answers.units) else ""
