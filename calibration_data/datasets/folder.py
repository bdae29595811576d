"""Class folders of image files: `ROOT/CLASS/…/NAME.png`, with masks beside the images where there are any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from calibration_data.dataset import BadImageError, Dataset, Frame, Record, SourceSettings
from calibration_data.image_files import (
    IMAGE_SUFFIXES,
    fingerprint_of_files,
    read_mask,
    read_pixels,
    require_folder,
    require_inside,
)
from pipeline.artifacts import sha256_of_file, sha256_of_json
from pipeline.errors import UsageError

_MASK_STEM = re.compile(r"(?P<image>.+)_mask(?:_\d+)?", re.DOTALL)


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
    root: Annotated[Path, Field(strict=False)] = Field(description="the folder that holds the class folders")
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
    root = require_folder(settings.root, "source.root")
    images, masks, ignored = _scan(root)
    classes = tuple(sorted(path.name for path in _visible(root) if path.is_dir()))
    if not classes:
        raise UsageError(f"{settings.root}: expected one folder per class, found none. Sort the images into folders.")
    by_id = {path.relative_to(root).as_posix(): path for path in images}
    records = tuple(
        Record(
            image_id=image_id,
            label=classes.index(path.relative_to(root).parts[0]),
            group=image_id if settings.group_pattern is None else _group(path, settings.group_pattern),
            subgroup="",
            official_split=None,
            sha256=sha256_of_file(path),
        )
        for image_id, path in by_id.items()
    )

    def load(record: Record) -> Frame:
        path = by_id[record.image_id]
        pixels = read_pixels(path)
        return Frame(pixels, _united(masks.get(path, []), pixels.shape[:2]))

    return Dataset(settings.name, classes, records, synthetic=False, load=load, ignored=tuple(ignored))


def fingerprint_folder(settings: FolderSettings) -> str:
    """Return a sha256 over the paths and bytes of all images and masks."""
    root = require_folder(settings.root, "source.root")
    images, masks, _ = _scan(root)
    files = fingerprint_of_files(root, [*images, *(path for paths in masks.values() for path in paths)])
    return sha256_of_json({"classes": [folder.name for folder in _visible(root) if folder.is_dir()], "files": files})


def _scan(root: Path) -> tuple[list[Path], dict[Path, list[Path]], list[str]]:
    """Return the images, the masks of each image, and the names of all other files, each sorted by its path."""
    files: list[Path] = []
    ignored: list[str] = []
    pending = [root]
    while pending:
        folder = pending.pop()
        for path in _visible(folder):
            require_inside(root, path)
            if path.is_dir():
                if path.is_symlink():  # its images would be there twice, or without end
                    raise UsageError(f"{path}: expected a folder, found a link to a folder. Remove the link.")
                pending.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES and folder != root:
                if not path.is_file():
                    raise UsageError(f"{path}: expected an image file, found a pipe or a link to nothing. Remove it.")
                files.append(path)
            else:
                ignored.append(path.relative_to(root).as_posix())
    files.sort(key=lambda path: path.relative_to(root).as_posix())
    by_stem = {path.with_suffix(""): path for path in files}
    images: list[Path] = []
    masks: dict[Path, list[Path]] = {}
    for path in files:
        match = _MASK_STEM.fullmatch(path.stem)
        if match is None:
            images.append(path)
        elif image := by_stem.get(path.with_name(match["image"])):
            masks.setdefault(image, []).append(path)
        else:
            ignored.append(path.relative_to(root).as_posix())
    return images, masks, sorted(ignored)


def _visible(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in paths:
        if not path.name.isprintable():  # half a character of another encoding, or a command to the terminal
            raise UsageError(f"{str(path)!a}: expected a name in printable UTF-8. Rename it.")
    return paths


def _group(path: Path, pattern: str) -> str:
    match = re.search(pattern, path.name)
    if match is None or not match[1]:
        raise UsageError(
            f"{path}: expected a name in which `source.group_pattern` {pattern!r} finds a group, found none. "
            "Mend the pattern or rename the file."
        )
    return str(match[1])


def _united(paths: list[Path], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return the union of the masks, None where there are none."""
    if not paths:
        return None
    union = np.zeros(shape, dtype=np.bool_)
    for path in paths:
        try:
            mask = read_mask(path)
        except BadImageError as error:
            raise BadImageError(f"its mask {path.name}: {error}") from error
        if mask.shape != shape:
            expected, found = (f"{size[1]} × {size[0]}" for size in (shape, mask.shape))
            raise BadImageError(f"its mask {path.name}: expected {expected} pixels, found {found}")
        union |= mask
    return union
