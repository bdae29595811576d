"""What a user might write: one function that keeps the contract of a data set, and parts that break it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from calibration_data.dataset import BadImageError, Dataset, Frame, Record


def flat_image(record: Record, size: int = 8) -> Frame:
    """Return a gray square whose brightness is the image's number."""
    number = int(record.image_id.rpartition("/")[2])
    return Frame(np.full((size, size, 1), number, dtype=np.uint8), None)


def three_of_each(options: Mapping[str, Any] | None = None) -> Dataset:
    """Return two classes of flat images."""
    count = 3 if options is None else int(options["count"])
    records = []
    for label, name in enumerate(("dark", "bright")):
        for index in range(count):
            digest = hashlib.sha256(f"{name}{index}".encode()).hexdigest()
            records.append(Record(f"{name}/{index}", label, f"{name} {index}", (), None, digest))
    return Dataset("mine", ("dark", "bright"), tuple(records), synthetic=False, load=partial(flat_image, size=8))


def one_of_training_in_test() -> Dataset:
    """Return ten images a class, the last two for testing, of which one is in training too."""
    dataset = three_of_each({"count": 10})
    first = dataset.records[0]
    records = [
        replace(
            record,
            official_split="test" if record.image_id[-1] in "89" else "train",
            sha256=first.sha256 if record.image_id == "dark/9" else record.sha256,
        )
        for record in dataset.records
    ]
    return replace(dataset, records=tuple(records))


def failing() -> Dataset:
    """Fail."""
    raise OSError("the disk is gone")


def no_data_set() -> list[int]:
    """Return something else."""
    return [1, 2]


not_a_function = 3


def wrong_load(record: Record, result: Any) -> Any:
    """Return what it is told, or raise it."""
    if isinstance(result, Exception):
        raise result
    return result


REASON = BadImageError("a reason of its own")
