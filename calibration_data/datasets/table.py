"""A table (CSV) of image files: a row per image, with its class or classes and whatever else is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.class_folders import load_image
from calibration_data.datasets.official_splits import SPELLINGS, split_named
from calibration_data.datasets.table_columns import MOST_SUBGROUPS
from calibration_data.datasets.table_rows import closest, read_rows
from calibration_data.image_files import fingerprint_of_files, require_folder, require_inside
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.settings import LocalPath

_DEFAULT_LABEL = "label"

Column = Annotated[str, Field(min_length=1)]


def _class_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("expected two class names or more, all different")
    if any(name != name.strip() or not name or not name.isprintable() for name in names):
        raise ValueError("expected class names that can be shown, without spaces around them")
    return names


class TableSettings(SourceSettings):
    """A table with one row per image."""

    name: Literal["table"] = Field("table", description="a table (CSV) with one row per image")
    table: LocalPath = Field(
        description="the CSV file: commas, semicolons or tabs, UTF-8, column names in line 1",
        examples=["path/to/table.csv"],
    )
    root: LocalPath | None = Field(
        None, description="the folder that the paths in the table start from; default: the table's own folder"
    )
    path: Column = Field("path", description="column of the image's path below `root`")
    label: Column | None = Field(
        None, description="column of the class, one per image; default: label, unless `labels` is set"
    )
    labels: Column | None = Field(
        None, description="column of any number of labels, in place of `label`; empty: none; makes it multi-label"
    )
    separator: str = Field("|", min_length=1, description="what stands between two labels in `labels`")
    patient: Column | None = Field(
        None, description="column of the patient, who stays on one side of the split; empty: the image itself"
    )
    split: Column | None = Field(
        None,
        description="column of the official split (train, validation, test); empty: the patient's, else undecided",
    )
    mask: Column | None = Field(None, description="column of the lesion mask's path below `root`; empty: none")
    subgroups: Annotated[tuple[Column, ...], Field(strict=False)] = Field(
        (),
        description="columns of subgroups (sex…) of at most 20 values, told as `column: value`; empty: unknown",
    )
    classes: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_class_names)] | None = Field(
        None, description="all classes in their order; default: those of the table, sorted"
    )

    @model_validator(mode="after")
    def _one_kind_of_label(self) -> Self:
        if self.label is not None and self.labels is not None:
            raise ValueError("label and labels exclude each other: set one of them")
        return self


def open_table(settings: TableSettings) -> Dataset:
    """Open the images that a table names, in its order.

    A backslash in a path counts as a slash. An image without a split whose patient has one elsewhere goes there.
    The mask of an image with one of several possible labels shows that label.

    Raises:
        UsageError: no table, or one that `read_rows` refuses; a path that leaves the root, stands twice or leads to
            no file; no label, or one that is none of `classes`; an unknown split; a patient on two official sides;
            fewer than two classes.
    """
    root, entries = _read(settings)
    classes = _classes(settings, entries)
    number = {name: label for label, name in enumerate(classes)}
    sides = _sides_of_patients(settings.table, entries)
    multi_label = settings.labels is not None
    records = []
    for entry in entries:
        labels = tuple(sorted(number[name] for name in entry.labels))
        records.append(
            Record(
                image_id=entry.image,
                label=labels if multi_label else labels[0],
                group=entry.patient or entry.image,
                subgroups=entry.subgroups,
                official_split=entry.split or sides.get(entry.patient),
                sha256=sha256_of_file(root / entry.image),
            )
        )
    masks = {entry.image: (entry.mask,) for entry in entries if entry.mask}
    return Dataset(
        settings.name,
        classes,
        tuple(records),
        synthetic=False,
        load=partial(_load, root, masks),
        groups_known=all(entry.patient for entry in entries),
        task="multi_label" if multi_label else "multi_class",
    )


def fingerprint_table(settings: TableSettings) -> str:
    """Return a sha256 over the table's bytes and the paths and bytes of all images and masks that it names."""
    root, entries = _read(settings)
    names = sorted({name for entry in entries for name in (entry.image, entry.mask) if name})
    files = fingerprint_of_files(root, [root / name for name in names])
    return sha256_of_json({"table": sha256_of_file(settings.table), "files": files})


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of the table; an empty text is an empty cell, or a column that is not named."""

    line: int
    image: str
    labels: tuple[str, ...]
    patient: str
    split: SplitName | None
    mask: str
    subgroups: tuple[str, ...]


def _load(root: Path, masks: Mapping[str, Sequence[str]], record: Record) -> Frame:
    frame = load_image(root, masks, record)
    if frame.mask is not None and isinstance(record.label, tuple) and len(record.label) == 1:
        return replace(frame, mask_class=record.label[0])
    return frame


# --- rows ---


def _read(settings: TableSettings) -> tuple[Path, list[_Entry]]:
    """Return the root, resolved, and the rows, whose files are there."""
    entries = list(_entries(settings))
    root = require_folder(settings.table.parent if settings.root is None else settings.root, "source.root")
    first_line: dict[str, int] = {}
    for entry in entries:
        if first_line.setdefault(entry.image, entry.line) != entry.line:
            raise UsageError(
                f"{settings.table}, line {entry.line}: expected each image once, found {entry.image} again, after "
                f"line {first_line[entry.image]}. Remove one of the rows."
            )
    for name in settings.subgroups:
        values = {told for entry in entries for told in entry.subgroups if told.startswith(f"{name}: ")}
        if len(values) > MOST_SUBGROUPS:
            raise UsageError(
                f"{settings.table}: expected at most {MOST_SUBGROUPS} subgroups in the column {name!r}, found "
                f"{len(values)}. Gather its values (ages as 40–59), or leave it out of `source.subgroups`."
            )
    _check_files(settings.table, root, "image", [(entry.line, entry.image) for entry in entries])
    _check_files(settings.table, root, "mask", [(entry.line, entry.mask) for entry in entries if entry.mask])
    return root, entries


def _entries(settings: TableSettings) -> Iterator[_Entry]:
    label = "labels" if settings.labels is not None else "label"
    keys = ("path", "label", "labels", "patient", "split", "mask")
    columns = {key: name for key in keys if (name := getattr(settings, key)) is not None}
    columns.setdefault(label, _DEFAULT_LABEL)
    columns |= {f"subgroups.{place}": name for place, name in enumerate(settings.subgroups)}
    allowed = None if settings.classes is None else frozenset(settings.classes)
    for line, cells in read_rows(settings.table, columns):
        where = f"{settings.table}, line {line}"
        labels = _labels(where, cells[label], settings)
        for name in labels:
            if allowed is not None and name not in allowed:
                names = list(settings.classes or ())
                raise UsageError(
                    f"{where}: expected one of `source.classes`, found the label {name!r}"
                    f"{closest(name, names) or '.'} Mend it, or add it to the classes."
                )
        yield _Entry(
            line=line,
            image=_path(where, "image", cells["path"]),
            labels=labels,
            patient=cells.get("patient", ""),
            split=_split(where, cells.get("split", "")),
            mask=_path(where, "mask", cells["mask"]) if cells.get("mask") else "",
            subgroups=tuple(
                f"{name}: {cells[f'subgroups.{place}']}"
                for place, name in enumerate(settings.subgroups)
                if cells[f"subgroups.{place}"]
            ),
        )


def _labels(where: str, cell: str, settings: TableSettings) -> tuple[str, ...]:
    if settings.labels is not None:
        parts = (part.strip() for part in cell.split(settings.separator))
        return tuple(dict.fromkeys(part for part in parts if part))
    if not cell:
        raise UsageError(
            f"{where}: expected a class in the column {settings.label or _DEFAULT_LABEL!r}, found an empty cell. "
            "Fill it or remove the row; where an image may have no label, set `source.labels`."
        )
    return (cell,)


def _split(where: str, cell: str) -> SplitName | None:
    split = split_named(cell)
    if cell and split is None:
        raise UsageError(
            f"{where}: expected a split ({', '.join(SPELLINGS)}) or nothing, found {cell!r}. Mend that cell."
        )
    return split


def _path(where: str, what: str, cell: str) -> str:
    """Return a path below the root, with slashes, the same for every way to write it."""
    path = PurePosixPath(cell.replace("\\", "/"))
    if not cell:
        raise UsageError(f"{where}: expected the {what}'s path, found an empty cell. Fill it or remove the row.")
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"{where}: expected the {what}'s path below `source.root`, found {cell!r}. Write it from that folder on."
        )
    return path.as_posix()


# --- all rows together ---


def _check_files(table: Path, root: Path, what: str, files: Sequence[tuple[int, str]]) -> None:
    missing = []
    for line, name in files:
        path = root / name
        if not _is_file(path):
            missing.append((line, name))
            continue
        try:
            require_inside(root, path)
        except UsageError as error:
            raise UsageError(f"{table}, line {line}: {error}") from error
    if missing:
        line, name = missing[0]
        raise UsageError(
            f"{table}, line {line}: expected the {what} {name} below {root}, found no such file; of {len(files)} "
            f"{what}s {len(missing)} are missing. Set `source.root` to the folder that the paths start from, or mend "
            "the table."
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system, a folder that may not be entered
        return False


def _classes(settings: TableSettings, entries: Sequence[_Entry]) -> tuple[str, ...]:
    if settings.classes is not None:
        return settings.classes
    found = sorted({name for entry in entries for name in entry.labels})
    if len(found) < 2:
        column = settings.labels or settings.label or _DEFAULT_LABEL
        alone = f"only {found[0]!r}" if found else "none"
        raise UsageError(
            f"{settings.table}, lines {entries[0].line} to {entries[-1].line}: expected two classes or more in the "
            f"column {column!r}, found {alone}. Add images of another class, or name all classes in `source.classes`."
        )
    return tuple(found)


def _sides_of_patients(table: Path, entries: Sequence[_Entry]) -> Mapping[str, SplitName]:
    """Return patient → the official side of all images of that patient, where one of them has any."""
    first: dict[str, tuple[int, SplitName]] = {}
    for entry in entries:
        if not entry.patient or entry.split is None:
            continue
        line, side = first.setdefault(entry.patient, (entry.line, entry.split))
        if side != entry.split:
            raise UsageError(
                f"{table}, line {entry.line}: expected the patient {entry.patient!r} on one side, found "
                f"{entry.split}, and {side} in line {line}. Put all images of the patient into one split."
            )
    return {patient: side for patient, (_, side) in first.items()}
