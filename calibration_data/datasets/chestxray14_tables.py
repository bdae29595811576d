"""The files that the NIH packs with ChestX-ray14's images: the table, the official lists and the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration_data.datasets.comma_separated import listed_names, numbered_rows
from calibration_data.image_files import require_file, require_inside
from calibration_data.prepared import SplitName
from foundation.errors import UsageError

CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""In the order of the paper, which CheXNet and ChestMNIST keep."""

_NO_FINDING = "No Finding"
ENTRIES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
LISTS: tuple[tuple[str, SplitName], ...] = (("train_val_list.txt", "train"), ("test_list.txt", "test"))
BOXES = "BBox_List_2017.csv"
_BOX_FINDINGS = {"Infiltrate": "Infiltration"}
"""How the file of boxes spells a finding → how the labels do."""
ORIGINAL_PX = 1024
"""Height and width of an original; boxes are in its pixels."""


@dataclass(frozen=True)
class Box:
    """A box in pixels of the 1024 px original."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Boxes:
    """An image's boxes of one finding."""

    label: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    labels: tuple[int, ...]
    patient: str
    subgroups: tuple[str, ...]


def entries_path(root: Path) -> Path:
    """Return the path of the table, under either of its names.

    Raises:
        UsageError: it is missing.
    """
    for name in ENTRIES:
        if (root / name).is_file():
            return require_inside(root, root / name)
    raise UsageError(f"{root}: expected {ENTRIES[0]}, found nothing of that name. Put the authors' table there.")


def read_entries(root: Path, subgroup_columns: Sequence[str]) -> dict[str, Entry]:
    """Return name → row of the table.

    Args:
        root: the folder of the table.
        subgroup_columns: names of a column, the first that is there counts; no subgroups where none is.

    Raises:
        UsageError: the table is missing or malformed, names an image twice, or an unknown finding.
    """
    path = entries_path(root)
    rows = numbered_rows(path)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    columns = {name: index for index, name in enumerate(header)}
    for needed in ("Image Index", "Finding Labels", "Patient ID"):
        if needed not in columns:
            raise UsageError(f"{path}: expected a column {needed!r}, found {', '.join(header)[:200] or 'nothing'}.")
    subgroup = next((columns[name] for name in subgroup_columns if name in columns), None)
    entries: dict[str, Entry] = {}
    for line, row in rows:
        if len(row) < len(header) or not row[columns["Patient ID"]].strip():
            raise UsageError(f"{path}: expected {len(header)} columns and a patient in line {line}, found {row!a}.")
        name = row[columns["Image Index"]].strip()
        if name in entries:
            raise UsageError(f"{path}: expected each image once, found {name!a} again in line {line}.")
        entries[name] = Entry(
            labels=_labels(row[columns["Finding Labels"]], path, line),
            patient=row[columns["Patient ID"]].strip(),
            subgroups=() if subgroup is None or not row[subgroup].strip() else (row[subgroup].strip(),),
        )
    if not entries:
        raise UsageError(f"{path}: expected a row per image, found none. Get the authors' table again.")
    return entries


def _labels(text: str, path: Path, line: int) -> tuple[int, ...]:
    names = [name.strip() for name in text.split("|")]
    if names == [_NO_FINDING]:
        return ()
    unknown = [name for name in names if name not in CLASSES]
    if unknown:
        raise UsageError(
            f"{path}: expected {_NO_FINDING!r} alone, or findings out of {', '.join(CLASSES)}; found {unknown[0]!a} "
            f"in line {line}."
        )
    return tuple(sorted({CLASSES.index(name) for name in names}))


def read_lists(root: Path) -> dict[str, SplitName]:
    """Return name → official split; what is trained on is divided into train and validation by patient.

    Raises:
        UsageError: a list is missing, or an image stands in both.
    """
    splits: dict[str, SplitName] = {}
    for name, split in LISTS:
        path = require_inside(root, require_file(root / name, "an official list of images"))
        for image in listed_names(path):
            if splits.setdefault(image, split) != split:
                raise UsageError(f"{path}: expected no image in both lists, found {image!a}. Get the official lists.")
    return splits


def read_boxes(root: Path) -> dict[str, Boxes]:
    """Return name → the boxes of the finding that is listed first; nothing where there is no such file.

    Raises:
        UsageError: a line is no box.
    """
    path = root / BOXES
    if not path.is_file():
        return {}
    rows = numbered_rows(require_inside(root, path))
    next(rows, None)  # "Image Index,Finding Label,Bbox [x,y,w,h]": six columns, and three empty ones in the original
    boxes: dict[str, Boxes] = {}
    for line, row in rows:
        try:
            name, finding = row[0].strip(), row[1].strip()
            label = CLASSES.index(_BOX_FINDINGS.get(finding, finding))
            box = Box(*(float(value) for value in row[2:6]))
        except (IndexError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path}: expected image, finding, x, y, width and height in line {line}, found {row!a}."
            ) from error
        edges = (box.left, box.top, box.left + box.width, box.top + box.height)
        if not (box.width > 0 and box.height > 0 and all(-1 <= edge <= ORIGINAL_PX + 1 for edge in edges)):
            raise UsageError(f"{path}: expected a box inside {ORIGINAL_PX} px in line {line}, found {row[2:6]}.")
        first = boxes.setdefault(name, Boxes(label, ()))
        if first.label == label:
            boxes[name] = Boxes(label, (*first.boxes, box))
    return boxes
