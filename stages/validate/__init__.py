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

from stages.validate import decisions, deletion, label_metrics, map_similarity, map_stability, metrics
from stages.validate.intervals.estimates import ScaleName
from stages.validate.intervals.sums import Sums

if TYPE_CHECKING:
    from foundation.artifacts import Task


Function = Callable[..., NDArray[np.float64]]
Remarks = Mapping[str, str | int]
Interval = Literal["share", "mean", "auroc", "bootstrap"]


@dataclass(frozen=True)
class Computation:
    """How a metric is computed for one kind of task.

    Attributes:
        function: float64 [b] per row of weights, or [m] per map. By the `inputs` of the metric it takes: "labels":
            (logits, labels, weights); "class" and "class_mean": (logits, labels, class index, weights), and the mean
            over the classes is the metric; "reference": (logits, fp32's logits, weights); "maps": (maps, fp32's
            maps), or (maps) where the metric isn't `against_fp32`; "randomised" and
            "cascade": (maps, maps of random weights); "perturbed": (the file's probability of a class, images, maps,
            classes, fill), as `deletion.deletion_auc`; "masks": (maps, masks), NaN where the mask leaves it
            undefined; "noise": (maps, those of each noisy copy); "path": (maps, what they should add up to).
        interval: how its 95 % interval is found, see `stages.validate.intervals`: "share" for the mean of shares of
            right decisions; "mean" for the mean of one value per image; "auroc" for areas under the ROC curve;
            "bootstrap" for anything else. None where there is no sound interval.
        scale: on which the interval of a "mean" or a "bootstrap" is computed.
        by_image: of a "share" the decisions, see `decisions`; of a "mean" that takes logits float64 [n].
        of_scores: of what ranks images: `function` of (scores, positive, weights), see `Answers.scores`.
        sums: of what is resampled: the same as a function of sums, of (scores, positive) or (logits, truth).
        remarks: written beside every measurement.
    """

    function: Function
    interval: Interval | None = None
    scale: ScaleName = "identity"
    by_image: Function | None = None
    of_scores: Function | None = None
    sums: Callable[..., Sums] | None = None
    remarks: Remarks = field(default_factory=dict)


def _for_both(function: Function, scale: ScaleName, remarks: Remarks | None = None) -> dict[Task, Computation]:
    """Return one computation of a mean over maps for every kind of task."""
    computation = Computation(function, "mean", scale, remarks=remarks or {})
    return {"multi_class": computation, "multi_label": computation}


def _share(function: Function, by_image: Function) -> Computation:
    return Computation(function, "share", by_image=by_image)


def _area(function: Function) -> Computation:
    return Computation(function, "auroc", of_scores=metrics.area_under_roc)


def _precision(function: Function) -> Computation:
    return Computation(
        function,
        "bootstrap",
        "logit",
        of_scores=metrics.area_under_precision_recall,
        sums=metrics.precision_recall_sums,
    )


_SQNR = Computation(metrics.logits_sqnr_db, "bootstrap", sums=metrics.sqnr_sums)  # dB is its own scale
_ECE: Remarks = {
    "bins": metrics.ECE_BINS,
    "binning": "equal-width",
    "no_interval": "its bias is as large as its scatter",
}
_RANDOMISED: Remarks = {"randomised": "weights of every layer permuted"}
_CASCADE: Remarks = {"randomised": "weights of the topmost layers permuted", "draws": 1}
_PERTURBED: Remarks = {"steps": deletion.STEPS, "fill": "mean colour"}

COMPUTATIONS: Mapping[str, Mapping[Task, Computation]] = {
    "accuracy": {
        "multi_class": _share(metrics.accuracy, decisions.accuracy),
        "multi_label": _share(label_metrics.accuracy, decisions.label_accuracy),
    },
    "balanced_accuracy": {
        "multi_class": _share(metrics.sensitivity, decisions.sensitivity),
        "multi_label": _share(label_metrics.balanced_accuracy, decisions.label_balanced_accuracy),
    },
    "auroc_macro": {
        "multi_class": _area(metrics.auroc),
        "multi_label": _area(label_metrics.auroc),
    },
    "average_precision_macro": {
        "multi_class": _precision(metrics.average_precision),
        "multi_label": _precision(label_metrics.average_precision),
    },
    "auroc/CLASS": {
        "multi_class": _area(metrics.auroc),
        "multi_label": _area(label_metrics.auroc),
    },
    "average_precision/CLASS": {
        "multi_class": _precision(metrics.average_precision),
        "multi_label": _precision(label_metrics.average_precision),
    },
    "sensitivity/CLASS": {
        "multi_class": _share(metrics.sensitivity, decisions.sensitivity),
        "multi_label": _share(label_metrics.sensitivity, decisions.label_sensitivity),
    },
    "specificity/CLASS": {
        "multi_class": _share(metrics.specificity, decisions.specificity),
        "multi_label": _share(label_metrics.specificity, decisions.label_specificity),
    },
    "ece": {
        "multi_class": Computation(
            metrics.expected_calibration_error, sums=metrics.expected_calibration_sums, remarks=_ECE
        ),
        "multi_label": Computation(
            label_metrics.expected_calibration_error, sums=label_metrics.expected_calibration_sums, remarks=_ECE
        ),
    },
    "brier": {
        "multi_class": Computation(metrics.brier_score, "mean", "log", metrics.squared_distances),
        "multi_label": Computation(label_metrics.brier_score, "mean", "log", label_metrics.squared_distances),
    },
    "agreement": {
        "multi_class": _share(metrics.agreement, decisions.agreement),
        "multi_label": _share(label_metrics.agreement, decisions.label_agreement),
    },
    "logits_sqnr_db": {"multi_class": _SQNR, "multi_label": _SQNR},
    "saliency_spearman": _for_both(map_similarity.spearman, "fisher_z"),
    "saliency_ssim": _for_both(map_similarity.structural_similarity, "fisher_z"),
    "saliency_top10_overlap": _for_both(map_similarity.top_overlap, "logit"),
    "sanity_spearman": _for_both(map_similarity.magnitude_spearman, "fisher_z", _RANDOMISED),
    "cascade_spearman": _for_both(map_similarity.magnitude_spearman, "fisher_z", _CASCADE),
    "deletion_auc": _for_both(deletion.deletion_auc, "logit", _PERTURBED),
    "insertion_auc": _for_both(deletion.insertion_auc, "logit", _PERTURBED),
    "pointing_game": {
        task: Computation(map_similarity.pointing_hits, "share") for task in ("multi_class", "multi_label")
    },
    "mass_in_mask": _for_both(map_similarity.mass_in_mask, "logit"),
    "iou_at_mask_area": _for_both(map_similarity.iou_at_mask_area, "logit"),
    "pixel_auroc": _for_both(map_similarity.pixel_auroc, "logit"),
    "topk_in_mask": _for_both(map_similarity.topk_in_mask, "logit", {"k": "a tenth of the pixels"}),
    "sparseness": _for_both(map_similarity.sparseness, "logit"),
    "max_sensitivity": _for_both(map_stability.max_sensitivity, "log"),
    "completeness_error": _for_both(map_stability.completeness_error, "log"),
}
