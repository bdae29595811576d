"""The decoded, resized and split images of one run, as the other stages see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foundation.artifacts import Task

SplitName = Literal["train", "validation", "test"]
__all__ = ["SPLITS", "PreparedData", "PreparedSplit", "SplitName", "Task"]

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class PreparedSplit:
    """The images of one split.

    Attributes:
        images: uint8 [n, channels, height, width], 0 to 255; mapped from disk, so take it batch by batch.
        labels: int64 [n], indices into `PreparedData.classes`; of a multi-label task int64 [n, classes], 0 or 1.
        masks: bool [n, height, width], True on the lesion; all False where there is no mask; mapped like `images`.
        has_mask: bool [n], whether the source holds a mask for the image.
        mask_class: int64 [n], the class whose finding the mask shows; −1 where there is no mask, and where it is
            simply the image's own class.
        image_ids: n stable names, unique in the data set.
        groups: n names of what must stay on one side of a split (a patient); unique where unknown.
        subgroups: n tuples of the printed names of what an image belongs to, at most one of each axis ("sex: female",
            "age: 40–59"); empty where nothing is known.
        sha256: n digests of the image as it stood in the source (file bytes or raw pixels).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    mask_class: NDArray[np.int64]
    image_ids: tuple[str, ...]
    groups: tuple[str, ...]
    subgroups: tuple[tuple[str, ...], ...]
    sha256: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def handle(self, index: int) -> str:
        """Return what an image is called where its name must not be told: whoever has the file can find it again."""
        return f"sha256:{self.sha256[index][:12]}"


@dataclass(frozen=True)
class PreparedData:
    """All three splits and what is needed to interpret them.

    Attributes:
        dataset: name of the data set's row in `DATASETS`.
        classes: class names in label order.
        mean: one float per channel, of pixel values scaled to 0…1, over the training images.
        std: one float per channel, likewise; at least 1e-3.
        synthetic: whether the images were generated; every place that shows them says so.
        skipped: images that could not be read (`bad_images: skip`), as "image id: reason".
        sha256: digest over every image, mask and label of the three splits; the data's identity in run.json.
        task: whether an image has one class or any number of labels.
        dropped: images left out since an equal one stands on a stricter side (`duplicates: drop`), as "image id:
            reason".
        merged: ids of images that stand on one side since they are equal, though of different groups (`duplicates:
            merge`, and `drop`).
        ignored: files of the source that are no images of it, as paths below its root.
        missing: names of images that the source lists and does not hold.
        groups_known: whether the source names the patients, lesions or videos that `groups` are.
        bits: how many bits of 16-bit gray images were taken to be in use; None where no image has 16.
    """

    dataset: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    synthetic: bool
    skipped: tuple[str, ...]
    sha256: str
    train: PreparedSplit
    validation: PreparedSplit
    test: PreparedSplit
    task: Task = "multi_class"
    dropped: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    groups_known: bool = False
    bits: int | None = None

    @property
    def channels(self) -> int:
        """Number of colour channels, 1 or 3."""
        return int(self.train.images.shape[1])

    @property
    def image_size(self) -> int:
        """Height and width of the square images, in pixels."""
        return int(self.train.images.shape[2])

    def split(self, name: SplitName) -> PreparedSplit:
        """Return a split by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]
