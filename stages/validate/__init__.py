"""Validation of the shipped files: accuracy, saliency and latency, each number with its interval.

`METRICS` is the table of everything that may stand in `measurements.json`; the configuration takes the names of gates
from it and the report takes unit, direction and meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.validate import map_similarity, metrics

Inputs = Literal["labels", "class", "reference", "maps", "masks", "file", "timing"]
Interval = Literal["wilson", "mean_of_sensitivities", "bootstrap", "stratified_bootstrap"]
Sample = Literal["all", "class", "others"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        unit: as it stands in a measurement.
        higher_is_better: the direction a gate and a report's colours take.
        meaning: one line for a reader who doesn't know the metric.
        inputs: what `function` takes: "labels": (logits, labels, weights); "class": (logits, labels, class index,
            weights); "reference": (logits, fp32's logits, weights); "maps": (maps, fp32's maps); "masks": (maps,
            masks). "file" and "timing" are measured, not computed from arrays.
        function: float64 [b] per row of weights, or [m] per map; None for "file" and "timing".
        interval: how its 95 % interval is found: "wilson" for a proportion; "mean_of_sensitivities" by MOVER;
            "bootstrap" over all images; "stratified_bootstrap" within each class, every one of which it then needs.
            None where there is no sound one, and for "file" and "timing".
        sample: the images that a "class" metric is a share of, and so its n.
        settings: written beside every measurement.
    """

    unit: str
    higher_is_better: bool
    meaning: str
    inputs: Inputs
    function: Callable[..., NDArray[np.float64]] | None = None
    interval: Interval | None = None
    sample: Sample = "all"
    settings: Mapping[str, str | int] = field(default_factory=dict)


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(
        "share", True, "share of the images that are answered correctly", "labels", metrics.accuracy,
        "wilson",
    ),
    "balanced_accuracy": Metric(
        "share", True, "mean of the classes' sensitivities", "labels", metrics.balanced_accuracy,
        "mean_of_sensitivities",
    ),
    "auroc_macro": Metric(
        "share", True, "mean of the classes' areas under the ROC curve, one against the rest", "labels",
        metrics.auroc_macro, "stratified_bootstrap",
    ),
    "auroc/CLASS": Metric(
        "share", True, "probability that an image of the class scores above one of another", "class", metrics.auroc,
        "stratified_bootstrap",
    ),
    "sensitivity/CLASS": Metric(
        "share", True, "share of the class's images that are found", "class", metrics.sensitivity, "wilson", "class"
    ),
    "specificity/CLASS": Metric(
        "share", True, "share of the other classes' images that are not taken for this one", "class",
        metrics.specificity, "wilson", "others",
    ),
    "ece": Metric(
        "share", False,
        "mean gap between confidence and accuracy over 15 bins of equal width; without an interval, because each "
        "resample adds its own scatter to the gaps, so that a bootstrap lies above the estimate",
        "labels", metrics.expected_calibration_error,
        settings={"bins": metrics.ECE_BINS, "binning": "equal-width", "no_interval": "a bootstrap of ECE is biased"},
    ),
    "brier": Metric(
        "squared distance", False, "squared distance of the probabilities from the truth, 0 to 2", "labels",
        metrics.brier_score, "bootstrap",
    ),
    "agreement": Metric(
        "share", True, "share of the images that are answered as fp32 answers them", "reference", metrics.agreement,
        "wilson",
    ),
    "logits_sqnr_db": Metric(
        "dB", True, "energy of fp32's logits over the energy of the deviation from them", "reference",
        metrics.logits_sqnr_db, "bootstrap",
    ),
    "size_bytes": Metric("bytes", False, "size of the ONNX file", "file"),
    "latency_p50_ms": Metric("ms", False, "half of the single-image queries are answered within this time", "timing"),
    "latency_p90_ms": Metric("ms", False, "nine in ten single-image queries are answered within this time", "timing"),
    "latency_speedup": Metric("×", True, "fp32's median latency over this file's, in the same rounds", "timing"),
    "peak_memory_bytes": Metric("bytes", False, "highest resident memory of a process that runs this file", "timing"),
    "saliency_spearman": Metric(
        "correlation", True, "rank correlation of the saliency maps with fp32's", "maps", map_similarity.spearman,
        "bootstrap",
    ),
    "saliency_ssim": Metric(
        "similarity", True, "structural similarity of the saliency maps with fp32's", "maps",
        map_similarity.structural_similarity, "bootstrap",
    ),
    "saliency_top10_overlap": Metric(
        "share", True, "share of fp32's most important tenth of the pixels that is kept", "maps",
        map_similarity.top_overlap, "bootstrap",
    ),
    "pointing_game": Metric(
        "share", True, "share of the maps whose maximum lies inside the lesion's mask; a map explains fp32's answer, "
        "also where it is wrong", "masks", map_similarity.pointing_hits, "wilson",
    ),
    "mass_in_mask": Metric(
        "share", True, "share of the positive relevance that lies inside the lesion's mask; a map explains fp32's "
        "answer, also where it is wrong", "masks", map_similarity.mass_in_mask, "bootstrap",
    ),
}  # fmt: skip


def row_name(metric: str) -> str:
    """Return the key in `METRICS` that a measurement's name belongs to: "auroc/polyp" → "auroc/CLASS".

    A name that belongs to no row comes back as it is, so that `METRICS.get(row_name(name))` is None for it.
    """
    family, slash, of_class = metric.partition("/")
    return f"{family}/CLASS" if slash and of_class else metric
