"""What was found at places, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from foundation.errors import ExitCode
from foundation.files import JSON
from foundation.measurements import Measurement
from foundation.places import PlaceRecord
from foundation.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

_NONE = "–"


def is_complete(found: Sequence[PlaceRecord]) -> bool:
    """Return whether every number that was asked for is there."""
    return all(place.reason is None for place in found) and all(
        row.value is not None for place in found for row in place.measurements
    )


def exit_code_of_places(found: Sequence[PlaceRecord], of_run: ExitCode | None) -> ExitCode:
    """Return 3 where a place has not answered all, else how the run ends with its gates, else 0."""
    if not is_complete(found):
        return ExitCode.INCOMPLETE
    return ExitCode.PASSED if of_run is None else of_run


def places_table(found: Sequence[PlaceRecord]) -> Table:
    """Return one row for each file at each place."""
    from rich.table import Table

    caption = "Each file there against itself here; a time is told of a real place alone, beside fp32's over it."
    table = Table("place", "variant", "agreement", "SQNR", "largest", "maps", "ms", caption=caption)
    for place in found:
        by_variant: dict[str, dict[str, Measurement]] = {}
        for row in place.measurements:
            by_variant.setdefault(row.variant, {})[row.metric] = row
        for variant, rows in by_variant.items():
            table.add_row(printable(place.place), printable(variant), *_cells(rows))
    return table


def notes_of(found: Sequence[PlaceRecord]) -> list[str]:
    """Return what must be read with the numbers, a line each: why something is missing, why it differs."""
    lines = []
    for place in found:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(place.versions.items()))
        lines.append(f"{place.place}: {place.what}{f'; {versions}' if versions else ''}")
        if place.reason is not None:
            lines.append(f"  ✗ {place.reason}")
        untold = (one for one in _untold(place) if one.reason != place.reason)
        lines += [f"  ✗ {one.variant}: {one.metric}: {one.reason}" for one in untold]
        lines += [f"  ! {variant}: {note}" for variant, told in place.notes.items() for note in told]
    return [printable(line) for line in lines]


def places_json(found: Sequence[PlaceRecord], exit_code: ExitCode) -> dict[str, JSON]:
    """Return what was found as `--json` prints it."""
    return {"exit_code": int(exit_code), "places": [asdict(place) for place in found]}


def _untold(place: PlaceRecord) -> list[Measurement]:
    """Return the first absence of each file with its reason."""
    first: dict[tuple[str, str | None], Measurement] = {}
    for row in place.measurements:
        if row.value is None:
            first.setdefault((row.variant, row.reason), row)
    return list(first.values())


def _cells(rows: dict[str, Measurement]) -> list[str]:
    agreement, equal = _value(rows, "place_agreement"), _value(rows, "place_bit_equal")
    sqnr, largest = _value(rows, "place_logits_sqnr_db"), _value(rows, "place_largest_difference")
    maps = _value(rows, "place_saliency_spearman")
    time, speedup = _value(rows, "latency_p50_ms"), _value(rows, "latency_speedup")
    return [
        _NONE if agreement is None else f"{agreement:.2%}",
        "bit-equal" if equal == 1.0 else _NONE if sqnr is None else f"{sqnr:.1f} dB",
        _NONE if largest is None else f"{largest:.2g}",
        _NONE if maps is None else f"{maps:.4f}",
        _NONE if time is None else f"{time:.3g}{'' if speedup is None else f' ({speedup:.2f}×)'}",
    ]


def _value(rows: dict[str, Measurement], metric: str) -> float | None:
    return rows[metric].value if metric in rows else None
