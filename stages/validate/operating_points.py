"""Operating points: each class's threshold, chosen once with fp32 on validation images, and kept for every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foundation.sealed_files import refuse_broken_seal, write_sealed
from foundation.settings import Settings
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_MEND = "Delete it and run `edgeproof validate` again."


class OperatingPointSettings(Settings):
    """How each class's threshold is chosen, and what its figures are asked for."""

    rule: Literal["youden", "sensitivity", "specificity"] = Field(
        "youden",
        description="the threshold with the largest sensitivity + specificity, or the one with the best other half "
        "that keeps `floor`; chosen with fp32 on the validation images",
    )
    floor: float | None = Field(
        None, gt=0.0, le=1.0, description="least sensitivity, or specificity, on the validation images; not of youden"
    )
    prevalence: float | None = Field(
        None, gt=0.0, lt=1.0, description="that PPV and NPV are told for; null: each class's share of the test images"
    )
    patient_rule: Literal["max", "mean"] = Field(
        "max", description="a patient's score: the largest of its images' probabilities, or their mean"
    )
    classes: Annotated[tuple[str, ...] | None, Field(strict=False)] = Field(
        None, min_length=1, description="which get a threshold; null: all"
    )

    @model_validator(mode="after")
    def _floor_fits_the_rule(self) -> Self:
        if (self.rule == "youden") != (self.floor is None):
            raise ValueError("expected `floor` with the rules sensitivity and specificity, and only there")
        return self


@dataclass(frozen=True)
class OperatingPoint:
    """One class's threshold and what fp32 showed with it where it was chosen.

    Attributes:
        of_class: name of the class or label.
        log_odds: an image is called positive from this score on.
        sensitivity: of fp32 on the validation images.
        specificity: likewise.
        positives: validation images of the class.
        negatives: the others.
    """

    of_class: str
    log_odds: float
    sensitivity: float
    specificity: float
    positives: int
    negatives: int

    __pydantic_config__ = CLOSED

    @property
    def probability(self) -> float:
        """The threshold as a probability."""
        return float(1.0 / (1.0 + np.exp(-self.log_odds)))


@dataclass(frozen=True)
class OperatingPoints:
    """The thresholds of a run, and why a class has none.

    Attributes:
        points: class → its own.
        missing: class → the reason.
        fp32_sha256: the file that they were chosen with.
        data_sha256: the images.
        rule: as one reads it.
        sha256: digest of all the above, as it was read from the disk.
    """

    points: Mapping[str, OperatingPoint]
    missing: Mapping[str, str]
    fp32_sha256: str
    data_sha256: str
    rule: str
    sha256: str | None = None

    __pydantic_config__ = CLOSED

    def write(self, path: Path) -> None:
        """Write them as JSON with a digest of the content."""
        write_sealed(path, asdict(self))


def read_operating_points(path: Path) -> OperatingPoints:
    """Return what `OperatingPoints.write` wrote.

    Raises:
        UsageError: the file is missing, holds something else, or was changed.
    """
    found = read_typed(path, _adapter(), "the operating points of a run", _MEND)
    refuse_broken_seal(path, _MEND)
    return found


def choose(scores: Floats, positive: Flags, of_class: str, settings: OperatingPointSettings) -> OperatingPoint | str:
    """Return the threshold that the rule picks, or why there is none.

    It lies halfway between two neighbouring scores, so that a file that moves them a little answers the same. Among
    thresholds that are equally good the lowest is taken by youden, which misses fewest; the other two take the last
    one that keeps the floor, which has the best other half.

    Args:
        scores: float64 [n], log-odds of the class on the validation images.
        positive: bool [n].
        of_class: its name.
        settings: the rule and its floor.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return f"the validation images have {'only' if positives else 'no'} images of {of_class}"
    order = np.argsort(scores, kind="stable")
    ranked, has = scores[order], positive[order]
    firsts = np.flatnonzero(np.r_[True, np.diff(ranked) > 0])  # all from here on are called
    sensitivity = 1.0 - np.r_[0, np.cumsum(has)][firsts] / positives
    specificity = np.r_[0, np.cumsum(~has)][firsts] / negatives
    match settings.rule:
        case "youden":
            picked = int(np.argmax(np.round(sensitivity + specificity, 12)))
        case "sensitivity":
            picked = int(np.flatnonzero(sensitivity >= (settings.floor or 0.0) - 1e-12)[-1])
        case "specificity":
            enough = np.flatnonzero(specificity >= (settings.floor or 0.0) - 1e-12)
            if not len(enough):
                return f"no threshold below the highest score has a specificity of {settings.floor:g}"
            picked = int(enough[0])
    at = firsts[picked]
    below = ranked[at - 1] if at else ranked[0] - 1.0
    threshold = float((ranked[at] + below) / 2)
    return OperatingPoint(
        of_class, threshold, float(sensitivity[picked]), float(specificity[picked]), positives, negatives
    )


def choose_all(
    scores: Floats,
    positive: Mapping[str, Flags],
    classes: Sequence[str],
    settings: OperatingPointSettings,
    fp32_sha256: str,
    data_sha256: str,
) -> OperatingPoints:
    """Return the threshold of every class that is asked for.

    Args:
        scores: float64 [n, classes], fp32's log-odds on the validation images.
        positive: class → bool [n].
        classes: in the order of the scores.
        settings: which of them, and the rule.
        fp32_sha256: of the file.
        data_sha256: of the images.
    """
    found = {
        name: choose(scores[:, index], positive[name], name, settings)
        for index, name in enumerate(classes)
        if settings.classes is None or name in settings.classes
    }
    return OperatingPoints(
        points={name: one for name, one in found.items() if isinstance(one, OperatingPoint)},
        missing={name: one for name, one in found.items() if isinstance(one, str)},
        fp32_sha256=fp32_sha256,
        data_sha256=data_sha256,
        rule=rule_in_words(settings),
    )


def rule_in_words(settings: OperatingPointSettings) -> str:
    """Return the rule as one reads it: "sensitivity ≥ 0.9"."""
    if settings.rule == "youden":
        return "largest sensitivity + specificity"
    return f"{settings.rule} ≥ {settings.floor:g}"


@cache
def _adapter() -> TypeAdapter[OperatingPoints]:
    from pydantic import TypeAdapter

    return TypeAdapter(OperatingPoints)
