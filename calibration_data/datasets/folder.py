"""Class folders of image files: `ROOT/CLASS/…/NAME.png`, with masks beside the images where there are any."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from calibration_data.dataset import Dataset, SourceSettings
from calibration_data.datasets.class_folders import (
    fingerprint_class_folders,
    loader_of,
    records_of,
    scan_class_folders,
)
from calibration_data.image_files import require_folder
from foundation.errors import UsageError
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
    group_pattern: Annotated[str, AfterValidator(_one_group)] | None = Field(
        None, description="regular expression whose first group, searched in the file name, names the patient"
    )


def open_folder(settings: FolderSettings) -> Dataset:
    """Open class folders of PNG, JPEG, BMP and TIFF files; folders inside a class folder belong to that class.

    The masks of `NAME.EXT` are `NAME_mask.EXT` and `NAME_mask_1.EXT`, `NAME_mask_2.EXT`… beside it; several are
    united. Hidden files and folders are left out without a word, other files that are no images are counted.

    Raises:
        UsageError: no folder, no class folder in it, a link that leaves it, a file name without a group.
    """
    folders = scan_class_folders(require_folder(settings.root, "source.root"))
    group_of = None if settings.group_pattern is None else partial(_group, folders.root, settings.group_pattern)
    return Dataset(
        settings.name,
        folders.classes,
        records_of(folders, group_of=group_of),
        synthetic=False,
        load=loader_of(folders),
        ignored=folders.ignored,
        groups_known=group_of is not None,
    )


def fingerprint_folder(settings: FolderSettings) -> str:
    """Return a sha256 over the paths and bytes of all images and masks."""
    return fingerprint_class_folders(scan_class_folders(require_folder(settings.root, "source.root")))


def _group(root: Path, pattern: str, image: str) -> str:
    path = root / image
    match = re.search(pattern, path.name)
    if match is None or not match[1]:
        raise UsageError(
            f"{path}: expected a name in which `source.group_pattern` {pattern!r} finds a group, found none. "
            "Mend the pattern or rename the file."
        )
    return str(match[1])
