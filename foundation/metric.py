"""What one row of the table of metrics says."""

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
    "cascade",
    "perturbed",
    "masks",
    "noise",
    "path",
    "calibration",
    "threshold",
    "changed",
    "file",
    "timing",
    "place",
]
Sample = Literal["all", "class", "others"]
TableName = Literal[
    "files",
    "answers",
    "classes",
    "likeness",
    "faithfulness",
    "in_mask",
    "shape",
    "sanity",
    "cascade",
    "calibration",
    "thresholds",
    "robustness",
    "latency",
    "places",
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
            the mean over the classes; "reference": logits and fp32's logits; "maps": maps, and fp32's maps too where
            the metric is `against_fp32`; "randomised": maps and those of the same file with weights that know
            nothing; "perturbed": the file's answers to images that lose or gain pixels; "masks": maps and masks;
            "cascade": maps and those of the same file whose topmost layers know nothing; "noise": maps, and those of
            noisy copies of the images; "path": maps, and what they should add up to;
            "calibration": the line of the truth on the log-odds, see `stages.validate.calibration`; "threshold":
            answers at thresholds that were chosen with fp32, see `stages.validate.at_threshold`; "changed": answers
            to images that were made worse, see `stages.validate.robustness`. "place": a
            file's answers at a place and its own here. "file" and "timing" are measured.
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


def for_both(meaning: str, legend: str = "") -> dict[Task, Definition]:
    """Return one definition for every kind of task."""
    definition = Definition(meaning, legend)
    return {"multi_class": definition, "multi_label": definition}
