"""Validation of the shipped files: accuracy, saliency and latency, each number with its interval.

`COMPUTATIONS` binds what computes a metric to its row in `foundation.metrics.METRICS`, by the same name and in the
same order; a metric that is computed from arrays has a row in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from stages.validate import deletion, label_metrics, map_similarity, metrics

if TYPE_CHECKING:
    from foundation.artifacts import Task


Function = Callable[..., NDArray[np.float64]]
Remarks = Mapping[str, str | int]
Interval = Literal[
    "wilson", "mean_of_sensitivities", "bootstrap", "bootstrap_or_wilson", "basic_bootstrap", "stratified_bootstrap"
]


@dataclass(frozen=True)
class Computation:
    """How a metric is computed for one kind of task.

    Attributes:
        function: float64 [b] per row of weights, or [m] per map. By the `inputs` of the metric it takes: "labels":
            (logits, labels, weights); "class" and "class_mean": (logits, labels, class index, weights), and the mean
            over the classes is the metric; "reference": (logits, fp32's logits, weights); "maps": (maps, fp32's
            maps); "randomised": (maps, maps of random weights); "perturbed": (the file's probability of a class,
            images, maps, classes, fill), as `deletion.deletion_auc`; "masks": (maps, masks).
        interval: how its 95 % interval is found: "wilson" for a proportion; "mean_of_sensitivities" by MOVER;
            "bootstrap" over all images; "bootstrap_or_wilson" for a mean of shares, Wilson's where the bootstrap
            shows no scatter; "basic_bootstrap" where resampling adds a bias; "stratified_bootstrap" within each
            class. Where groups hold several images, whole groups are drawn, and a proportion's effective sample size
            comes from those draws. None where there is no sound interval.
        remarks: written beside every measurement.
    """

    function: Function
    interval: Interval | None = None
    remarks: Remarks = field(default_factory=dict)


def _for_both(function: Function, interval: Interval, remarks: Remarks | None = None) -> dict[Task, Computation]:
    """Return one computation for every kind of task."""
    computation = Computation(function, interval, remarks or {})
    return {"multi_class": computation, "multi_label": computation}


_ECE: Remarks = {"bins": metrics.ECE_BINS, "binning": "equal-width", "no_interval": "a bootstrap of ECE is biased"}
_RANDOMISED: Remarks = {"randomised": "weights of every layer permuted", "draws": 1}
_PERTURBED: Remarks = {"steps": deletion.STEPS, "fill": "mean colour"}

COMPUTATIONS: Mapping[str, Mapping[Task, Computation]] = {
    "accuracy": {
        "multi_class": Computation(metrics.accuracy, "wilson"),
        "multi_label": Computation(label_metrics.accuracy, "bootstrap_or_wilson"),
    },
    "balanced_accuracy": {
        "multi_class": Computation(metrics.sensitivity, "mean_of_sensitivities"),
        "multi_label": Computation(label_metrics.balanced_accuracy, "bootstrap"),
    },
    "auroc_macro": {
        "multi_class": Computation(metrics.auroc, "stratified_bootstrap"),
        "multi_label": Computation(label_metrics.auroc, "bootstrap"),
    },
    "average_precision_macro": {
        "multi_class": Computation(metrics.average_precision, "basic_bootstrap"),
        "multi_label": Computation(label_metrics.average_precision, "basic_bootstrap"),
    },
    "auroc/CLASS": {
        "multi_class": Computation(metrics.auroc, "stratified_bootstrap"),
        "multi_label": Computation(label_metrics.auroc, "bootstrap"),
    },
    "average_precision/CLASS": {
        "multi_class": Computation(metrics.average_precision, "bootstrap"),
        "multi_label": Computation(label_metrics.average_precision, "bootstrap"),
    },
    "sensitivity/CLASS": {
        "multi_class": Computation(metrics.sensitivity, "wilson"),
        "multi_label": Computation(label_metrics.sensitivity, "wilson"),
    },
    "specificity/CLASS": {
        "multi_class": Computation(metrics.specificity, "wilson"),
        "multi_label": Computation(label_metrics.specificity, "wilson"),
    },
    "ece": {
        "multi_class": Computation(metrics.expected_calibration_error, None, _ECE),
        "multi_label": Computation(label_metrics.expected_calibration_error, None, _ECE),
    },
    "brier": {
        "multi_class": Computation(metrics.brier_score, "bootstrap"),
        "multi_label": Computation(label_metrics.brier_score, "bootstrap"),
    },
    "agreement": {
        "multi_class": Computation(metrics.agreement, "wilson"),
        "multi_label": Computation(label_metrics.agreement, "bootstrap_or_wilson"),
    },
    "logits_sqnr_db": _for_both(metrics.logits_sqnr_db, "bootstrap"),
    "saliency_spearman": _for_both(map_similarity.spearman, "bootstrap"),
    "saliency_ssim": _for_both(map_similarity.structural_similarity, "bootstrap"),
    "saliency_top10_overlap": _for_both(map_similarity.top_overlap, "bootstrap_or_wilson"),
    "sanity_spearman": _for_both(map_similarity.magnitude_spearman, "bootstrap", _RANDOMISED),
    "deletion_auc": _for_both(deletion.deletion_auc, "bootstrap_or_wilson", _PERTURBED),
    "insertion_auc": _for_both(deletion.insertion_auc, "bootstrap_or_wilson", _PERTURBED),
    "pointing_game": _for_both(map_similarity.pointing_hits, "wilson"),
    "mass_in_mask": _for_both(map_similarity.mass_in_mask, "bootstrap_or_wilson"),
    "iou_at_mask_area": _for_both(map_similarity.iou_at_mask_area, "bootstrap_or_wilson"),
}
