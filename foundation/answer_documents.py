"""What validation leaves beside the measurements, for whoever shows a run: changed answers, curves, the machine.

Validation computes all of it from the shipped files' own answers; the report draws it and computes nothing. Each
document is read in types here, where both the stage that writes and the report that reads can see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import UsageError
from foundation.files import write_json
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Outcome = Literal["mended", "broken", "otherwise"]

_AGAIN = "Delete it and run `edgeproof validate` again."
_MOST_IMAGES = 1 << 40
"""In one cell of a matrix; no data set comes near it."""


@dataclass(frozen=True)
class LedgerRow:
    """One answer of a variant that is not fp32's.

    Attributes:
        variant: its name.
        image: the image's handle.
        patient: the patient's, "" where the data name none.
        label: the label that was decided; "" where an image has one class.
        truth: name of the true class; of a label "yes" or "no".
        fp32_answer: likewise.
        variant_answer: likewise.
        fp32_probability: that fp32 gives to its own answer; None of a file that gives the number of a class alone.
        variant_probability: that the variant gives to its own, likewise.
        outcome: whether the variant mended fp32's answer, broke it, or both are wrong in different ways.
    """

    variant: str
    image: str
    patient: str
    label: str
    truth: str
    fp32_answer: str
    variant_answer: str
    fp32_probability: float | None
    variant_probability: float | None
    outcome: Outcome

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class LedgerCounts:
    """How a variant's answers moved, by answer, by image and by patient; an image is right if all of it is.

    Attributes:
        variant: its name.
        answers: how many were compared: one per image, or one per image and label.
        answers_changed: how many are not fp32's.
        images: how many there are.
        images_changed: on which some answer changed.
        images_broken: right with fp32, wrong with the variant.
        images_mended: the other way round.
        mcnemar_p: exact two-sided p that as many would break as be mended, image by image; it takes images for
            independent.
        patients: how many there are; None where the data name none, and then likewise below.
        patients_changed: on whom some answer changed.
        patients_worse: with more images broken than mended.
        patients_better: with more mended than broken.
        patients_p: exact two-sided p of the sign test over these two, which patients with many images do not upset.
    """

    variant: str
    answers: int
    answers_changed: int
    images: int
    images_changed: int
    images_broken: int
    images_mended: int
    mcnemar_p: float
    patients: int | None
    patients_changed: int | None
    patients_worse: int | None
    patients_better: int | None
    patients_p: float | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class ChangesDocument:
    """`changes.json`: the counts of every variant, and every changed answer."""

    format_version: Literal[1]
    variants: tuple[LedgerCounts, ...]
    changes: tuple[LedgerRow, ...]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies in one part of 0…1.

    Attributes:
        low: the bin holds probabilities above it…
        high: …up to it.
        answers: how many there are.
        confidence: mean of their probabilities.
        right: share of them that are right.
        ci95: of that share, by groups of images where there are any; None where these are too few.
    """

    low: float
    high: float
    answers: int
    confidence: float
    right: float
    ci95: tuple[float, float] | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class ReliabilityDocument:
    """`reliability.json`: the bins of every variant's reliability diagram that are not empty."""

    format_version: Literal[1]
    bins: int
    variants: Mapping[str, tuple[Bin, ...]]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class OperatingDot:
    """Where a file stands on its curves as it answers: by the largest score, or at probability 0.5.

    Attributes:
        false_positive: share of the others that it takes for the class.
        sensitivity: share of the class that it finds.
        precision: share of what it takes for the class that is; None where it takes nothing for it.
    """

    false_positive: float
    sensitivity: float
    precision: float | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Curves:
    """The ROC and the precision-recall curve of one file and class, thinned to what a chart can show.

    Attributes:
        variant: the file.
        of_class: the class, against all others, or the label.
        positives: images of it.
        negatives: the others.
        roc: (share of the others above a threshold, share of the class above it), from (0, 0) to (1, 1).
        precision_recall: (recall, precision), by falling threshold.
        dot: where the file stands as it answers.
    """

    variant: str
    of_class: str
    positives: int
    negatives: int
    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    dot: OperatingDot

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Confusion:
    """How often a file gave which answer.

    Attributes:
        variant: the file.
        counts: [truth][answer], the images of each class by their answer; of a multi-label task one row per label:
            answered no and rightly, yes and wrongly, no and wrongly, yes and rightly.
        minus_fp32: counts less fp32's; None of fp32 itself.
    """

    variant: str
    counts: tuple[tuple[int, ...], ...]
    minus_fp32: tuple[tuple[int, ...], ...] | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class AnswersInDetail:
    """`answers.json`: what stands behind the shares.

    Attributes:
        format_version: of the file; 1 also told which files no other beats, and so held times.
        confusions: one per file.
        curves: by class and file; none of a file that gives no scores.
        doubts: reasons to doubt that fp32 was run as it was meant to be, as sentences.
        classes_got_worse: variant → the classes whose sensitivity's interval against fp32 lies below 0.
    """

    format_version: Literal[2]
    confusions: tuple[Confusion, ...]
    curves: tuple[Curves, ...]
    doubts: tuple[str, ...]
    classes_got_worse: Mapping[str, tuple[str, ...]]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class MachineNote:
    """What `machine.json` says that a report shows.

    Attributes:
        warning: what a reader of the times must know; None where the machine was quiet.
        others_share: share of the cores that other processes took meanwhile; None where it is not told.
        ended_utc: when the measuring ended, ISO 8601; None of a run of before it was recorded.
        commit: of the folder that the run was started in; None where that is no git checkout.
    """

    warning: str | None
    others_share: float | None
    ended_utc: str | None = None
    commit: str | None = None


def read_changes(path: Path) -> ChangesDocument:
    """Return what validation wrote of changed answers.

    Raises:
        UsageError: the file is missing or holds something else; likewise below.
    """
    return read_typed(path, _changes(), "the changed answers", _AGAIN, (1,))


def read_reliability(path: Path) -> ReliabilityDocument:
    """Return the bins of the reliability diagrams."""
    return read_typed(path, _reliability(), "reliability diagrams", _AGAIN, (1,))


def write_answers(path: Path, found: AnswersInDetail) -> None:
    """Write it as JSON, atomically."""
    write_json(path, _answers().dump_python(found, mode="json"))


def read_answers(path: Path) -> AnswersInDetail:
    """Return what `write_answers` wrote; its matrices are all of one shape."""
    found = read_typed(path, _answers(), "confusion matrices and curves", _AGAIN, (2,))
    matrices = [matrix for one in found.confusions for matrix in (one.counts, one.minus_fp32) if matrix is not None]
    shapes = {tuple(len(row) for row in matrix) for matrix in matrices}
    largest = max((abs(count) for matrix in matrices for row in matrix for count in row), default=0)
    if len(shapes) > 1 or any(len(set(shape)) > 1 for shape in shapes) or largest > _MOST_IMAGES:
        raise UsageError(f"{path}: expected confusion matrices of one shape and of images, found others. {_AGAIN}")
    return found


def read_machine(path: Path) -> MachineNote:
    """Return what is shown of the machine's state."""
    return read_typed(path, _machine(), "the machine's state", _AGAIN, (1,))


@cache
def _changes() -> TypeAdapter[ChangesDocument]:
    from pydantic import TypeAdapter

    return TypeAdapter(ChangesDocument)


@cache
def _reliability() -> TypeAdapter[ReliabilityDocument]:
    from pydantic import TypeAdapter

    return TypeAdapter(ReliabilityDocument)


@cache
def _answers() -> TypeAdapter[AnswersInDetail]:
    from pydantic import TypeAdapter

    return TypeAdapter(AnswersInDetail)


@cache
def _machine() -> TypeAdapter[MachineNote]:
    from pydantic import TypeAdapter

    return TypeAdapter(MachineNote)
