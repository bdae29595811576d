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

from calibration_data.prepared import Task
from stages.validate import deletion, label_metrics, map_similarity, metrics

Inputs = Literal[
    "labels", "class", "class_mean", "reference", "maps", "randomised", "perturbed", "masks", "file", "timing"
]
Interval = Literal[
    "wilson", "mean_of_sensitivities", "bootstrap", "bootstrap_or_wilson", "basic_bootstrap", "stratified_bootstrap"
]
Sample = Literal["all", "class", "others"]


@dataclass(frozen=True)
class Definition:
    """What a metric is for one kind of task.

    Attributes:
        meaning: one line for a reader who doesn't know the metric.
        function: float64 [b] per row of weights, or [m] per map; None for "file" and "timing".
        interval: how its 95 % interval is found: "wilson" for a proportion; "mean_of_sensitivities" by MOVER;
            "bootstrap" over all images; "bootstrap_or_wilson" for a mean of shares, Wilson's where the bootstrap
            shows no scatter; "basic_bootstrap" where resampling adds a bias; "stratified_bootstrap" within each
            class. Where groups hold several images, whole groups are drawn, and a proportion's effective sample size
            comes from those draws. None where there is no sound interval, and for "file" and "timing".
        sample: the images that a "class" metric is a share of, and so its n.
    """

    meaning: str
    function: Callable[..., NDArray[np.float64]] | None = None
    interval: Interval | None = None
    sample: Sample = "all"


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        unit: as it stands in a measurement.
        higher_is_better: the direction a gate and a report's colours take.
        inputs: what the definitions' functions take: "labels": (logits, labels, weights); "class": (logits, labels,
            class index, weights); "class_mean": the same, and the metric is the mean over the classes; "reference":
            (logits, fp32's logits, weights); "maps": (maps, fp32's maps); "randomised": (maps, maps of the same file
            with weights that know nothing); "perturbed": (the file's probability of a class, images, maps, classes,
            fill), as `deletion.deletion_auc`; "masks": (maps, masks). "file" and "timing" are measured, not computed
            from arrays.
        definitions: the kinds of task that the metric exists for, and what it is there.
        settings: written beside every measurement.
    """

    unit: str
    higher_is_better: bool
    inputs: Inputs
    definitions: Mapping[Task, Definition]
    settings: Mapping[str, str | int] = field(default_factory=dict)


def _for_both(
    meaning: str, function: Callable[..., NDArray[np.float64]] | None = None, interval: Interval | None = None
) -> dict[Task, Definition]:
    """Return one definition for every kind of task."""
    definition = Definition(meaning, function, interval)
    return {"multi_class": definition, "multi_label": definition}


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("share", True, "labels", {
        "multi_class": Definition(
            "share of the images that are answered correctly", metrics.accuracy, "wilson"),
        "multi_label": Definition(
            "mean over the labels of the share of right yes/no decisions at probability 0.5",
            label_metrics.accuracy, "bootstrap_or_wilson"),
    }),
    "balanced_accuracy": Metric("share", True, "class_mean", {
        "multi_class": Definition(
            "mean of the classes' sensitivities", metrics.sensitivity, "mean_of_sensitivities"),
        "multi_label": Definition(
            "mean over the labels of half the sum of sensitivity and specificity at probability 0.5",
            label_metrics.balanced_accuracy, "bootstrap"),
    }),
    "auroc_macro": Metric("share", True, "class_mean", {
        "multi_class": Definition(
            "mean of the classes' areas under the ROC curve, one against the rest",
            metrics.auroc, "stratified_bootstrap"),
        "multi_label": Definition("mean of the labels' areas under the ROC curve", label_metrics.auroc, "bootstrap"),
    }),
    "average_precision_macro": Metric("share", True, "class_mean", {
        "multi_class": Definition(
            "mean of the classes' average precisions, one against the rest",
            metrics.average_precision, "basic_bootstrap"),
        "multi_label": Definition(
            "mean of the labels' average precisions", label_metrics.average_precision, "basic_bootstrap"),
    }),
    "auroc/CLASS": Metric("share", True, "class", {
        "multi_class": Definition(
            "probability that an image of the class scores above one of another",
            metrics.auroc, "stratified_bootstrap"),
        "multi_label": Definition(
            "probability that an image with the label scores above one without", label_metrics.auroc, "bootstrap"),
    }),
    "average_precision/CLASS": Metric("share", True, "class", {
        "multi_class": Definition(
            "mean over the class's images of the precision among all that score as high or higher; by chance the "
            "share of the class", metrics.average_precision, "bootstrap"),
        "multi_label": Definition(
            "mean over the images with the label of the precision among all that score as high or higher; by chance "
            "the share of the label", label_metrics.average_precision, "bootstrap"),
    }),
    "sensitivity/CLASS": Metric("share", True, "class", {
        "multi_class": Definition(
            "share of the class's images that are found", metrics.sensitivity, "wilson", "class"),
        "multi_label": Definition(
            "share of the images with the label for which it is answered, at probability 0.5",
            label_metrics.sensitivity, "wilson", "class"),
    }),
    "specificity/CLASS": Metric("share", True, "class", {
        "multi_class": Definition(
            "share of the other classes' images that are not taken for this one",
            metrics.specificity, "wilson", "others"),
        "multi_label": Definition(
            "share of the images without the label for which it is not answered, at probability 0.5",
            label_metrics.specificity, "wilson", "others"),
    }),
    "ece": Metric("share", False, "labels", {
        "multi_class": Definition(
            "mean gap between confidence and accuracy over 15 bins of equal width; without an interval, because each "
            "resample adds its own scatter to the gaps, so that a bootstrap lies above the estimate",
            metrics.expected_calibration_error),
        "multi_label": Definition(
            "mean gap between the confidence in a yes or no and its accuracy, over all decisions and 15 bins of "
            "equal width; without an interval, because a bootstrap lies above the estimate",
            label_metrics.expected_calibration_error),
    }, {"bins": metrics.ECE_BINS, "binning": "equal-width", "no_interval": "a bootstrap of ECE is biased"}),
    "brier": Metric("squared distance", False, "labels", {
        "multi_class": Definition(
            "squared distance of the probabilities from the truth, 0 to 2", metrics.brier_score, "bootstrap"),
        "multi_label": Definition(
            "mean over the labels of the squared distance of the probability from the truth, 0 to 1",
            label_metrics.brier_score, "bootstrap"),
    }),
    "agreement": Metric("share", True, "reference", {
        "multi_class": Definition(
            "share of the images that are answered as fp32 answers them", metrics.agreement, "wilson"),
        "multi_label": Definition(
            "share of the yes/no decisions that are fp32's", label_metrics.agreement, "bootstrap_or_wilson"),
    }),
    "logits_sqnr_db": Metric("dB", True, "reference", _for_both(
        "energy of fp32's logits over the energy of the deviation from them", metrics.logits_sqnr_db, "bootstrap")),
    "size_bytes": Metric("bytes", False, "file", _for_both("size of the ONNX file")),
    "latency_p50_ms": Metric("ms", False, "timing", _for_both(
        "half of the single-image queries are answered within this time")),
    "latency_p90_ms": Metric("ms", False, "timing", _for_both(
        "nine in ten single-image queries are answered within this time")),
    "latency_speedup": Metric("×", True, "timing", _for_both(
        "fp32's median latency over this file's, in the same rounds")),
    "peak_memory_bytes": Metric("bytes", False, "timing", _for_both(
        "highest resident memory of a process that runs this file")),
    "saliency_spearman": Metric("correlation", True, "maps", _for_both(
        "rank correlation of the saliency maps with fp32's", map_similarity.spearman, "bootstrap")),
    "saliency_ssim": Metric("similarity", True, "maps", _for_both(
        "structural similarity of the saliency maps with fp32's", map_similarity.structural_similarity,
        "bootstrap")),
    "saliency_top10_overlap": Metric("share", True, "maps", _for_both(
        "share of fp32's most important tenth of the pixels that is kept", map_similarity.top_overlap,
        "bootstrap_or_wilson")),
    "sanity_spearman": Metric("correlation", False, "randomised", _for_both(
        "rank correlation of the saliency maps' magnitudes with those of the same file after its weights were put in "
        "a random order; near 1 a map shows the image and not what the network learned",
        map_similarity.magnitude_spearman, "bootstrap"),
        {"randomised": "weights of every layer permuted", "draws": 1}),
    "deletion_auc": Metric("probability", False, "perturbed", _for_both(
        "mean probability of the explained class while the most salient pixels go first",
        deletion.deletion_auc, "bootstrap_or_wilson"), {"steps": deletion.STEPS, "fill": "mean colour"}),
    "insertion_auc": Metric("probability", True, "perturbed", _for_both(
        "mean probability of the explained class while the most salient pixels come first",
        deletion.insertion_auc, "bootstrap_or_wilson"), {"steps": deletion.STEPS, "fill": "mean colour"}),
    "pointing_game": Metric("share", True, "masks", {
        "multi_class": Definition(
            "share of the maps whose maximum lies inside the lesion's mask; a map explains fp32's answer, also where "
            "it is wrong", map_similarity.pointing_hits, "wilson"),
        "multi_label": Definition(
            "share of the maps whose maximum lies inside the finding's mask; a map explains the finding that the "
            "mask shows", map_similarity.pointing_hits, "wilson"),
    }),
    "mass_in_mask": Metric("share", True, "masks", {
        "multi_class": Definition(
            "share of the positive relevance that lies inside the lesion's mask; a map explains fp32's answer, also "
            "where it is wrong", map_similarity.mass_in_mask, "bootstrap_or_wilson"),
        "multi_label": Definition(
            "share of the positive relevance that lies inside the finding's mask; a map explains the finding that "
            "the mask shows", map_similarity.mass_in_mask, "bootstrap_or_wilson"),
    }),
    "iou_at_mask_area": Metric("share", True, "masks", {
        "multi_class": Definition(
            "intersection over union of the lesion's mask and the map's highest pixels, as many as the mask has; a "
            "map explains fp32's answer, also where it is wrong",
            map_similarity.iou_at_mask_area, "bootstrap_or_wilson"),
        "multi_label": Definition(
            "intersection over union of the finding's mask and the map's highest pixels, as many as the mask has; a "
            "map explains the finding that the mask shows", map_similarity.iou_at_mask_area, "bootstrap_or_wilson"),
    }),
}  # fmt: skip


def row_name(metric: str) -> str:
    """Return the key in `METRICS` that a measurement's name belongs to: "auroc/polyp" → "auroc/CLASS".

    A name that belongs to no row comes back as it is, so that `METRICS.get(row_name(name))` is None for it.
    """
    family, slash, of_class = metric.partition("/")
    return f"{family}/CLASS" if slash and of_class else metric
