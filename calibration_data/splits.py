"""Train, validation and test: seeded, stratified, and no group on two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from calibration_data.dataset import Record, labels_of
from calibration_data.prepared import SPLITS, SplitName, Task
from calibration_data.split_checks import (
    check_enough_groups,
    check_no_empty_class,
    check_no_empty_split,
    check_no_unused_class,
)
from foundation.errors import UsageError
from foundation.settings import Settings

Duplicates = Literal["error", "merge"]


class SplitSettings(Settings):
    """How the images are divided."""

    train: float = Field(0.7, gt=0, lt=1, description="fraction of the images to train on")
    validation: float = Field(0.15, gt=0, lt=1, description="fraction of the images to choose the best epoch by")
    test: float = Field(
        0.15, gt=0, lt=1, description="fraction to measure on; ignored where the authors fixed a test set"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the division")

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, they sum to {total:g}")
        return self


def split_records(
    records: Sequence[Record],
    classes: Sequence[str],
    settings: SplitSettings,
    duplicates: Duplicates = "error",
    task: Task = "multi_class",
    training: bool = True,
) -> tuple[SplitName, ...]:
    """Divide the records; each class is divided in the same proportions, each group goes to one side as a whole.

    Records that the data set's authors put into test or validation stay there; all others are divided among the
    splits that the authors left open, in the proportions of the settings.

    Groups are placed one by one, large ones first and equal ones in seeded order, each where it adds least to
    Σ (count − target)² / target over splits and classes. For groups of one image that is Webster's method of
    apportionment, so every class is within about one image of its fractions.

    Args:
        records: the images; image_ids are unique.
        classes: class names in label order.
        settings: fractions and seed.
        duplicates: "error": equal images on two sides are an error; "merge": equal images count as one group.
        task: in a multi-label task every label is divided like a class, and so are the images without a label; a
            label too rare for every split is no error, it just cannot be measured everywhere.
        training: whether a network learns from them; where none does, a class need not stand in every split.

    Returns:
        One split per record.

    Raises:
        UsageError: fewer than two classes; an empty class; a class with fewer groups than splits; a class that
            cannot be in every split; an empty split; a group that the authors put on two sides; a leak.
    """
    whole = task == "multi_class" and training
    if whole:
        check_no_unused_class(records, classes)
    group_of, group_names = _groups(records, merge=duplicates == "merge")
    counts = np.zeros((len(group_names), len(classes) + 1), dtype=np.int64)
    for record, group in zip(records, group_of.tolist(), strict=True):
        for label in labels_of(record) or (len(classes),):  # the last column counts the images without a label
            counts[group, label] += 1

    official = {record.official_split for record in records} & {"validation", "test"}
    fixed = _official_sides(records, group_of, group_names)
    open_splits = [name for name in SPLITS if name not in official]
    free = np.array([group for group in range(len(group_names)) if group not in fixed], dtype=np.int64)
    if whole:
        check_enough_groups(counts[free], classes, open_splits)

    fractions = np.array([getattr(settings, name) for name in open_splits])
    divided = counts[free] if training else _rare_together(counts[free], fractions)
    sides = _apportion(divided, fractions / fractions.sum(), np.random.default_rng(settings.seed))
    side_of: dict[int, SplitName] = dict(fixed)
    side_of.update((int(group), open_splits[side]) for group, side in zip(free, sides, strict=True))
    assignment = tuple(side_of[int(group)] for group in group_of)
    if whole:
        check_no_empty_class(records, assignment, classes)
    check_no_empty_split(assignment)
    check_no_leak(records, assignment)
    return assignment


def drop_leaking_images(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Drop every image whose equal the authors put on a stricter side: test before validation before training.

    Equal images on one side stay, so that a published test set keeps its size.

    Returns:
        The records that are kept, in their order, and a line for each of the others.
    """
    rank: dict[SplitName | None, int] = {"test": 0, "validation": 1}
    strictest: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: rank.get(record.official_split, 2)):  # stable
        strictest.setdefault(record.sha256, record)
    kept: list[Record] = []
    dropped: list[str] = []
    for record in records:
        other = strictest[record.sha256]
        if rank.get(other.official_split, 2) == rank.get(record.official_split, 2):
            kept.append(record)
        else:
            dropped.append(f"{record.image_id}: equal to {other.image_id}, which stands in {other.official_split}")
    return kept, dropped


def equal_images(records: Sequence[Record]) -> list[str]:
    """Return the ids of the images that are equal to one of another group, in their order."""
    groups: dict[str, set[str]] = {}
    for record in records:
        groups.setdefault(record.sha256, set()).add(record.group)
    return [record.image_id for record in records if len(groups[record.sha256]) > 1]


def check_no_leak(records: Sequence[Record], assignment: Sequence[SplitName]) -> None:
    """Check that no image (same sha256) and no group stands in two splits; twice in one split is fine.

    Raises:
        UsageError: naming the two images.
    """
    first_image: dict[str, int] = {}
    first_group: dict[str, int] = {}
    for index, (record, split) in enumerate(zip(records, assignment, strict=True)):
        image = first_image.setdefault(record.sha256, index)
        if assignment[image] != split:
            raise UsageError(
                f"{records[image].image_id} ({assignment[image]}) and {record.image_id} ({split}) are equal: "
                "expected no image in two splits. Remove one of them, or set `duplicates: merge` to keep equal "
                "images on one side."
            )
        group = first_group.setdefault(record.group, index)
        if assignment[group] != split:
            raise UsageError(
                f"{records[group].image_id} ({assignment[group]}) and {record.image_id} ({split}) are both of group "
                f"{record.group!r}: expected each group in one split. Mend the grouping or remove one of them."
            )


def _groups(records: Sequence[Record], *, merge: bool) -> tuple[NDArray[np.int64], list[str]]:
    """Number the groups in order of appearance; with `merge`, groups that share an image become one (union-find)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for record in records:
        group = root(f"group {record.group}")
        if merge:
            # The image's root becomes a child of the group's, so that a root is always a group.
            parent[root(f"image {record.sha256}")] = group
    number: dict[str, int] = {}
    indices = [number.setdefault(root(f"group {record.group}"), len(number)) for record in records]
    return np.array(indices, dtype=np.int64), [key.removeprefix("group ") for key in number]


def _official_sides(
    records: Sequence[Record], group_of: NDArray[np.int64], group_names: Sequence[str]
) -> Mapping[int, SplitName]:
    """Return the groups that the authors put into validation or test."""
    first: dict[int, Record] = {}
    fixed: dict[int, SplitName] = {}
    for record, group in zip(records, group_of.tolist(), strict=True):
        other = first.setdefault(group, record)
        if other.official_split != record.official_split:
            raise UsageError(
                f"{other.image_id} (officially {other.official_split}) and {record.image_id} (officially "
                f"{record.official_split}) are of one group, {group_names[group]!r}, or equal: expected each group "
                "in one split. Remove one of them."
            )
        if record.official_split in ("validation", "test"):
            fixed[group] = record.official_split
    return fixed


def _apportion(
    counts: NDArray[np.int64], fractions: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Place each group (counts: int64 [groups, classes]) on a side; return int64 [groups]."""
    target = np.maximum(fractions[:, None] * counts.sum(axis=0), 1e-9)
    placed = np.zeros_like(target)
    sides = np.zeros(len(counts), dtype=np.int64)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    for group in order:
        added = counts[group]
        cost = (added * (2 * (placed - target) + added) / target).sum(axis=1)
        side = int(np.argmin(cost))
        sides[group] = side
        placed[side] += added
    return _fill_empty(counts, sides, len(fractions))


def _rare_together(counts: NDArray[np.int64], fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return counts in which the classes of too few groups to stand on every side count as one.

    Divided by themselves, they would all go to the largest side, and the others would stay empty.
    """
    least = float(fractions.sum() / fractions.min())
    rare = (counts > 0).sum(axis=0) < least
    return np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)


def _fill_empty(counts: NDArray[np.int64], sides: NDArray[np.int64], n_sides: int) -> NDArray[np.int64]:
    """Move the smallest group that another side can spare to each side that holds none of a class."""
    held = np.zeros((n_sides, counts.shape[1]), dtype=np.int64)
    np.add.at(held, sides, counts > 0)
    for label in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        for side in range(n_sides):
            if held[side, label]:
                continue
            present = counts > 0
            spare = present[:, label] & (~present | (held[sides] > 1)).all(axis=1)
            candidates = np.flatnonzero(spare)
            if len(candidates):
                group = candidates[np.argmin(counts[candidates].sum(axis=1))]
                held[sides[group]] -= present[group]
                held[side] += present[group]
                sides[group] = side
    return sides
