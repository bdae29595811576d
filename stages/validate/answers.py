"""What a file answered to the test split, on disk and as metrics take it: which images count, and why none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import Task
from foundation.arrays import read_arrays, write_arrays
from foundation.errors import UsageError
from foundation.files import JSON
from foundation.metrics import Definition, Metric
from stages.validate.intervals.groups import units_of
from stages.validate.label_metrics import sigmoid
from stages.validate.metrics import log_odds, log_softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]

NO_SCORES = "{} gives the number of a class, no scores"
"""Why a file has no metric that takes how sure it is."""

WHOLE_SPLIT = "the test split"


def decided(logits: Logits, task: Task) -> Labels:
    """Return the answered classes, int64 [n], or the answers to each label as 0 or 1, int64 [n, classes]."""
    if task == "multi_class":
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)
    return np.asarray(logits > 0, dtype=np.int64)  # probability above 0.5


def probabilities(logits: NDArray[np.floating], task: Task) -> Floats:
    """Return the softmax of logits, or each label's sigmoid, float64 [n, classes]."""
    return sigmoid(logits) if task == "multi_label" else np.exp(log_softmax(logits))


@dataclass(frozen=True)
class Predictions:
    """What a variant answered to the test split.

    Attributes:
        variant: its name.
        logits: float32 [n, classes].
        labels: int64 [n], the truth; of a multi-label task int64 [n, classes], 0 or 1.
        path: the `.npz` that holds all of it.
        scored: whether the logits say how sure the file is; False where it gave the number of a class alone.
    """

    variant: str
    logits: Logits
    labels: Labels
    path: Path
    scored: bool = True

    @property
    def task(self) -> Task:
        """The kind of task that the labels belong to."""
        return "multi_class" if self.labels.ndim == 1 else "multi_label"

    def write(self) -> None:
        """Write logits and labels to their path, and what the logits are."""
        write_arrays(
            self.path, {"logits": self.logits, "labels": self.labels, "scored": np.array(self.scored, dtype=np.bool_)}
        )

    @classmethod
    def read(cls, variant: str, path: Path) -> Predictions:
        """Return what `write` wrote.

        Raises:
            UsageError: the file is missing or holds something else.
        """
        logits, labels, scored = read_arrays(path, ("logits", "labels", "scored"))
        fit = logits.ndim == 2 and labels.shape in (logits.shape[:1], logits.shape)
        if not fit or logits.dtype.kind != "f" or labels.dtype.kind not in "iu":
            raise UsageError(
                f"{path}: expected logits [n, classes] and labels [n] or [n, classes], floats and whole numbers, "
                f"found {logits.shape} and {labels.shape} of {logits.dtype} and {labels.dtype}. Delete it and run "
                "`edgeproof validate` again."
            )
        return cls(variant, logits, labels, path, bool(scored))


@dataclass(frozen=True)
class Answers:
    """The answers of a variant, as metrics take them.

    Attributes:
        variant: its name.
        logits: float32 [n, classes].
        labels: int64 [n]; of a multi-label task int64 [n, classes], 0 or 1.
        classes: names of the classes or labels.
        reference_logits: fp32's logits of the same images; None for fp32 itself.
        units: int64 [n], the group that each image belongs to, see `groups.units_of`.
        min_positives: images with and without a label that its AUROC and average precision need; multi-label only.
        present: the classes that are looked at; None for all.
        unscored: the files, of this one and "fp32", that give the number of a class and no scores.
        sample_name: what the images are, for reasons; of a subgroup, a class is told only from `min_positives` on.
    """

    variant: str
    logits: Logits
    labels: Labels
    classes: tuple[str, ...]
    reference_logits: Logits | None
    units: NDArray[np.int64]
    min_positives: int
    present: frozenset[int] | None = None
    unscored: frozenset[str] = frozenset()
    sample_name: str = WHOLE_SPLIT

    @classmethod
    def of(
        cls,
        predictions: Predictions,
        classes: Sequence[str],
        group_names: Sequence[str],
        reference: Predictions | None = None,
        min_positives: int = 1,
    ) -> Answers:
        """Return what a file answered, beside fp32's answers where it is held against them.

        Args:
            predictions: of the file.
            classes: names of the classes or labels.
            group_names: n names of what images belong together by.
            reference: fp32's to the same images.
            min_positives: as of the class.
        """
        both = (predictions, *([reference] if reference else ()))
        return cls(
            predictions.variant,
            predictions.logits,
            predictions.labels,
            tuple(classes),
            reference.logits if reference else None,
            units_of(group_names),
            min_positives,
            unscored=frozenset(one.variant for one in both if not one.scored),
        )

    @property
    def task(self) -> Task:
        """The kind of task that the labels belong to."""
        return "multi_class" if self.labels.ndim == 1 else "multi_label"

    @cached_property
    def scores(self) -> Floats:
        """What images are ranked by for each class or label, float64 [n, classes]."""
        return log_odds(self.logits) if self.task == "multi_class" else self.logits.astype(np.float64)

    @property
    def confidence(self) -> Floats:
        """The probability that the file gives to each of its answers, float64 [n, answers]."""
        shares = probabilities(self.logits, self.task)
        return shares.max(axis=1, keepdims=True) if self.task == "multi_class" else np.maximum(shares, 1 - shares)

    @property
    def counted(self) -> tuple[int, ...]:
        """The classes that a mean over classes takes: all; of a multi-label task those that occur often enough."""
        if self.task == "multi_class":
            return tuple(sorted(self.looked_at))
        return tuple(index for index in sorted(self.looked_at) if not self._too_rare(index))

    @property
    def looked_at(self) -> frozenset[int]:
        """The classes that are measured one by one, and that a mean over classes may take."""
        return frozenset(range(len(self.classes))) if self.present is None else self.present

    def of_present_classes(self) -> Answers:
        """Return the answers with an eye on the classes alone that occur among the labels."""
        occurring = np.unique(self.labels) if self.task == "multi_class" else np.flatnonzero(self.labels.any(axis=0))
        return replace(self, present=frozenset(occurring.tolist()))

    def positive(self, class_index: int) -> NDArray[np.bool_]:
        """Return which images have a class or label, bool [n]."""
        has: NDArray[np.bool_] = (
            self.labels == class_index if self.task == "multi_class" else self.labels[:, class_index] == 1
        )
        return has

    def sample(self, definition: Definition, class_index: int | None) -> NDArray[np.bool_]:
        """Return which images a value is taken over, bool [n]."""
        if class_index is None or definition.sample == "all":
            return np.ones(len(self.labels), dtype=np.bool_)
        positive = self.positive(class_index)
        return positive if definition.sample == "class" else ~positive

    def of_images(self, chosen: NDArray[np.bool_], name: str) -> Answers:
        """Return the answers to some of the images, bool [n], and what these are called."""
        reference = None if self.reference_logits is None else self.reference_logits[chosen]
        # The numbers keep their order, so that groups of one image still are 0, 1, 2…
        _, units = np.unique(self.units[chosen], return_inverse=True)
        return replace(
            self,
            logits=self.logits[chosen],
            labels=self.labels[chosen],
            reference_logits=reference,
            units=units,
            sample_name=name,
        )

    def why_not(self, metric: Metric, class_index: int | None) -> str:
        """Return why a metric cannot be said of these images; "" where it can."""
        if metric.inputs == "reference" and self.reference_logits is None:
            return f"{self.variant} is the reference itself"
        if metric.of_scores and self.variant in self.unscored:
            return NO_SCORES.format("the model")
        if metric.of_scores and metric.inputs == "reference" and "fp32" in self.unscored:
            return NO_SCORES.format("fp32")
        if metric.inputs == "class_mean":
            return self._why_no_mean()
        if class_index is None:
            return ""
        definition = metric.definitions[self.task]
        if self.sample_name != WHOLE_SPLIT and (rare := self._too_rare(class_index)):
            return rare
        if definition.sample == "all":
            return self._why_unordered(class_index)
        if not self.sample(definition, class_index).any():
            return f"{self.sample_name} has no image that this share could be taken of"
        return ""

    def remarks(self, metric: Metric) -> dict[str, JSON]:
        """Return what a reader of a measurement must know of its sample: labels that a mean leaves out."""
        if metric.inputs != "class_mean" or len(self.counted) == len(self.classes):
            return {}
        if self.task == "multi_class":
            return {"classes": f"{len(self.counted)} of {len(self.classes)}"}
        rare = [name for index, name in enumerate(self.classes) if index not in self.counted]
        return {"labels": f"{len(self.counted)} of {len(self.classes)}", "too_rare": rare}

    def _why_no_mean(self) -> str:
        if self.task == "multi_label":
            if self.counted:
                return ""
            return f"no label has {self.min_positives} positive and as many negative images in {self.sample_name}"
        # A mean over fewer classes is another quantity than the one that the gates were written for.
        missing = [
            name
            for index, name in enumerate(self.classes)
            if index in self.looked_at and not self.positive(index).any()
        ]
        return f"{self.sample_name} has no image of {', '.join(missing)}" if missing else ""

    def _why_unordered(self, class_index: int) -> str:
        """Return why images with and without a class cannot be compared."""
        if self.task == "multi_label":
            return self._too_rare(class_index)
        positives = int(self.positive(class_index).sum())
        if 0 < positives < len(self.labels):
            return ""
        return f"{self.sample_name} has {'only' if positives else 'no'} images of {self.classes[class_index]}"

    def _too_rare(self, class_index: int) -> str:
        positives = int(self.positive(class_index).sum())
        for count, kind in ((positives, "positive"), (len(self.labels) - positives, "negative")):
            if count < self.min_positives:
                images = f"only {count} {kind} image{'' if count == 1 else 's'}" if count else f"no {kind} image"
                return f"{images} in {self.sample_name}; min_positives asks for {self.min_positives}"
        return ""
