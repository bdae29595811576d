"""How many images there were, what was left out, and where the rest went: per split, class and patient."""

from __future__ import annotations

from dataclasses import dataclass

from calibration_data.prepared import SPLITS, PreparedData


@dataclass(frozen=True)
class ClassCount:
    """The images of one class, or with one label, in each split, and of how many patients these are.

    Attributes:
        of_class: its name.
        images: one number per split.
        patients: likewise; None where the source names none.
    """

    of_class: str
    images: tuple[int, ...]
    patients: tuple[int, ...] | None


@dataclass(frozen=True)
class DataFlow:
    """The way of the images, as a STARD diagram has it.

    Attributes:
        found: images and files that the source holds or lists.
        missing: listed and not there.
        ignored: files that are no images of it.
        unreadable: skipped, because they could not be read.
        duplicates: left out, because an equal one stands in a stricter split.
        merged: kept on one side, because they are equal.
        images: what was split; one number per split.
        patients: likewise; None where the source names none.
        masks: likewise, the images that have one.
        classes: per class.
        shared: patients that stand in more than one split.
    """

    found: int
    missing: int
    ignored: int
    unreadable: int
    duplicates: int
    merged: int
    images: tuple[int, ...]
    patients: tuple[int, ...] | None
    masks: tuple[int, ...]
    classes: tuple[ClassCount, ...]
    shared: int | None


def data_flow(data: PreparedData) -> DataFlow:
    """Return the counts of the prepared images."""
    splits = [data.split(name) for name in SPLITS]
    images = tuple(len(split) for split in splits)
    known = data.groups_known
    groups = [set(split.groups) for split in splits]
    classes = []
    for index, name in enumerate(data.classes):
        has = [(split.labels == index) if split.labels.ndim == 1 else split.labels[:, index] == 1 for split in splits]
        of = [
            len({group for group, member in zip(split.groups, members, strict=True) if member})
            for split, members in zip(splits, has, strict=True)
        ]
        classes.append(ClassCount(name, tuple(int(one.sum()) for one in has), tuple(of) if known else None))
    left_out = len(data.missing) + len(data.ignored) + len(data.skipped) + len(data.dropped)
    return DataFlow(
        sum(images) + left_out,
        len(data.missing),
        len(data.ignored),
        len(data.skipped),
        len(data.dropped),
        len(data.merged),
        images,
        tuple(len(group) for group in groups) if known else None,
        tuple(int(split.has_mask.sum()) for split in splits),
        tuple(classes),
        len((groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2])) if known else None,
    )
