"""What a reader looks at image by image: answers that changed, and maps that moved.

Validation finds it once, from the shipped files' own answers and maps, and leaves it in the run folder; the report
shows it and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from foundation.files import write_json
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Index = Annotated[int, Field(ge=0)]
MethodKey = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
"""The name of a saliency method, which is part of the paths of its maps."""


@dataclass(frozen=True)
class Answer:
    """A variant's answer.

    Attributes:
        variant: its name.
        answer: the class; to a label 1 (yes) or 0 (no).
        probability: that the variant gives to it; None of a file that gives the number of a class alone.
        correct: whether it is the truth.
    """

    variant: str
    answer: Index
    probability: float | None
    correct: bool

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class ChangedAnswer:
    """One test image, or one label of it, on which at least one variant answers otherwise than fp32.

    Attributes:
        index: position in the test split.
        truth: the true class, or every true label.
        label: the label that was decided; None where an image has one class.
        baseline: fp32's answer.
        others: the answers of the variants that differ.
    """

    index: Index
    truth: tuple[Index, ...]
    label: Index | None
    baseline: Answer
    others: tuple[Answer, ...]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Changes:
    """How a variant's answers moved.

    Attributes:
        variant: its name.
        answers: how many were compared: one per image, or one per image and label.
        broken: fp32 was right and the variant is wrong.
        mended: fp32 was wrong and the variant is right.
        otherwise: both are wrong, in different ways; a yes or no cannot be.
    """

    variant: str
    answers: int
    broken: int
    mended: int
    otherwise: int

    __pydantic_config__ = CLOSED

    @property
    def changed(self) -> int:
        """Answers that are not fp32's."""
        return self.broken + self.mended + self.otherwise


@dataclass(frozen=True)
class ChangedAnswers:
    """Where answers differ from fp32's.

    Attributes:
        changes: one per variant but fp32.
        total: how many answers differ in some variant.
        first: the first of them: those that fp32 had right, by its falling certainty, and then the others.
    """

    changes: tuple[Changes, ...]
    total: int
    first: tuple[ChangedAnswer, ...]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class ShownImage:
    """A test image whose maps are shown.

    Attributes:
        index: position in the test split.
        moved_most_in: the variants in which no other image's map moved more; empty for a typical image.
        likeness: variant → Spearman correlation of its map with fp32's, as in `saliency_spearman`; a variant whose
            map explains another class is not in it.
    """

    index: Index
    moved_most_in: tuple[str, ...]
    likeness: Mapping[str, float]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class ShownMaps:
    """Which images' maps are shown.

    Attributes:
        method: how the maps were made.
        compared: how many test images have a map of fp32.
        images: those that moved most first, then typical ones.
    """

    method: MethodKey
    compared: int
    images: tuple[ShownImage, ...]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class ImageByImage:
    """Both; `maps` None where fp32 has none."""

    answers: ChangedAnswers
    maps: ShownMaps | None

    __pydantic_config__ = CLOSED


def write_image_by_image(path: Path, found: ImageByImage) -> None:
    """Write it as JSON, atomically."""
    write_json(path, _adapter().dump_python(found, mode="json"))


def read_image_by_image(path: Path) -> ImageByImage:
    """Return what `write_image_by_image` wrote.

    Raises:
        UsageError: the file is missing or holds something else.
    """
    return read_typed(path, _adapter(), "changed answers and maps", "Delete it and run `edgeproof validate` again.")


@cache
def _adapter() -> TypeAdapter[ImageByImage]:
    from pydantic import TypeAdapter

    return TypeAdapter(ImageByImage)
