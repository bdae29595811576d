"""A data set of the user's own, made by a function that the configuration names as `module:function`.

This runs the user's own code with the user's own rights: importing the module executes it, and so does every call of
the function and of the `load` that it returns. Name only a module that you trust, as you would one that you run.

The function takes no arguments, or one mapping where `options` is set, and returns a
`calibration_data.dataset.Dataset`:

    def chest_ct(options):
        records = (Record("a.png", label=0, group="patient 1", subgroups=(), official_split=None, sha256="…"), …)
        return Dataset("mine", ("healthy", "ill"), records, synthetic=False, load=partial(load, Path("images")))
"""

from __future__ import annotations

import importlib
import pickle
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, Field

from calibration_data.dataset import BadImageError, Dataset, Frame, Record, SourceSettings
from calibration_data.prepared import SPLITS, Task
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.user_code import import_function, names_a_function, what

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _module_and_function(factory: str) -> str:
    if not names_a_function(factory):
        raise ValueError("expected module:function, for example my_package.images:chest_ct")
    return factory


class CustomSettings(SourceSettings):
    """A function of the user's own that returns a data set."""

    name: Literal["custom"] = Field("custom", description="a data set that your own Python function returns")
    factory: Annotated[str, AfterValidator(_module_and_function)] = Field(
        description="`module:function`, found on PYTHONPATH or installed; it is imported and run",
        examples=["my_package.images:chest_ct"],
    )
    options: Mapping[str, str | int | float | bool] | None = Field(
        None, description="passed to the function as its only argument; default: it is called without any"
    )


def open_custom(settings: CustomSettings) -> Dataset:
    """Call the user's function and check what it returns, so that a mistake is named here and not far below.

    Groups other than the images themselves count as known, whatever the data set says of them.

    Raises:
        UsageError: the module or function is missing or fails, or what it returns breaks the contract of `Dataset`.
    """
    try:
        dataset = _call(settings)
        _check_dataset(dataset)
        _check_load(dataset.load)
        for record in dataset.records:
            _check_record(record, dataset)
        twice = [image_id for image_id, n in Counter(record.image_id for record in dataset.records).items() if n > 1]
        _require(not twice, "image_ids that differ", f"{twice[:1]!r} twice")
    except _BrokenContractError as error:
        raise UsageError(f"source.factory: {settings.factory}: {error} Mend the function.") from error
    groups_known = any(record.group != record.image_id for record in dataset.records)
    load = partial(_load, dataset.load, len(dataset.classes))
    return replace(dataset, name=settings.name, load=load, groups_known=dataset.groups_known or groups_known)


def fingerprint_custom(settings: CustomSettings) -> str:
    """Return a sha256 over the records and the module's source, and so over the images as far as the records tell.

    Masks and code in other modules are not seen: rename the function, or change `options`, when those change.
    """
    dataset = open_custom(settings)
    source = getattr(importlib.import_module(settings.factory.split(":")[0]), "__file__", None)
    return sha256_of_json(
        {
            "factory": settings.factory,
            "options": None if settings.options is None else dict(settings.options),
            "module": None if source is None else sha256_of_file(Path(source)),
            "classes": list(dataset.classes),
            "task": dataset.task,
            "groups_known": dataset.groups_known,
            "records": [asdict(record) for record in dataset.records],
        }
    )


class _BrokenContractError(Exception):
    """What the user's function returned is not what it promised."""


def _require(holds: bool, expected: str, found: str) -> None:
    if not holds:
        raise _BrokenContractError(f"expected {expected}, found {found}.")


def _call(settings: CustomSettings) -> Dataset:
    function = import_function("source.factory", settings.factory)
    try:
        dataset = function() if settings.options is None else function(dict(settings.options))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"source.factory: {settings.factory} failed with {what(error)}. Mend it.") from error
    _require(isinstance(dataset, Dataset), "a Dataset as its result", type(dataset).__name__)
    return dataset  # type: ignore[no-any-return]


def _check_dataset(dataset: Dataset) -> None:
    _require(dataset.task in get_args(Task), f"a task out of {', '.join(get_args(Task))}", repr(dataset.task))
    for name in ("synthetic", "groups_known"):
        found = getattr(dataset, name)
        _require(isinstance(found, bool), f"{name} to be True or False", repr(found))
    for name in ("classes", "records", "ignored", "missing"):
        found = getattr(dataset, name)
        _require(isinstance(found, tuple), f"{name} as a tuple", type(found).__name__)
    names = dataset.classes
    are_names = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
    _require(are_names and len(names) >= 2, "two class names or more, all different", repr(names)[:200])
    _require(len(dataset.records) > 0, "one record or more", "none")
    for name in ("ignored", "missing"):
        are_texts = all(isinstance(one, str) for one in getattr(dataset, name))
        _require(are_texts, f"{name} names as texts", "other values")


def _check_load(load: object) -> None:
    _require(callable(load), "load to be a function", type(load).__name__)
    try:
        pickle.dumps(load)
    except Exception as error:  # pickle raises whatever the object does
        raise _BrokenContractError(
            "expected a load that can be pickled for worker processes (a module-level function, or a partial of one),"
            f" found {what(error)}."
        ) from error


def _check_record(record: object, dataset: Dataset) -> None:
    _require(isinstance(record, Record), "every record to be a Record", type(record).__name__)
    assert isinstance(record, Record)
    where = f"of {record.image_id!r}"
    _require(isinstance(record.image_id, str) and bool(record.image_id), "an image_id", repr(record.image_id))
    _require(isinstance(record.group, str) and bool(record.group), f"a group {where}", repr(record.group))
    names = record.subgroups
    are_names = isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)
    _require(are_names and len(set(names)) == len(names), f"a tuple of subgroups {where}, all different", repr(names))
    _require(
        record.official_split is None or record.official_split in SPLITS,
        f"an official split {where} out of {', '.join(SPLITS)} (or None)",
        repr(record.official_split),
    )
    _require(
        isinstance(record.sha256, str) and _SHA256.fullmatch(record.sha256) is not None,
        f"a sha256 {where} of 64 hexadecimal digits",
        repr(record.sha256),
    )
    largest = len(dataset.classes) - 1
    if dataset.task == "multi_class":
        _require(_is_label(record.label, largest), f"a label {where} from 0 to {largest}", repr(record.label))
    else:
        labels = record.label
        is_tuple = isinstance(labels, tuple) and all(_is_label(label, largest) for label in labels)
        is_ascending = is_tuple and list(labels) == sorted(set(labels))  # type: ignore[arg-type]
        _require(is_ascending, f"a tuple {where} of ascending labels from 0 to {largest}", repr(labels))


def _is_label(label: Any, largest: int) -> bool:
    return type(label) is int and 0 <= label <= largest


def _load(load: Callable[[Record], Frame], n_classes: int, record: Record) -> Frame:
    """Decode an image with the user's function, and check what it returns.

    Raises:
        BadImageError: it failed, or returned no frame of uint8 pixels.
    """
    try:
        frame = load(record)
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(f"the custom source's load failed with {what(error)}") from error
    if not isinstance(frame, Frame):
        raise BadImageError(f"expected a Frame from the custom source's load, found {type(frame).__name__}")
    pixels, mask = frame.pixels, frame.mask
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
        raise BadImageError(f"expected pixels as uint8 [height, width, channels], found {_kind(pixels)}")
    if pixels.shape[2] not in (1, 3):
        raise BadImageError(f"expected 1 or 3 channels, found {pixels.shape[2]}")
    if mask is not None and (
        not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != pixels.shape[:2]
    ):
        raise BadImageError(f"expected a mask as bool {list(pixels.shape[:2])}, found {_kind(mask)}")
    if frame.mask_class is not None and (mask is None or not _is_label(frame.mask_class, n_classes - 1)):
        raise BadImageError(f"expected mask_class from 0 to {n_classes - 1}, with a mask, found {frame.mask_class!r}")
    return frame


def _kind(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
