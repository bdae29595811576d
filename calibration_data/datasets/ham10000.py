"""HAM10000: dermoscopy of pigmented skin lesions in seven classes, with masks, and several images of some lesions.

Tschandl et al., The HAM10000 dataset, Scientific Data 2018 (arXiv 1803.10417). There is no official split among these
images, and lesions are named where patients are not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from calibration_data.dataset import Dataset, Record, SourceSettings
from calibration_data.datasets.class_folders import load_image
from calibration_data.datasets.comma_separated import numbered_rows
from calibration_data.image_files import fingerprint_of_files, is_image_name, require_folder, require_inside
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.settings import LocalPath

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata")
IMAGE_FOLDERS = ("images", "HAM10000_images_part_1", "HAM10000_images_part_2")
MASK_FOLDERS = ("masks", "HAM10000_segmentations_lesion_tschandl")
_MASK_ENDING = "_segmentation.png"
_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_UNKNOWN = ("", "unknown", "nan")
_MIDDLE_AGE, _OLD_AGE, _LARGEST_AGE = 40, 60, 130


class Ham10000Settings(SourceSettings):
    """HAM10000 as its authors pack it, whole or in part."""

    name: Literal["ham10000"] = Field("ham10000", description="dermoscopy of pigmented lesions of seven classes")
    root: LocalPath = Field(
        description=f"the folder with {TABLES[0]}, with {IMAGE_FOLDERS[0]}/ or {IMAGE_FOLDERS[1]}/ and "
        f"{IMAGE_FOLDERS[2]}/, and with {MASK_FOLDERS[0]}/ or {MASK_FOLDERS[1]}/ where there are masks"
    )


def open_ham10000(settings: Ham10000Settings) -> Dataset:
    """Open the images that the table lists and a folder holds; the lesion is the group.

    Images of the table that are not there are passed over: the published set comes in two parts.

    Raises:
        UsageError: the table or the images are missing, a row is malformed, an image lies in two folders, a link
            leaves the folder.
    """
    files = _files(require_folder(settings.root, "source.root"))
    records = tuple(
        Record(
            image_id=path,
            label=files.rows[name].label,
            group=files.rows[name].lesion,
            subgroups=files.rows[name].subgroups,
            official_split=None,
            sha256=sha256_of_file(files.root / path),
        )
        for name, path in files.images.items()
    )
    masks = {path: (files.masks[name],) for name, path in files.images.items() if name in files.masks}
    return Dataset(
        settings.name,
        CLASSES,
        records,
        synthetic=False,
        load=partial(load_image, files.root, masks),
        ignored=files.ignored,
        missing=files.missing,
        groups_known=True,
    )


def fingerprint_ham10000(settings: Ham10000Settings) -> str:
    """Return a sha256 over the table and over the paths and bytes of the images and masks that are used."""
    files = _files(require_folder(settings.root, "source.root"))
    used = [*files.images.values(), *(files.masks[name] for name in files.images if name in files.masks)]
    return sha256_of_json(
        {
            "table": sha256_of_file(files.table),  # under either name
            "files": fingerprint_of_files(files.root, [files.root / path for path in used]),
        }
    )


# --- the table ---


@dataclass(frozen=True)
class _Row:
    """A row of the table."""

    lesion: str
    label: int
    subgroups: tuple[str, ...]


def _table_path(root: Path) -> Path:
    for name in TABLES:
        if (root / name).is_file():
            return require_inside(root, root / name)
    raise UsageError(f"{root}: expected {TABLES[0]}, found nothing of that name. Put the authors' table there.")


def _read_rows(path: Path) -> dict[str, _Row]:
    """Return image_id → row."""
    lines = numbered_rows(path)
    header = [name.strip() for name in next(lines, (0, []))[1]]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise UsageError(
            f"{path}: expected a column {missing[0]!r} in line 1, found {', '.join(header)[:200] or 'nothing'}. "
            "Get the authors' table again."
        )
    rows: dict[str, _Row] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            raise UsageError(
                f"{path}: expected {len(header)} columns in line {line}, found {len(cells)}. Mend the line."
            )
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        for name in ("lesion_id", "image_id"):
            if not row[name]:
                raise UsageError(f"{path}: expected the {name} in line {line}, found none. Mend the line.")
        if row["image_id"] in rows:
            raise UsageError(
                f"{path}: expected each image once, found {row['image_id']!a} again in line {line}. Remove one."
            )
        if row["dx"] not in CLASSES:
            raise UsageError(
                f"{path}: expected a dx out of {', '.join(CLASSES)} in line {line}, found {row['dx']!a}. "
                "Mend the line."
            )
        rows[row["image_id"]] = _Row(row["lesion_id"], CLASSES.index(row["dx"]), _subgroups(row, path, line))
    if not rows:
        raise UsageError(f"{path}: expected a row per image, found none. Get the authors' table again.")
    return rows


def _subgroups(row: Mapping[str, str], path: Path, line: int) -> tuple[str, ...]:
    """Return the printed names of an image's subgroups, none on an axis where it is unknown."""
    named = (
        ("sex", row["sex"]),
        ("age", _age_band(row["age"], path, line)),
        ("localization", row["localization"]),
        ("confirmation", row["dx_type"]),
    )
    return tuple(f"{axis}: {value}" for axis, value in named if value.lower() not in _UNKNOWN)


def _age_band(text: str, path: Path, line: int) -> str:
    """Return the band of an age in years, "" where it is unknown."""
    if text.lower() in _UNKNOWN:
        return ""
    try:
        age = float(text)
    except ValueError:
        age = -1.0
    if not 0 <= age <= _LARGEST_AGE:
        raise UsageError(
            f"{path}: expected an age from 0 to {_LARGEST_AGE} in line {line}, found {text!a}. Mend the line or "
            "leave the age empty."
        )
    if age < _MIDDLE_AGE:
        return f"<{_MIDDLE_AGE}"
    return f"{_MIDDLE_AGE}–{_OLD_AGE - 1}" if age < _OLD_AGE else f"≥{_OLD_AGE}"


# --- the files ---


@dataclass(frozen=True)
class _Files:
    """What lies at the root; paths are below it, with slashes.

    Attributes:
        root: the folder, resolved.
        table: the table.
        rows: image_id → its row.
        images: image_id → path of each image that is listed and there, sorted by path.
        masks: image_id → path of its mask, of whatever image.
        missing: image_ids that are listed and not there.
        ignored: paths of files in the folders that are neither, sorted.
    """

    root: Path
    table: Path
    rows: Mapping[str, _Row]
    images: Mapping[str, str]
    masks: Mapping[str, str]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


def _files(root: Path) -> _Files:
    table = _table_path(root)
    rows = _read_rows(table)
    ignored: list[str] = []
    if not any((root / name).is_dir() for name in IMAGE_FOLDERS):
        raise UsageError(
            f"{root}: expected images in one of the folders {', '.join(IMAGE_FOLDERS)}, found none of them. "
            "Unpack the images there."
        )
    images = _found(root, IMAGE_FOLDERS, lambda name: Path(name).stem if is_image_name(name) else None, rows, ignored)
    masks = _found(
        root,
        MASK_FOLDERS,
        lambda name: name.removesuffix(_MASK_ENDING) if name.endswith(_MASK_ENDING) else None,
        rows,
        ignored,
    )
    if not images:
        raise UsageError(
            f"{table}: expected some of its {len(rows)} images in {' or '.join(IMAGE_FOLDERS)}, found none. "
            "Unpack the images there."
        )
    missing = tuple(name for name in rows if name not in images)
    return _Files(root, table, rows, images, masks, missing, tuple(sorted(ignored)))


def _found(
    root: Path,
    folders: tuple[str, ...],
    image_of: Callable[[str], str | None],
    rows: Mapping[str, _Row],
    ignored: list[str],
) -> dict[str, str]:
    """Return image_id → path of the files of listed images, sorted by path; note all others that are not hidden.

    Args:
        root: the folder that holds the folders.
        folders: names of folders, of which some may be missing.
        image_of: name of a file → image_id, None where it is none.
        rows: the listed images.
        ignored: where the other files' paths go.
    """
    found: dict[str, str] = {}
    for folder in folders:
        if not (root / folder).is_dir():
            continue
        with os.scandir(require_inside(root, root / folder)) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            path, image = f"{folder}/{name}", image_of(name)
            require_inside(root, root / path)
            if image not in rows or image is None or not (root / path).is_file():
                ignored.append(path)
            elif found.setdefault(image, path) != path:
                raise UsageError(f"{root}: expected each image once, found {found[image]} and {path}. Remove one.")
    return dict(sorted(found.items(), key=lambda item: item[1]))
