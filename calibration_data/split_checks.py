"""What must hold of classes and splits before a network can be trained, in one sentence each where it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import Record, labels_of
from calibration_data.prepared import SPLITS, SplitName
from foundation.errors import UsageError

_NAMED = 10
"""How many of many classes an error names."""


def check_enough_images(records: Sequence[Record], classes: Sequence[str]) -> None:
    """Check, before any image is decoded, that every class has one for each split.

    Raises:
        UsageError: fewer than two classes, or naming every class with too few images.
    """
    _check_two_classes(classes)
    images = Counter(label for record in records for label in labels_of(record))
    few = [label for label in range(len(classes)) if images[label] < len(SPLITS)]
    if few:
        raise UsageError(
            f"{_named(classes[label] for label in few)}: expected {len(SPLITS)} images or more{_each(few)}, one for "
            f"each of {', '.join(SPLITS)}; found {_listed(images[label] for label in few)}. Add images or remove "
            f"{_it(few)}."
        )


def check_official_splits(records: Sequence[Record], classes: Sequence[str]) -> None:
    """Check that every class stands in each split that the authors fixed, and in what is left for the others.

    Raises:
        UsageError: naming the first class and split without any.
    """
    for name, split in _missing_in_official_splits(records, classes):
        raise UsageError(
            f"class {name!r}: expected images in the official {split} split, as in the others, found none. Add some, "
            "or remove the class from all splits."
        )


def official_gaps(records: Sequence[Record], classes: Sequence[str]) -> list[str]:
    """Return a sentence for each official split that lacks classes, which is no error where nothing is trained."""
    gaps = _missing_in_official_splits(records, classes)
    sentences = []
    for split in SPLITS:
        names = [name for name, lacking in gaps if lacking == split]
        if names:
            what = "none calibrates" if split == "train" else "nothing is measured of that"
            sentences.append(f"The official {split} split has no image of {_named(names)}: {what}.")
    return sentences


def _missing_in_official_splits(records: Sequence[Record], classes: Sequence[str]) -> list[tuple[str, SplitName]]:
    """Return each class that some split has and another one lacks, as the authors fixed them.

    What they put into neither validation nor test counts as training images.
    """
    fixed = {record.official_split for record in records} & {"validation", "test"}
    held: dict[SplitName, set[int]] = {split: set() for split in SPLITS if split == "train" or split in fixed}
    for record in records:
        held[record.official_split or "train"].update(labels_of(record))
    present = sorted(set[int]().union(*held.values()))
    return [(classes[label], split) for label in present for split, labels in held.items() if label not in labels]


def check_no_unused_class(records: Sequence[Record], classes: Sequence[str]) -> None:
    """Check that there are two classes and images of every class.

    Raises:
        UsageError: naming the classes without any.
    """
    _check_two_classes(classes)
    present = {label for record in records for label in labels_of(record)}
    unused = [label for label in range(len(classes)) if label not in present]
    if unused:
        raise UsageError(
            f"{_named(classes[label] for label in unused)}: expected images, found none that can be used. Add some "
            f"or remove {_it(unused)}."
        )


def check_enough_groups(counts: NDArray[np.int64], classes: Sequence[str], splits: Sequence[SplitName]) -> None:
    """Check that every class has a group for each split.

    Args:
        counts: int64 [groups, classes or more], how many images of a class a group has.
        classes: their names.
        splits: among which the groups are divided.

    Raises:
        UsageError: naming every class with too few.
    """
    groups = (counts > 0).sum(axis=0).tolist()
    few = [label for label in range(len(classes)) if groups[label] < len(splits)]
    if few:
        raise UsageError(
            f"{_named(classes[label] for label in few)}: expected images of {len(splits)} groups or "
            f"more{_each(few)}, one for each of {', '.join(splits)}; found "
            f"{_listed(groups[label] for label in few)}. Add images of other groups (patients) or remove {_it(few)}."
        )


def check_no_empty_class(records: Sequence[Record], assignment: Sequence[SplitName], classes: Sequence[str]) -> None:
    """Check that every split has images of every class.

    Raises:
        UsageError: naming the first class and split without any.
    """
    present = {(label, side) for record, side in zip(records, assignment, strict=True) for label in labels_of(record)}
    for label, name in enumerate(classes):
        for split in SPLITS:
            if (label, split) not in present:
                raise UsageError(
                    f"class {name!r}: expected images in the {split} split, found none. Its groups are too few or "
                    "too large to divide; add images of other groups (patients), or change `split.seed`."
                )


def check_no_empty_split(assignment: Sequence[SplitName]) -> None:
    """Check that every split has images.

    Raises:
        UsageError: naming the first that has none.
    """
    for split in SPLITS:
        if split not in assignment:
            raise UsageError(
                f"expected images in the {split} split, found none. Add images of other groups (patients), or change "
                "the fractions in `split`."
            )


def _check_two_classes(classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise UsageError(f"expected two classes or more, found {', '.join(classes) or 'none'}. Add another class.")


def _named(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    return f"class {quoted[0]}" if len(quoted) == 1 else f"classes {_listed(quoted)}"


def _listed(values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more


def _each(few: Sequence[int]) -> str:
    return " each" if len(few) > 1 else ""


def _it(few: Sequence[int]) -> str:
    return "them" if len(few) > 1 else "the class"
