"""From what a file answered there and here to measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from stages.validate.accuracy import AccuracySettings, measure_rows
from stages.validate.answers import Answers
from stages.validate.intervals import groups, means
from stages.validate.intervals.estimates import Estimate
from stages.validate.intervals.proportions import Decisions, share_interval
from stages.validate.map_similarity import spearman, top_overlap
from stages.validate.measurements import measured, not_measured

Logits = NDArray[np.float32]
Maps = NDArray[np.float32]

OF_ANSWERS = ("place_agreement", "place_bit_equal", "place_logits_sqnr_db", "place_largest_difference")
OF_MAPS = ("place_saliency_spearman", "place_saliency_top10_overlap")
_ROWS = {"accuracy": "accuracy", "agreement": "place_agreement", "logits_sqnr_db": "place_logits_sqnr_db"}
"""Rows of `METRICS` that compare with fp32, where here stands in fp32's place → what they are called of a place."""


@dataclass(frozen=True)
class AskedImages:
    """The images that were asked about.

    Attributes:
        labels: int64 [n], or [n, classes] of labels; None where nobody knows the truth.
        classes: their names; empty where nobody knows them.
        groups: n names of what images belong together by.
    """

    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    groups: tuple[str, ...]


def measure_answers(
    variant: str,
    place: str,
    there: Logits,
    here: Logits,
    images: AskedImages,
    settings: AccuracySettings,
    scored: bool = True,
) -> list[Measurement]:
    """Return what a file answers there, held against what it answers here.

    Args:
        variant: its name.
        place: likewise.
        there: float32 [n, classes].
        here: float32 [n, classes], of the same images.
        images: what is known of them.
        settings: resamples and seed.
        scored: whether the answers say how sure the file is.
    """
    where = Where(split="test", place=place)
    broken = int((~np.isfinite(there)).any(axis=1).sum())
    if broken or there.shape != here.shape:
        found = f"NaN or infinity for {broken}" if broken else f"answers of shape {list(there.shape[1:])} for all"
        return unmeasured(variant, place, f"expected finite logits as here, found {found} of {len(here)} images")
    units = groups.units_of(images.groups)
    labels = images.labels if images.labels is not None else here.argmax(axis=1).astype(np.int64)
    unscored = frozenset[str]() if scored else frozenset({variant, "fp32"})
    classes = images.classes or tuple(str(index) for index in range(here.shape[1]))
    answers = Answers(variant, there, labels, classes, here, units, settings.min_positives, unscored=unscored)
    names = [name for name in _ROWS if name != "accuracy" or images.labels is not None]
    rows = [replace(one, metric=_ROWS[one.metric]) for one in measure_rows(names, answers, settings, where)]
    equal = (there.view(np.uint32) == here.view(np.uint32)).all(axis=1).astype(np.float64)
    interval = share_interval(Decisions(equal[None, None], units))
    rows.append(measured("place_bit_equal", variant, Estimate(float(equal.mean()), interval, len(equal)), where, {}))
    largest = float(np.abs(there.astype(np.float64) - here.astype(np.float64)).max())
    spread = float(here.astype(np.float64).std())
    remarks = {"no_interval": "the largest of a sample", "spread_of_logits": round(spread, 6)}
    estimate = Estimate(largest, None, len(here))
    rows.append(measured("place_largest_difference", variant, estimate, where, remarks))
    return rows


def measure_maps(
    variant: str, place: str, there: Maps, here: Maps, group_names: Sequence[str], settings: AccuracySettings
) -> list[Measurement]:
    """Return what a file's saliency maps there, float32 [m, h, w], have in common with those here."""
    where, units = Where(split="test", place=place, method="gradient"), groups.units_of(group_names)
    if there.shape != here.shape:
        found = f"expected maps of shape {list(here.shape)}, found {list(there.shape)}"
        return [not_measured(name, variant, found, where, {}) for name in OF_MAPS]
    rows = []
    for name, values, scale in (
        (OF_MAPS[0], spearman(there, here), "fisher_z"),
        (OF_MAPS[1], top_overlap(there, here), "logit"),
    ):
        known = np.isfinite(values)
        if not known.any():
            rows.append(not_measured(name, variant, "every map is constant", where, {}))
            continue
        estimate = means.mean_estimate(values[known], settings.resamples, settings.seed, units[known], scale)  # type: ignore[arg-type]
        rows.append(measured(name, variant, estimate, where, {}))
    return rows


def unmeasured(variant: str, place: str, reason: str, metrics: Sequence[str] = OF_ANSWERS) -> list[Measurement]:
    """Return the absent measurements of a file at a place, each with the reason."""
    method = "gradient" if metrics is OF_MAPS else None
    where = Where(split="test", place=place, method=method)
    return [not_measured(name, variant, reason, where, {}) for name in metrics if name in METRICS]
