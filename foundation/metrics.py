"""The table of metrics: everything that may stand in `measurements.json`, and how it is read.

A metric is one row here. Gates and tolerances take the known names from it, measurements their unit, the comparison
its direction, the report the table, the heading, the legend and the unit that a number is written in; so a new row
appears in all of them. What computes a metric stands above, under the same name and in the same order, in
`stages.validate.COMPUTATIONS`: this room knows no arrays. "file" and "timing" metrics have no row there, because they
are measured, not computed, and "calibration", "threshold", "changed" and "place" metrics have none, because each kind
is computed for all its rows at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from foundation.metric import Definition, Inputs, Metric, Sample, TableName, for_both
from foundation.place_metrics import PLACE_METRICS
from foundation.saliency_metrics import SALIENCY_METRICS

if TYPE_CHECKING:
    from foundation.artifacts import Task

__all__ = [
    "DECIDING_METRICS",
    "METRICS",
    "Definition",
    "Inputs",
    "Metric",
    "Sample",
    "TableName",
    "row_name",
    "row_of",
    "rows_of",
]

_ECE_LEGEND = "ECE and Brier score: lower is better; ECE has no interval, because a finite sample biases it upwards."

METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("share", True, "labels", "answers", "Accuracy", {
        "multi_class": Definition("share of the images that are answered correctly"),
        "multi_label": Definition(
            "mean over the labels of the share of right yes/no decisions at probability 0.5",
            "Accuracy and agreement: share of all yes/no decisions, at probability 0.5."),
    }),
    "balanced_accuracy": Metric("share", True, "class_mean", "answers", "Balanced accuracy", {
        "multi_class": Definition("mean of the classes' sensitivities"),
        "multi_label": Definition(
            "mean over the labels of half the sum of sensitivity and specificity at probability 0.5",
            "Balanced accuracy: mean over the labels of half the sum of sensitivity and specificity."),
    }),
    "auroc_macro": Metric("share", True, "class_mean", "answers", "AUROC, macro", {
        "multi_class": Definition("mean of the classes' areas under the ROC curve, one against the rest"),
        "multi_label": Definition("mean of the labels' areas under the ROC curve"),
    }, "probability", of_scores=True),
    "average_precision_macro": Metric("share", True, "class_mean", "answers", "Average precision, macro", {
        "multi_class": Definition("mean of the classes' average precisions, one against the rest"),
        "multi_label": Definition("mean of the labels' average precisions"),
    }, "probability", of_scores=True),
    "auroc/CLASS": Metric("share", True, "class", "classes", "AUROC", {
        "multi_class": Definition(
            "probability that an image of the class scores above one of another",
            "One class against all others; an area of 1 is bounded by the smaller class."),
        "multi_label": Definition(
            "probability that an image with the label scores above one without",
            "Images with the label against images without; chance scores 0.5."),
    }, "probability", of_scores=True),
    "average_precision/CLASS": Metric("share", True, "class", "classes", "Average precision", {
        "multi_class": Definition(
            "mean over the class's images of the precision among all that score as high or higher; by chance the "
            "share of the class",
            "Mean precision over a class's images, one class against all others; chance scores the class's share."),
        "multi_label": Definition(
            "mean over the images with the label of the precision among all that score as high or higher; by chance "
            "the share of the label",
            "Mean precision over the images with the label; chance scores the label's share of the images."),
    }, "probability", of_scores=True),
    "sensitivity/CLASS": Metric("share", True, "class", "classes", "Sensitivity", {
        "multi_class": Definition(
            "share of the class's images that are found",
            "Share of a class's images that were called that class.", "class"),
        "multi_label": Definition(
            "share of the images with the label for which it is answered, at probability 0.5",
            "Share of the images with the label that were answered yes (above 0.5).", "class"),
    }),
    "specificity/CLASS": Metric("share", True, "class", "classes", "Specificity", {
        "multi_class": Definition(
            "share of the other classes' images that are not taken for this one",
            "Share of the other classes' images that were not called that class.", "others"),
        "multi_label": Definition(
            "share of the images without the label for which it is not answered, at probability 0.5",
            "Share of the images without the label that were answered no.", "others"),
    }),
    "ece": Metric("share", False, "labels", "answers", "ECE", {
        "multi_class": Definition(
            "mean gap between confidence and accuracy over 15 bins of equal width; without an interval, because "
            "scatter alone opens gaps: `calibrated_would_show` is what it does to a perfectly calibrated file",
            _ECE_LEGEND),
        "multi_label": Definition(
            "mean gap between the confidence in a yes or no and its accuracy, over all decisions and 15 bins of "
            "equal width; without an interval, because scatter alone opens gaps: `calibrated_would_show`",
            _ECE_LEGEND),
    }, of_scores=True),
    "brier": Metric("squared distance", False, "labels", "answers", "Brier score", {
        "multi_class": Definition("squared distance of the probabilities from the truth, 0 to 2"),
        "multi_label": Definition(
            "mean over the labels of the squared distance of the probability from the truth, 0 to 1"),
    }, of_scores=True),
    "agreement": Metric("share", True, "reference", "answers", "Agreement with fp32", {
        "multi_class": Definition(
            "share of the images that are answered as fp32 answers them",
            "Agreement: share of images with fp32's top-1 answer."),
        "multi_label": Definition("share of the yes/no decisions that are fp32's"),
    }, against_fp32=True),
    "logits_sqnr_db": Metric("dB", True, "reference", "answers", "SQNR of the logits", for_both(
        "energy of fp32's logits over the energy of the deviation from them",
        "SQNR: power of fp32's logits over the power of the difference; 20 dB is an error of a tenth."),
        against_fp32=True, of_scores=True),
    "calibration_slope/CLASS": Metric("ratio", True, "calibration", "calibration", "Calibration slope", for_both(
        "slope of the truth on the log-odds; 1 is calibrated, below 1 the file is too sure, above 1 not sure enough",
        "Slope, 1 is best: below 1 a file is too sure of itself. Intercept, 0 is best: below 0 it gives "
        "the class more probability than it has. Classes of fewer than ten images are left out."), of_scores=True),
    "calibration_intercept/CLASS": Metric(
        "log-odds", True, "calibration", "calibration", "Calibration intercept", for_both(
        "intercept of the truth on the log-odds with the slope held at 1; 0 is calibrated, below 0 the class is "
        "given too much probability"), of_scores=True),
    "sensitivity_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "Sensitivity", for_both(
        "share of the class's images, or patients, that reach the threshold chosen with fp32"), of_scores=True),
    "specificity_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "Specificity", for_both(
        "share of the other images, or patients, that stay below the threshold chosen with fp32"), of_scores=True),
    "ppv_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "PPV", for_both(
        "probability of the class where the threshold is reached, at the stated prevalence"), of_scores=True),
    "npv_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "NPV", for_both(
        "probability of another class where it is not reached, at the stated prevalence"), of_scores=True),
    "lr_positive_at_threshold/CLASS": Metric("ratio", True, "threshold", "thresholds", "LR+", for_both(
        "sensitivity over 1 − specificity: what reaching the threshold multiplies the odds by"), of_scores=True),
    "lr_negative_at_threshold/CLASS": Metric("ratio", False, "threshold", "thresholds", "LR−", for_both(
        "1 − sensitivity over specificity: what staying below multiplies the odds by"), of_scores=True),
    "own_threshold/CLASS": Metric("probability", True, "threshold", "thresholds", "Own threshold", for_both(
        "the threshold that the rule would pick for this file on validation images; neither high nor low is good",
        "Own threshold: what the rule would pick for this file; near fp32's the threshold is still right."),
        of_scores=True),
    "robust_accuracy": Metric("share", True, "changed", "robustness", "Accuracy", for_both(
        "accuracy on images made worse by JPEG, blur, noise, brightness or rotation, at one of five strengths",
        "Every file sees the same images; strengths 1 to 5 are those of ImageNet-C, of rotations 5 to 30 degrees.")),
    "robust_agreement": Metric("share", True, "changed", "robustness", "Agreement with fp32", for_both(
        "share of the answers to images that were made worse which are fp32's"), against_fp32=True),
    "size_bytes": Metric("bytes", False, "file", "files", "Size", for_both("size of the ONNX file")),
    "size_against_fp32": Metric("ratio", False, "file", "files", "Size, × fp32", for_both(
        "size of the ONNX file over fp32's"), against_fp32=True),
    "latency_p50_ms": Metric("ms", False, "timing", "latency", "p50", for_both(
        "half of the queries are answered within this time",
        "p50, p90 and p99: half, nine tenths and 99 of 100 calls were at least this fast.")),
    "latency_p90_ms": Metric("ms", False, "timing", "latency", "p90", for_both(
        "nine in ten queries are answered within this time")),
    "latency_p99_ms": Metric("ms", False, "timing", "latency", "p99", for_both(
        "99 of 100 queries are answered within this time")),
    "latency_speedup": Metric("×", True, "timing", "latency", "Speed-up", for_both(
        "fp32's latency over this file's, the geometric mean over fresh processes that took turns",
        "Speed-up: fp32's time over the variant's, the geometric mean over fresh processes that took turns; where "
        "its interval holds 1, the two are not distinguishable."), against_fp32=True),
    "latency_against_kernel": Metric("×", True, "timing", "latency", "Against the kernel", for_both(
        "time of a fixed piece of arithmetic over this file's, as the speed-up is taken",
        "Against the kernel: the time of a fixed piece of arithmetic over the file's; it falls where every file got "
        "slower, and stays on a slower machine.")),
    "throughput_images_per_s": Metric("images/s", True, "timing", "latency", "Throughput", for_both(
        "images that a process answers in a second, one query after the other")),
    "preprocessing_ms": Metric("ms", False, "timing", "latency", "Preprocessing", for_both(
        "time from the pixels of a query's images to the input tensor",
        "Preprocessing, from pixels to the input tensor, is in none of the other times.")),
    "load_ms": Metric("ms", False, "timing", "latency", "Load", for_both(
        "time from the file to a session that can be asked",
        "Load: from the file to a session; first: the session's first query.")),
    "first_inference_ms": Metric("ms", False, "timing", "latency", "First", for_both(
        "time of a session's first query")),
    "peak_memory_bytes": Metric("bytes", False, "timing", "latency", "Peak memory", for_both(
        "highest resident memory of a process that runs this file, less what it held before it opened the file",
        "Peak memory: without what Python and ONNX Runtime take by themselves.")),
    **SALIENCY_METRICS,
    **PLACE_METRICS,
}  # fmt: skip

DECIDING_METRICS: Mapping[Task, str] = {"multi_class": "balanced_accuracy", "multi_label": "auroc_macro"}
"""The one measure of the answers that stands beside size and latency; of labels the AUROC, because most are too rare
to reach probability 0.5."""


def row_name(metric: str) -> str:
    """Return the key in `METRICS` that a measurement's name belongs to: "auroc/polyp" → "auroc/CLASS".

    A name that belongs to no row comes back as it is, so that `METRICS.get(row_name(name))` is None for it.
    """
    family, slash, of_class = metric.partition("/")
    return f"{family}/CLASS" if slash and of_class else metric


def row_of(metric: str) -> Metric | None:
    """Return the row that a measurement's name belongs to; None for the name of another version."""
    return METRICS.get(row_name(metric))


def rows_of(table: TableName, task: Task) -> dict[str, Metric]:
    """Return the rows of one of the report's tables that exist for a kind of task, by name, in their order."""
    return {name: row for name, row in METRICS.items() if row.table == table and task in row.definitions}
