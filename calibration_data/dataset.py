"""What a source of labelled images offers, whatever its format: records first, pixels on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import SplitName, Task
from foundation.errors import UsageError
from foundation.settings import Settings


class SourceSettings(Settings):
    """What the settings of every source share; each source narrows `name` to a literal, the discriminator."""

    name: str


class BadImageError(UsageError):
    """One image that cannot be used; the message is the reason, without the image's name."""


@dataclass(frozen=True)
class Record:
    """One labelled image, known without decoding it.

    Attributes:
        image_id: stable name, unique in the data set; of a file, its path below the root.
        label: index into `Dataset.classes`; of a multi-label source the indices of all its labels, ascending.
        group: what must stay on one side of a split (a patient); the image itself where unknown.
        subgroups: printed names of what it belongs to, at most one of each axis ("sex: female", "age: 40–59"); of an
            axis that is unknown none.
        official_split: the split that the data set's authors fixed, None where they fixed none.
        sha256: digest of the image as it stands in the source, file bytes or raw pixels.
    """

    image_id: str
    label: int | tuple[int, ...]
    group: str
    subgroups: tuple[str, ...]
    official_split: SplitName | None
    sha256: str


def labels_of(record: Record) -> tuple[int, ...]:
    """Return all labels of a record, of either task."""
    return record.label if isinstance(record.label, tuple) else (record.label,)


@dataclass(frozen=True)
class Frame:
    """One decoded image.

    Attributes:
        pixels: uint8 [height, width, channels], 1 (gray) or 3 (RGB) channels, 0 to 255; or gray in 16 bits, uint16.
        mask: bool [height, width], True on the lesion; None where the source holds no mask.
        mask_class: index of the class whose finding the mask shows; None where it is simply the image's own class.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    mask: NDArray[np.bool_] | None
    mask_class: int | None = None


@dataclass(frozen=True)
class Dataset:
    """An opened source.

    Attributes:
        name: the source's key in `DATASETS`.
        classes: class names in label order.
        records: every image, in an order that does not depend on the machine.
        synthetic: whether the images were generated.
        load: decodes one record; raises BadImageError where that cannot be done. It can be pickled, because
            worker processes call it: a module-level function or a partial of one, over paths rather than pixels.
        ignored: files found in the source that are no images of it, as paths below its root.
        missing: names of images that the source lists and does not hold.
        groups_known: whether the source names the patients, lesions or videos that are the records' groups.
        task: whether a record has one class or any number of labels.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    synthetic: bool
    load: Callable[[Record], Frame]
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    groups_known: bool = False
    task: Task = "multi_class"
