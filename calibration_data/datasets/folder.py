"""Class folders of image files: `ROOT/CLASS/…/NAME.png`, with masks beside the images where there are any.

Where the authors fixed the splits, `ROOT/SPLIT/CLASS/…/NAME.png`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from calibration_data.dataset import Dataset, SourceSettings
from calibration_data.datasets.class_folders import (
    ClassFolders,
    fingerprint_class_folders,
    load_image,
    records_of,
    scan_class_folders,
    visible_paths,
)
from calibration_data.datasets.official_splits import split_named
from calibration_data.image_files import require_folder, require_inside
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.files import sha256_of_json
from foundation.settings import LocalPath


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"expected a regular expression, found one that does not compile ({error})") from error
    if groups < 1:
        raise ValueError("expected a regular expression with a group in parentheses, for example '^(P[0-9]+)_'")
    return pattern


class FolderSettings(SourceSettings):
    """A folder with one folder per class."""

    name: Literal["folder"] = Field("folder", description="a folder with one folder of images per class")
    root: LocalPath = Field(description="the folder that holds the class folders")
    official_splits: bool = Field(
        False, description="`root` holds split folders (train, val, test…), each of them with the class folders"
    )
    group_pattern: Annotated[str, AfterValidator(_one_group)] | None = Field(
        None,
        description="regular expression whose first group names the patient; searched in the files' names alone, and "
        "where it is not found in all of them in the images' paths below `root`, with slashes ('/(P[0-9]+)/')",
    )


def open_folder(settings: FolderSettings) -> Dataset:
    """Open class folders of PNG, JPEG, BMP and TIFF files; folders inside a class folder belong to that class.

    The masks of `NAME.EXT` are `NAME_mask.EXT` and `NAME_mask_1.EXT`, `NAME_mask_2.EXT`… beside it; several are
    united. Hidden files and folders are left out without a word, other files that are no images are counted.

    Raises:
        UsageError: no folder, no class folder in it, split folders where `official_splits` is not set, none or other
            folders beside them where it is, a link that leaves the root, an image without a group.
    """
    root = require_folder(settings.root, "source.root")
    parts = _parts(root, settings)
    masks = {
        part.prefix + image: [part.prefix + mask for mask in beside]
        for part in parts
        for image, beside in part.folders.masks.items()
    }
    records = [
        record for part in parts for record in records_of(part.folders, prefix=part.prefix, official_split=part.split)
    ]
    if settings.group_pattern is not None:
        groups = _groups(root, settings.group_pattern, [record.image_id for record in records])
        records = [replace(record, group=group) for record, group in zip(records, groups, strict=True)]
    ignored = [part.prefix + name for part in parts for name in part.folders.ignored]
    if settings.official_splits:
        ignored += [path.name for path in visible_paths(root) if not path.is_dir()]
    return Dataset(
        settings.name,
        parts[0].folders.classes,
        tuple(records),
        synthetic=False,
        load=partial(load_image, root, masks),
        ignored=tuple(sorted(ignored)),
        groups_known=settings.group_pattern is not None,
    )


def fingerprint_folder(settings: FolderSettings) -> str:
    """Return a sha256 over the paths and bytes of all images and masks."""
    parts = _parts(require_folder(settings.root, "source.root"), settings)
    if not settings.official_splits:
        return fingerprint_class_folders(parts[0].folders)
    return sha256_of_json({part.prefix: fingerprint_class_folders(part.folders) for part in parts})


def holds_official_splits(root: Path) -> bool:
    """Return whether a folder holds split folders (train and test, …) where class folders would be.

    Raises:
        UsageError: a name in it that cannot be shown.
    """
    return root.is_dir() and len(set(_split_folders(root).values())) > 1


@dataclass(frozen=True)
class _Part:
    """Class folders that are read together.

    Attributes:
        prefix: of their images' ids, "" or the split folder's name and a slash.
        split: the official split, None where there is none.
        folders: what they hold.
    """

    prefix: str
    split: SplitName | None
    folders: ClassFolders


def _parts(root: Path, settings: FolderSettings) -> Sequence[_Part]:
    """Return the class folders of each split folder, with the classes of all, or those of the root itself."""
    splits = _split_folders(root)
    if not settings.official_splits:
        if holds_official_splits(root):  # a network would learn to tell training images from test images
            raise UsageError(
                f"{root}: expected one folder per class, found the split folders {', '.join(splits)}. Set "
                "`source.official_splits: true` to read the class folders in each of them."
            )
        return [_Part("", None, scan_class_folders(root))]
    _check_split_folders(root, splits)
    found = {name: scan_class_folders(root / name) for name in splits}
    classes = tuple(sorted({name for folders in found.values() for name in folders.classes}))
    return [_Part(f"{name}/", splits[name], replace(folders, classes=classes)) for name, folders in found.items()]


def _split_folders(root: Path) -> Mapping[str, SplitName]:
    """Return name → split of the folders that are named like a split, sorted by name."""
    names = sorted(path.name for path in visible_paths(root) if path.is_dir())
    return {name: split for name in names if (split := split_named(name)) is not None}


def _check_split_folders(root: Path, splits: Mapping[str, SplitName]) -> None:
    folders = sorted(path for path in visible_paths(root) if path.is_dir())
    found = ", ".join(path.name for path in folders) or "none"
    if len(set(splits.values())) < 2 or "train" not in splits.values():
        raise UsageError(
            f"{root}: expected the split folders train and test (and validation), since `source.official_splits` is "
            f"set, found the folders {found}. Set `source.root` to the folder that holds them, or leave the setting "
            "out."
        )
    for path in folders:
        require_inside(root, path)
        if path.is_symlink():
            raise UsageError(f"{path}: expected a folder, found a link to a folder. Remove the link.")
        if path.name not in splits:
            raise UsageError(
                f"{root}: expected only split folders, found {', '.join(splits)} and {path.name}. Move it elsewhere."
            )
    for split, times in Counter(splits.values()).items():
        if times > 1:
            raise UsageError(
                f"{root}: expected one folder for the {split} split, found "
                f"{' and '.join(name for name in splits if splits[name] == split)}. Put them together."
            )


def _groups(root: Path, pattern: str, images: Sequence[str]) -> list[str]:
    """Return each image's group: from the names if all have one, since folders of classes part a patient's images."""
    in_names = [_found(pattern, image.rsplit("/", 1)[-1]) for image in images]
    if all(in_names):
        return in_names
    in_paths = [_found(pattern, image) for image in images]
    if not all(in_paths):
        raise UsageError(
            f"{root / images[in_paths.index('')]}: expected a name in which `source.group_pattern` {pattern!r} finds "
            "a group, alone or with the folders that it is in, found none. Mend the pattern or rename the file."
        )
    return in_paths


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] or "" if match else ""
