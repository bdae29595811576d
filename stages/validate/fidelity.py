"""What saliency maps are worth: every row of `METRICS` that is computed from maps, each with its interval.

Likeness to fp32's maps, change under random weights, faithfulness to the file's own answers, and how they meet the
masks, there by lesion size too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit, Task
from foundation.files import JSON
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.metrics import METRICS, Inputs, Metric
from onnx_files.sessions import gives_scores, predict
from stages.validate import COMPUTATIONS, Computation
from stages.validate.answers import NO_SCORES, probabilities
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
Masks = NDArray[np.bool_]
Indices = NDArray[np.int64]

FROM_MAPS: tuple[Inputs, ...] = ("maps", "randomised", "perturbed", "masks")
"""The `inputs` of the rows that are measured here."""
UNDEFINED = "every mask covers its whole image, so that none has pixels on either side"


@dataclass(frozen=True)
class ExplainedImages:
    """The images that the maps explain, and what is known of them.

    Attributes:
        images: uint8 [m, channels, h, w].
        targets: int64 [m], the class that is explained.
        masks: bool [m, h, w], True on the lesion.
        has_mask: bool [m].
        groups: m names of what images belong together by; intervals come from resamples of whole groups.
        task: the kind of task.
    """

    images: Images
    targets: Indices
    masks: Masks
    has_mask: Masks
    groups: tuple[str, ...]
    task: Task

    @classmethod
    def of(cls, data: PreparedSplit, index: Indices, targets: Indices, task: Task) -> ExplainedImages:
        """Return the images of a split at the indices [m], with the classes [m] that are explained."""
        groups = tuple(data.groups[position] for position in index)
        return cls(data.images[index], targets, data.masks[index], data.has_mask[index], groups, task)


@dataclass(frozen=True)
class Counterparts:
    """What maps are held against.

    Attributes:
        probability: the answers of the file that the maps explain; None where it gives the number of a class alone.
        fill: uint8 [channels], what a pixel becomes that is taken away.
        reference: fp32's maps of the same images, float32 [m, h, w]; None for fp32 itself.
        randomised: maps of fp32 with random weights, likewise; None where there are none.
        why_not_randomised: the reason for None.
    """

    probability: Probability | None
    fill: Images
    reference: Maps | None = None
    randomised: Maps | None = None
    why_not_randomised: str = "the sanity check is made of fp32"


def measure_saliency(
    variant: str,
    maps: Maps,
    explained: ExplainedImages,
    against: Counterparts,
    method: str,
    settings: SaliencySettings,
) -> list[Measurement]:
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
    rows = []
    for name, metric in METRICS.items():
        computation = COMPUTATIONS.get(name, {}).get(explained.task)
        if computation is None or metric.inputs not in FROM_MAPS:
            continue
        if name == "pointing_game" and settings.pointing_tolerance_px:
            computation = _within(computation, settings.pointing_tolerance_px)
        counted, reason = _sample(metric, variant, explained, against)
        if reason:
            rows.append(not_measured(name, variant, reason, where, {}))
            continue
        values = _values(metric, computation, maps, explained, against, counted)
        defined = np.isfinite(values)
        if not defined.any():
            rows.append(not_measured(name, variant, UNDEFINED, where, {}))
            continue
        counted[counted] = defined
        fp32s = None
        if against.reference is not None and (metric.inputs == "masks" or _of_maps_alone(metric)):
            fp32s = _values(metric, computation, against.reference, explained, against, counted)
        groups = tuple(explained.groups[index] for index in np.flatnonzero(counted).tolist())
        scored = _Scored(name, variant, computation, values[defined], fp32s, groups)
        rows.append(_mean(scored, where, {}, settings))
        if metric.inputs == "masks":
            rows += _by_size(scored, explained.masks[counted], where, settings)
    return rows


def unmeasured_saliency(variant: str, reason: str, task: Task, method: str) -> list[Measurement]:
    """Return every saliency measurement without a value, with the reason."""
    return [
        not_measured(name, variant, reason, _where(method), {})
        for name, metric in METRICS.items()
        if task in metric.definitions and metric.inputs in FROM_MAPS
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


def _within(computation: Computation, tolerance_px: int) -> Computation:
    """Return the pointing game with a tolerance, which its remarks state."""
    function = partial(computation.function, tolerance_px=tolerance_px)
    return replace(computation, function=function, remarks={**computation.remarks, "tolerance_px": tolerance_px})


def _of_maps_alone(metric: Metric) -> bool:
    """Return whether a metric needs nothing beside the maps."""
    return metric.inputs == "maps" and not metric.against_fp32


def _sample(metric: Metric, variant: str, explained: ExplainedImages, against: Counterparts) -> tuple[Masks, str]:
    """Return which images a kind of metric counts, bool [m], and why it counts none."""
    every = np.ones(len(explained.targets), dtype=np.bool_)
    match metric.inputs:
        case "maps" if metric.against_fp32:
            return every, f"{variant} is the reference itself" if against.reference is None else ""
        case "perturbed" if against.probability is None:
            return every, NO_SCORES.format("the model")
        case "randomised" if against.randomised is None:
            return every, against.why_not_randomised
        case "randomised":
            assert against.randomised is not None  # mypy does not see it in the guard above
            # A constant map, of a network that died with its weights, would pass for one that changed.
            varies = np.ptp(against.randomised, axis=(1, 2)) > 0
            return varies, "" if varies.any() else "with random weights no map varies: the network answers nothing"
        case "masks":
            usable = explained.has_mask & explained.masks.any(axis=(1, 2))
            return usable, "" if usable.any() else "none of the explained images has a mask"
        case _:
            return every, ""


def _values(
    metric: Metric,
    computation: Computation,
    maps: Maps,
    explained: ExplainedImages,
    against: Counterparts,
    counted: Masks,
) -> NDArray[np.float64]:
    """Return a metric's value for each counted map, float64."""
    chosen = maps[counted]
    match metric.inputs:
        case "perturbed":
            images, targets = explained.images[counted], explained.targets[counted]
            return computation.function(against.probability, images, chosen, targets, against.fill)
        case "masks":
            return computation.function(chosen, explained.masks[counted])
        case "maps" if _of_maps_alone(metric):
            return computation.function(chosen)
        case _:
            other = against.reference if metric.inputs == "maps" else against.randomised
            assert other is not None  # `_sample` gives a reason where there is none
            return computation.function(chosen, other[counted])


@dataclass(frozen=True)
class _Scored:
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
    values: NDArray[np.float64]
    fp32s: NDArray[np.float64] | None
    groups: tuple[str, ...]

    def of_images(self, members: NDArray[np.bool_]) -> _Scored:
        """Return the values of some of the images, bool [m]."""
        fp32s = None if self.fp32s is None else self.fp32s[members]
        groups = tuple(self.groups[index] for index in np.flatnonzero(members).tolist())
        return replace(self, values=self.values[members], fp32s=fp32s, groups=groups)


def _by_size(
    scored: _Scored, masks: NDArray[np.bool_], where: Where, settings: SaliencySettings
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


def _mean(scored: _Scored, where: Where, remarks: Mapping[str, JSON], settings: SaliencySettings) -> Measurement:
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


def _difference(scored: _Scored, units: Indices) -> PairedDifference | None:
    if scored.fp32s is None:
        return None
    if scored.computation.interval == "share":
        both = (proportions.Decisions(values[None, None], units) for values in (scored.values, scored.fp32s))
        return paired.paired_shares(*both)
    return paired.paired_means(scored.values, scored.fp32s, units)
