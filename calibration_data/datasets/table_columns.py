"""What the columns of a table of images are by their usual names, where nobody writes settings for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calibration_data.datasets.official_splits import split_named
from calibration_data.datasets.table_rows import read_header, read_rows

MOST_SUBGROUPS = 20
"""Different values of a column of subgroups: each is measured by itself, and of a few images nothing can be said."""

_USUAL: Mapping[str, tuple[str, ...]] = {
    "patient": ("patient", "patient_id", "patientid"),
    "split": ("split",),
    "mask": ("mask",),
}
"""Setting of `TableSettings` → the names, in lower case, that its column usually has, the likeliest first."""
_SUBGROUPS = frozenset(
    ("sex", "gender", "age", "age_group", "device", "scanner", "site", "hospital", "race", "ethnicity", "skin_type")
)


@dataclass(frozen=True)
class UsualColumns:
    """What a table's columns are taken to be.

    Attributes:
        settings: of `TableSettings`, without those that keep their default.
        left_out: a sentence for each column of a usual name that cannot be used.
    """

    settings: Mapping[str, str | tuple[str, ...]]
    left_out: tuple[str, ...]


def usual_columns(table: Path) -> UsualColumns:
    """Return which columns of a table have a usual name and usable values.

    Raises:
        UsageError: no table, or one that `read_rows` refuses.
    """
    header = read_header(table)
    by_lower = {name.lower(): name for name in reversed(header)}
    found: dict[str, str | tuple[str, ...]] = {}
    for setting, names in _USUAL.items():
        column = next((by_lower[name] for name in names if name in by_lower), None)
        if column is not None:
            found[setting] = column
    if "label" not in header and "labels" in header:
        found["labels"] = "labels"
    subgroups = [name for name in header if name.lower() in _SUBGROUPS]
    counted = _values(table, [*subgroups, *([str(found["split"])] if "split" in found else ())])
    left_out = []
    if "split" in found and (why := _why_no_split(counted[str(found["split"])])):
        left_out.append(f"The column {found.pop('split')!r} is left out: {why}.")
    usable = []
    for name in subgroups:
        if why := _why_no_subgroups(counted[name]):
            left_out.append(f"The column {name!r} is left out as subgroups: {why}.")
        else:
            usable.append(name)
    if usable:
        found["subgroups"] = tuple(usable)
    return UsualColumns(found, tuple(left_out))


def _why_no_subgroups(values: Counter[str]) -> str:
    """Return why a column's values are no subgroups, "" where they are."""
    named = {value: count for value, count in values.items() if value}
    if len(named) > MOST_SUBGROUPS:
        return f"it has {len(named)} different values, more than the {MOST_SUBGROUPS} that are measured one by one"
    if named and max(named.values()) == 1:
        return "every value belongs to one image"
    return ""


def _why_no_split(values: Counter[str]) -> str:
    """Return why a column does not divide the images, "" where it does."""
    strange = sorted(value for value in values if value and split_named(value) is None)
    if strange:
        return f"{strange[0]!r} names no split"
    if not any(value == "" or split_named(value) == "train" for value in values):
        return "it leaves no image to calibrate on"
    return ""


def _values(table: Path, columns: list[str]) -> dict[str, Counter[str]]:
    """Return how often each value stands in some columns."""
    counted: dict[str, Counter[str]] = {name: Counter() for name in columns}
    for _, cells in read_rows(table, {name: name for name in columns}) if columns else ():
        for name, cell in cells.items():
            counted[name][cell] += 1
    return counted
