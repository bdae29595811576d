"""ChestX-ray14 as the NIH packs it: chest X-rays with any of 14 findings, patients, official lists and boxes.

Wang et al., ChestX-ray8, CVPR 2017 (arXiv 1705.02315).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.chestxray14_tables import (
    BOXES,
    CLASSES,
    ENTRIES,
    LISTS,
    ORIGINAL_PX,
    Boxes,
    Entry,
    entries_path,
    read_boxes,
    read_entries,
    read_lists,
)
from calibration_data.image_files import (
    fingerprint_of_files,
    is_image_name,
    read_pixels,
    require_file,
    require_folder,
    require_inside,
)
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.settings import LocalPath

_SUBGROUP_COLUMNS = {"sex": ("Patient Gender", "Patient Sex"), "view": ("View Position",), "none": ()}
_NAMED = 3
"""How many of many an error names."""


class ChestXray14Settings(SourceSettings):
    """ChestX-ray14, whole or in part."""

    name: Literal["chestxray14"] = Field("chestxray14", description="chest X-rays with 14 findings; multi-label")
    root: LocalPath = Field(
        description=f"the folder with {ENTRIES[0]}, train_val_list.txt, test_list.txt and {BOXES}"
    )
    image_folders: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="folders of images below root; default: images and images_001/images, images_002/images…"
    )
    missing_images: Literal["error", "skip"] = Field(
        "error", description="images that the table lists and no folder holds: an error, or left out (of a sample)"
    )
    subgroup: Literal["sex", "view", "none"] = Field("sex", description="what the subgroups are, where it is known")


def open_chestxray14(settings: ChestXray14Settings) -> Dataset:
    """Open the listed images in the official split; the patient is the group.

    The mask of an image is the union of the boxes of the finding that the file of boxes names first for it, and
    that finding is the mask's class; its other boxes belong to other findings and would blur what is asked.

    Raises:
        UsageError: a file is missing or malformed, an image is in no list or in both, an unknown finding, images are
            missing (unless they may be), or lie in two folders.
    """
    root = require_folder(settings.root, "source.root")
    listed = read_entries(root, _SUBGROUP_COLUMNS[settings.subgroup])
    paths = _found_images(root, settings)
    entries = _present(root, listed, paths, settings)
    splits = read_lists(root)
    unlisted = [name for name in entries if name not in splits]
    if unlisted:
        raise UsageError(
            f"{root}: expected every image of the table in {LISTS[0][0]} or {LISTS[1][0]}; in neither: "
            f"{_some(unlisted)}. Get the official lists."
        )
    records = tuple(
        Record(
            paths[name],
            entry.labels,
            entry.patient,
            entry.subgroups,
            splits[name],
            sha256_of_file(root / paths[name]),
        )
        for name, entry in sorted(entries.items(), key=lambda item: paths[item[0]])
    )
    boxes = {name: found for name, found in read_boxes(root).items() if name in entries}
    return Dataset(
        settings.name,
        CLASSES,
        records,
        synthetic=False,
        load=partial(_load, root, boxes),
        missing=tuple(name for name in listed if name not in entries),
        groups_known=True,
        task="multi_label",
    )


def fingerprint_chestxray14(settings: ChestXray14Settings) -> str:
    """Return a sha256 over the table, the lists, the boxes and the images that are used."""
    root = require_folder(settings.root, "source.root")
    entries, paths = read_entries(root, _SUBGROUP_COLUMNS[settings.subgroup]), _found_images(root, settings)
    used = [root / paths[name] for name in _present(root, entries, paths, settings)]
    lists = [require_file(root / name, "an official list of images") for name, _ in LISTS]
    boxes = [root / BOXES] if (root / BOXES).is_file() else []
    return sha256_of_json(
        {
            "table": sha256_of_file(entries_path(root)),  # either name
            "files": fingerprint_of_files(root, [*lists, *boxes, *used]),
        }
    )


def _load(root: Path, boxes: Mapping[str, Boxes], record: Record) -> Frame:
    pixels = read_pixels(root / record.image_id)
    found = boxes.get(record.image_id.rsplit("/", 1)[-1])
    if found is None:
        return Frame(pixels, None)
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), dtype=np.bool_)
    across, down = width / ORIGINAL_PX, height / ORIGINAL_PX
    for box in found.boxes:  # every pixel that the box touches
        rows = slice(math.floor(box.top * down), math.ceil((box.top + box.height) * down))
        columns = slice(math.floor(box.left * across), math.ceil((box.left + box.width) * across))
        mask[rows, columns] = True
    return Frame(pixels, mask, found.label)


# --- images ---


def _found_images(root: Path, settings: ChestXray14Settings) -> dict[str, str]:
    """Return name → path below root of every image in the folders."""
    folders = [root / folder for folder in settings.image_folders] or [
        folder for pattern in ("images", "images_[0-9][0-9][0-9]/images") for folder in sorted(root.glob(pattern))
    ]
    if not folders:
        others = sorted(path.name for path in root.iterdir() if path.is_dir())
        raise UsageError(
            f"{root}: expected images/ or images_001/images/…, found the folders {', '.join(others) or 'none'}. "
            "Unpack the images there, or name their folders in `source.image_folders`."
        )
    found: dict[str, str] = {}
    for folder in folders:
        inside = require_inside(root, require_folder(folder, "source.image_folders"))
        for entry in sorted(os.scandir(inside), key=lambda entry: entry.name):
            if not is_image_name(entry.name):
                continue
            if entry.is_symlink():
                require_inside(root, Path(entry.path))
            path = Path(entry.path).relative_to(root).as_posix()
            if found.setdefault(entry.name, path) != path:
                raise UsageError(
                    f"{root}: expected each image once, found {found[entry.name]} and {path}. "
                    "Name the folders to use in `source.image_folders`."
                )
    return found


def _present(
    root: Path, entries: dict[str, Entry], paths: Mapping[str, str], settings: ChestXray14Settings
) -> dict[str, Entry]:
    """Return the entries whose image is there."""
    missing = [name for name in entries if name not in paths]
    if missing and settings.missing_images == "error":
        raise UsageError(
            f"{entries_path(root)}: expected {len(entries)} images, {len(missing)} of them are missing "
            f"({_some(missing)}). Unpack all archives, or set `source.missing_images: skip` to use those that are "
            "there."
        )
    if len(missing) == len(entries):
        raise UsageError(f"{entries_path(root)}: expected images of its list, found none of {len(entries)}.")
    return {name: entry for name, entry in entries.items() if name in paths}


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
