"""What saliency maps are worth: every row of `METRICS` that is computed from maps, each with its interval.

Likeness to fp32's maps, change under random weights, faithfulness to the file's own answers, and how they meet the
masks, there by lesion size too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import Task
from foundation.files import JSON
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.metrics import METRICS, Inputs
from onnx_files.sessions import gives_scores, predict
from stages.validate import COMPUTATIONS, Computation
from stages.validate.answers import probabilities
from stages.validate.counterparts import (
    DIED,
    Counterparts,
    ExplainedImages,
    counted_images,
    is_asked,
    values_of,
    values_of_draws,
)
from stages.validate.deletion import Probability
from stages.validate.intervals import groups as of_groups
from stages.validate.intervals import means, paired, proportions
from stages.validate.intervals.estimates import Estimate
from stages.validate.lesion_size import lesion_sizes
from stages.validate.measurements import measured, not_measured
from stages.validate.saliency import SaliencySettings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

FROM_MAPS: tuple[Inputs, ...] = ("maps", "randomised", "cascade", "perturbed", "masks", "noise", "path")
"""The `inputs` of the rows that are measured here."""
IF_ASKED: tuple[Inputs, ...] = ("cascade", "noise", "path")
"""Those of them that a run has only where its configuration asks for them."""
UNDEFINED: Mapping[Inputs, str] = {
    "masks": "every mask covers its whole image, so that none has pixels on either side",
    "noise": "every map is 0 everywhere",
}


@dataclass(frozen=True)
class Scored:
    """What maps are worth.

    Attributes:
        rows: every measurement.
        values: by metric the value of each map, float64 [m]; NaN where an image does not count.
    """

    rows: Sequence[Measurement]
    values: Mapping[str, Floats]


def measure_saliency(
    variant: str,
    maps: Maps,
    explained: ExplainedImages,
    against: Counterparts,
    method: str,
    settings: SaliencySettings,
) -> Scored:
    """Return every row of `METRICS` that is computed from maps.

    Args:
        variant: its name, or that of a map which knows nothing of the file.
        maps: float32 [m, h, w].
        explained: the images.
        against: what the maps are held against.
        method: a key of `SALIENCY_METHODS`; it tells two measurements of a metric apart.
        settings: resamples and seed.
    """
    where = _where(method)
    rows: list[Measurement] = []
    values: dict[str, Floats] = {}
    for name, metric in METRICS.items():
        computation = COMPUTATIONS.get(name, {}).get(explained.task)
        if computation is None or metric.inputs not in FROM_MAPS or not is_asked(metric, against):
            continue
        computation = _as_asked(name, computation, against, settings)
        if metric.inputs == "cascade":
            rows += _cascade(name, variant, computation, maps, explained, against, where, settings)
            continue
        counted, reason = counted_images(metric, variant, explained, against)
        if reason:
            rows.append(not_measured(name, variant, reason, where, {}))
            continue
        found = np.full(len(maps), np.nan)
        found[counted] = values_of(metric, computation, maps, explained, against, counted)
        values[name] = found
        one = _of_values(name, variant, computation, found, against.fp32s.get(name), explained.groups)
        if one is None:
            rows.append(not_measured(name, variant, UNDEFINED[metric.inputs], where, {}))
            continue
        told: dict[str, JSON] = {}
        if metric.inputs == "randomised":
            of_draws = values_of_draws(computation, maps, against, counted).mean(axis=1)
            told["of_draws"] = [round(float(value), 4) for value in of_draws]
        rows.append(_mean(one, where, told, settings))
        if metric.inputs == "masks":
            rows += _by_size(one, explained.masks[np.isfinite(found)], where, settings)
    return Scored(rows, values)


def unmeasured_saliency(variant: str, reason: str, task: Task, method: str) -> list[Measurement]:
    """Return every saliency measurement without a value, with the reason."""
    return [
        not_measured(name, variant, reason, _where(method), {})
        for name, metric in METRICS.items()
        if task in metric.definitions and metric.inputs in FROM_MAPS and metric.inputs not in IF_ASKED
    ]


def probability_of(session: InferenceSession, task: Task, batch_size: int) -> Probability | None:
    """Return a file's probability of a class as a function of images: softmax, or the label's sigmoid.

    Args:
        session: of a model with one input.
        task: the kind of task.
        batch_size: images per query, where the file leaves that open.

    Returns:
        None of a file that gives the number of a class alone.
    """
    if not gives_scores(session):
        return None

    def probability(images: Images, targets: Indices) -> NDArray[np.float64]:
        logits = predict(session, images, batch_size)
        return probabilities(logits, task)[np.arange(len(targets)), targets]

    return probability


def _where(method: str) -> Where:
    """Return where maps by a method are measured."""
    return Where(provider="cpu", split="test", method=method)


def _as_asked(name: str, computation: Computation, against: Counterparts, settings: SaliencySettings) -> Computation:
    """Return the computation as the settings ask for it, which its remarks state."""
    function, remarks = computation.function, dict(computation.remarks)
    if name == "pointing_game" and settings.pointing_tolerance_px:
        function = partial(function, tolerance_px=settings.pointing_tolerance_px)
        remarks["tolerance_px"] = settings.pointing_tolerance_px
    if name == "insertion_auc" and settings.insertion_start == "blur":
        remarks = {key: value for key, value in remarks.items() if key != "fill"} | {"start": "the blurred image"}
    if name == "sanity_spearman":
        remarks["draws"] = len(against.randomised)
    if name == "max_sensitivity":
        remarks |= {"samples": settings.sensitivity_samples, "radius": settings.sensitivity_radius}
    if name == "completeness_error":
        remarks["steps"] = settings.integration_steps
    return replace(computation, function=function, remarks=remarks)


def _cascade(
    name: str,
    variant: str,
    computation: Computation,
    maps: Maps,
    explained: ExplainedImages,
    against: Counterparts,
    where: Where,
    settings: SaliencySettings,
) -> list[Measurement]:
    """Return one row for each step down the layers; an image whose random map is constant does not count there."""
    rows = []
    for step, of_step in against.cascade.items():
        at_step = replace(where, change=step)
        values = np.where(np.ptp(of_step, axis=(1, 2)) > 0, computation.function(maps, of_step), np.nan)
        one = _of_values(name, variant, computation, values, None, explained.groups)
        rows.append(
            not_measured(name, variant, DIED, at_step, {}) if one is None else _mean(one, at_step, {}, settings)
        )
    return rows


@dataclass(frozen=True)
class _Values:
    """A metric's values, one per map.

    Attributes:
        name: of the metric.
        variant: whose maps they are.
        computation: of the metric.
        values: float64 [m].
        fp32s: float64 [m], those of fp32's maps of the same images; None where the metric has none.
        groups: m names of what images belong together by.
    """

    name: str
    variant: str
    computation: Computation
    values: Floats
    fp32s: Floats | None
    groups: tuple[str, ...]

    def of_images(self, members: NDArray[np.bool_]) -> _Values:
        """Return the values of some of the images, bool [m]."""
        fp32s = None if self.fp32s is None else self.fp32s[members]
        groups = tuple(self.groups[index] for index in np.flatnonzero(members).tolist())
        return replace(self, values=self.values[members], fp32s=fp32s, groups=groups)


def _of_values(
    name: str, variant: str, computation: Computation, values: Floats, fp32s: Floats | None, groups: tuple[str, ...]
) -> _Values | None:
    """Return the values of the images that count; None where none does."""
    counted = np.isfinite(values)
    if not counted.any():
        return None
    # A pair needs both: where one of fp32's maps has no value, the difference would be of other images.
    paired_with = fp32s if fp32s is not None and np.isfinite(fp32s[counted]).all() else None
    return _Values(name, variant, computation, values, paired_with, groups).of_images(counted)


def _by_size(
    scored: _Values, masks: NDArray[np.bool_], where: Where, settings: SaliencySettings
) -> list[Measurement]:
    """Return the metric of small, medium and large lesions, as subgroups; a size with too few masks says so."""
    rows = []
    for size in lesion_sizes(masks):
        of_size = replace(where, subgroup=size.name)
        if size.reason:
            rows.append(not_measured(scored.name, scored.variant, size.reason, of_size, {}))
            continue
        remarks = {"mask_share": size.mask_share}
        rows.append(_mean(scored.of_images(size.members), of_size, remarks, settings))
    return rows


def _mean(scored: _Values, where: Where, remarks: Mapping[str, JSON], settings: SaliencySettings) -> Measurement:
    """Return the mean of one value per map with the interval that the table names, and its difference from fp32's."""
    units = of_groups.units_of(scored.groups)
    described = {**scored.computation.remarks, **remarks}
    if of_groups.come_in_groups(units):
        described["resampled"] = f"{int(units.max()) + 1} groups"
    if scored.computation.interval == "share":
        decisions = proportions.Decisions(scored.values[None, None], units)
        mean, why_not = float(scored.values.mean()), decisions.too_few
        estimate = Estimate(mean, proportions.share_interval(decisions), len(units))
    else:
        scale, why_not = scored.computation.scale, of_groups.too_few(units)
        estimate = means.mean_estimate(scored.values, settings.resamples, settings.seed, units, scale)
    if why_not and estimate.ci95 is None:
        described["no_interval"] = why_not
    found = measured(scored.name, scored.variant, estimate, where, described)
    return replace(found, difference=_difference(scored, units))


def _difference(scored: _Values, units: Indices) -> PairedDifference | None:
    if scored.fp32s is None:
        return None
    if scored.computation.interval == "share":
        both = (proportions.Decisions(values[None, None], units) for values in (scored.values, scored.fp32s))
        return paired.paired_shares(*both)
    return paired.paired_means(scored.values, scored.fp32s, units)
