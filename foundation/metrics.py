"""The table of metrics: everything that may stand in `measurements.json`, and how it is read.

A metric is one row here. Gates and tolerances take the known names from it, measurements their unit, the comparison
its direction, the report the table, the heading, the legend and the unit that a number is written in; so a new row
appears in all of them. What computes a metric stands above, under the same name and in the same order, in
`stages.validate.COMPUTATIONS`: this room knows no arrays. "file" and "timing" metrics have no row there, because they
are measured, not computed, and "calibration", "threshold" and "changed" metrics have none, because each kind is
computed for all its rows at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from foundation.artifacts import Task


Inputs = Literal[
    "labels",
    "class",
    "class_mean",
    "reference",
    "maps",
    "randomised",
    "perturbed",
    "masks",
    "calibration",
    "threshold",
    "changed",
    "file",
    "timing",
]
Sample = Literal["all", "class", "others"]
TableName = Literal[
    "files",
    "answers",
    "classes",
    "likeness",
    "faithfulness",
    "in_mask",
    "sanity",
    "calibration",
    "thresholds",
    "robustness",
    "latency",
]


@dataclass(frozen=True)
class Definition:
    """What a metric is for one kind of task.

    Attributes:
        meaning: one line for a reader who doesn't know the metric.
        legend: what stands below the report's table; "" where another row's legend or the heading says it.
        sample: the images that a "class" metric is a share of, and so its n.
    """

    meaning: str
    legend: str = ""
    sample: Sample = "all"


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        unit: as it stands in a measurement.
        higher_is_better: the direction a gate and a comparison take.
        inputs: what it is computed from: "labels": logits and labels; "class": the same, for one class; "class_mean":
            the mean over the classes; "reference": logits and fp32's logits; "maps": maps and fp32's maps;
            "randomised": maps and those of the same file with weights that know nothing; "perturbed": the file's
            answers to images that lose or gain pixels; "masks": maps and masks; "calibration":
            the line of the truth on the log-odds, see `stages.validate.calibration`; "threshold": answers at
            thresholds that were chosen with fp32, see `stages.validate.at_threshold`; "changed": answers to images
            that were made worse, see `stages.validate.robustness`. "file" and "timing" are measured.
        table: the report's table, or part of one, in which it is a column or has rows of its own.
        heading: there.
        definitions: the kinds of task that the metric exists for, and what it is there.
        shown_as: the unit that its numbers are written in; None: its own.
        against_fp32: whether it compares with fp32, so that fp32 itself is the reference.
        of_scores: whether it takes how sure a file is; a file that answers with the number of a class has none.
    """

    unit: str
    higher_is_better: bool
    inputs: Inputs
    table: TableName
    heading: str
    definitions: Mapping[Task, Definition]
    shown_as: str | None = None
    against_fp32: bool = False
    of_scores: bool = False


def _for_both(meaning: str, legend: str = "") -> dict[Task, Definition]:
    """Return one definition for every kind of task."""
    definition = Definition(meaning, legend)
    return {"multi_class": definition, "multi_label": definition}


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
    "logits_sqnr_db": Metric("dB", True, "reference", "answers", "SQNR of the logits", _for_both(
        "energy of fp32's logits over the energy of the deviation from them",
        "SQNR: power of fp32's logits over the power of the difference; 20 dB is an error of a tenth."),
        against_fp32=True, of_scores=True),
    "calibration_slope/CLASS": Metric("ratio", True, "calibration", "calibration", "Calibration slope", _for_both(
        "slope of the truth on the log-odds; 1 is calibrated, below 1 the file is too sure, above 1 not sure enough",
        "Slope, 1 is best: below 1 a file is too sure of itself. Intercept, 0 is best: below 0 it gives "
        "the class more probability than it has. Classes of fewer than ten images are left out."), of_scores=True),
    "calibration_intercept/CLASS": Metric(
        "log-odds", True, "calibration", "calibration", "Calibration intercept", _for_both(
        "intercept of the truth on the log-odds with the slope held at 1; 0 is calibrated, below 0 the class is "
        "given too much probability"), of_scores=True),
    "sensitivity_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "Sensitivity", _for_both(
        "share of the class's images, or patients, that reach the threshold chosen with fp32"), of_scores=True),
    "specificity_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "Specificity", _for_both(
        "share of the other images, or patients, that stay below the threshold chosen with fp32"), of_scores=True),
    "ppv_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "PPV", _for_both(
        "probability of the class where the threshold is reached, at the stated prevalence"), of_scores=True),
    "npv_at_threshold/CLASS": Metric("share", True, "threshold", "thresholds", "NPV", _for_both(
        "probability of another class where it is not reached, at the stated prevalence"), of_scores=True),
    "lr_positive_at_threshold/CLASS": Metric("ratio", True, "threshold", "thresholds", "LR+", _for_both(
        "sensitivity over 1 − specificity: what reaching the threshold multiplies the odds by"), of_scores=True),
    "lr_negative_at_threshold/CLASS": Metric("ratio", False, "threshold", "thresholds", "LR−", _for_both(
        "1 − sensitivity over specificity: what staying below multiplies the odds by"), of_scores=True),
    "own_threshold/CLASS": Metric("probability", True, "threshold", "thresholds", "Own threshold", _for_both(
        "the threshold that the rule would pick for this file on validation images; neither high nor low is good",
        "Own threshold: what the rule would pick for this file; near fp32's the threshold is still right."),
        of_scores=True),
    "robust_accuracy": Metric("share", True, "changed", "robustness", "Accuracy", _for_both(
        "accuracy on images made worse by JPEG, blur, noise, brightness or rotation, at one of five strengths",
        "Every file sees the same images; strengths 1 to 5 are those of ImageNet-C, of rotations 5 to 30 degrees.")),
    "robust_agreement": Metric("share", True, "changed", "robustness", "Agreement with fp32", _for_both(
        "share of the answers to images that were made worse which are fp32's"), against_fp32=True),
    "size_bytes": Metric("bytes", False, "file", "files", "Size", _for_both("size of the ONNX file")),
    "latency_p50_ms": Metric("ms", False, "timing", "latency", "p50", _for_both(
        "half of the queries are answered within this time",
        "p50, p90 and p99: half, nine tenths and 99 of 100 calls were at least this fast.")),
    "latency_p90_ms": Metric("ms", False, "timing", "latency", "p90", _for_both(
        "nine in ten queries are answered within this time")),
    "latency_p99_ms": Metric("ms", False, "timing", "latency", "p99", _for_both(
        "99 of 100 queries are answered within this time")),
    "latency_speedup": Metric("×", True, "timing", "latency", "Speed-up", _for_both(
        "fp32's latency over this file's, the geometric mean over fresh processes that took turns",
        "Speed-up: fp32's time over the variant's, the geometric mean over fresh processes that took turns; where "
        "its interval holds 1, the two are not distinguishable."), against_fp32=True),
    "latency_against_kernel": Metric("×", True, "timing", "latency", "Against the kernel", _for_both(
        "time of a fixed piece of arithmetic over this file's, as the speed-up is taken",
        "Against the kernel: the time of a fixed piece of arithmetic over the file's; it falls where every file got "
        "slower, and stays on a slower machine.")),
    "throughput_images_per_s": Metric("images/s", True, "timing", "latency", "Throughput", _for_both(
        "images that a process answers in a second, one query after the other")),
    "preprocessing_ms": Metric("ms", False, "timing", "latency", "Preprocessing", _for_both(
        "time from the pixels of a query's images to the input tensor",
        "Preprocessing, from pixels to the input tensor, is in none of the other times.")),
    "load_ms": Metric("ms", False, "timing", "latency", "Load", _for_both(
        "time from the file to a session that can be asked",
        "Load: from the file to a session; first: the session's first query.")),
    "first_inference_ms": Metric("ms", False, "timing", "latency", "First", _for_both(
        "time of a session's first query")),
    "peak_memory_bytes": Metric("bytes", False, "timing", "latency", "Peak memory", _for_both(
        "highest resident memory of a process that runs this file, less what it held before it opened the file",
        "Peak memory: without what Python and ONNX Runtime take by themselves.")),
    "saliency_spearman": Metric("correlation", True, "maps", "likeness", "Spearman", _for_both(
        "rank correlation of the saliency maps with fp32's"), against_fp32=True),
    "saliency_ssim": Metric("similarity", True, "maps", "likeness", "SSIM", _for_both(
        "structural similarity of the saliency maps with fp32's"), against_fp32=True),
    "saliency_top10_overlap": Metric("share", True, "maps", "likeness", "Top-10 % overlap", _for_both(
        "share of fp32's most important tenth of the pixels that is kept"), against_fp32=True),
    "sanity_spearman": Metric("correlation", False, "randomised", "sanity", "Sanity check", _for_both(
        "rank correlation of the saliency maps' magnitudes with those of the same file after its weights were put in "
        "a random order; near 1 a map shows the image and not what the network learned",
        "fp32's weights are put in a random order, layer by layer, and the maps of both files compared: the mean "
        "over the images of the rank correlation of the maps' magnitudes; low is good. A method that stays near 1 "
        "shows the image and not what the network learned. Random map and centre prior are held against the same "
        "maps: what a map scores that knows neither. Intervals are those of the images, for one such order.")),
    "deletion_auc": Metric("probability", False, "perturbed", "faithfulness", "Deletion AUC", _for_both(
        "mean probability of the explained class while the most salient pixels go first",
        "Deletion AUC, low is good, and insertion AUC, high is good: mean probability that the file itself gives the "
        "explained class while the map's highest pixels go first, or come first."), of_scores=True),
    "insertion_auc": Metric("probability", True, "perturbed", "faithfulness", "Insertion AUC", _for_both(
        "mean probability of the explained class while the most salient pixels come first"), of_scores=True),
    "pointing_game": Metric("share", True, "masks", "in_mask", "Pointing game", {
        "multi_class": Definition(
            "share of the maps whose maximum lies inside the lesion's mask, of pixels that share it their share; "
            "a map explains fp32's answer, also where "
            "it is wrong", "Pointing game: share of images whose map peaks inside the lesion."),
        "multi_label": Definition(
            "share of the maps whose maximum lies inside the finding's mask, of pixels that share it their share; "
            "a map explains the finding that the "
            "mask shows", "Pointing game: share of images whose map peaks inside the finding."),
    }),
    "mass_in_mask": Metric("share", True, "masks", "in_mask", "Mass in mask", {
        "multi_class": Definition(
            "share of the positive relevance that lies inside the lesion's mask; a map explains fp32's answer, also "
            "where it is wrong", "Mass in mask: share of the map's weight inside the lesion."),
        "multi_label": Definition(
            "share of the positive relevance that lies inside the finding's mask; a map explains the finding that "
            "the mask shows", "Mass in mask: share of the map's weight inside the finding."),
    }),
    "iou_at_mask_area": Metric("share", True, "masks", "in_mask", "IoU at mask area", {
        "multi_class": Definition(
            "intersection over union of the lesion's mask and the map's highest pixels, as many as the mask has; a "
            "map explains fp32's answer, also where it is wrong",
            "IoU at mask area: of the lesion and as many of the map's highest pixels as it has."),
        "multi_label": Definition(
            "intersection over union of the finding's mask and the map's highest pixels, as many as the mask has; a "
            "map explains the finding that the mask shows",
            "IoU at mask area: of the finding and as many of the map's highest pixels as it has."),
    }),
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
