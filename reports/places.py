"""The files of a run elsewhere: a matrix of variant and place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from foundation.measurements import Measurement
from foundation.metrics import METRICS, rows_of
from foundation.places import PlaceRecord
from reports import formats
from reports.facts import Facts
from reports.tables import Cell, Column, Row, Table, absent, cell

_AGREEMENT, _EQUAL, _SQNR = "place_agreement", "place_bit_equal", "place_logits_sqnr_db"
_BESIDE = ("accuracy", "latency_p50_ms", "latency_speedup")
_NOBODY_ASKED = "the place was not asked about this file"
_KINDS = {
    "real": "real: its times count",
    "emulated": "emulated: its answers, no times",
    "yardstick": "a yardstick for the others",
}


@dataclass(frozen=True)
class Places:
    """The section of the report: who agrees with here, then every number by place, and what must be known of it."""

    matrix: Table
    tables: tuple[Table, ...]
    told: tuple[tuple[str, str], ...]


def places(facts: Facts) -> Places | None:
    """Return the matrix, a table for each metric, and who answered; None where nobody was asked elsewhere."""
    if not facts.places:
        return None
    found = {(m.metric, m.variant, m.where.place): m for place in facts.places for m in place.measurements}
    shown = [name for name in (*rows_of("places", facts.task), *_BESIDE) if any(key[0] == name for key in found)]
    matrix = _table(facts, found, _AGREEMENT, "Agreement with the same file here")
    return Places(
        replace(matrix, rows=tuple(_with_equality(row, facts, found) for row in matrix.rows)),
        tuple(_table(facts, found, name, METRICS[name].heading) for name in shown if name != _AGREEMENT),
        tuple((place.place, _told(place)) for place in facts.places),
    )


Found = Mapping[tuple[str, str, str | None], Measurement]


def _table(facts: Facts, found: Found, metric: str, caption: str) -> Table:
    rows = tuple(
        Row(variant, tuple(_cell(found.get((metric, variant, one.place)), one) for one in facts.places))
        for variant in facts.variant_names
    )
    columns = tuple(Column(one.place) for one in facts.places)
    legend = METRICS[metric].definitions[facts.task].legend
    return Table(metric.replace("_", "-"), caption, "Variant", columns, rows, legend)


def _cell(measurement: Measurement | None, place: PlaceRecord) -> Cell:
    return cell(measurement) if measurement is not None else absent(place.reason or _NOBODY_ASKED)


def _with_equality(row: Row, facts: Facts, found: Found) -> Row:
    """Return the row with a word in each cell on how near the logits are."""
    words = (_equality(found, row.name, one.place) for one in facts.places)
    return replace(row, cells=tuple(replace(one, remark=word) for one, word in zip(row.cells, words, strict=True)))


def _equality(found: Found, variant: str, place: str) -> str:
    equal, sqnr = (found.get((metric, variant, place)) for metric in (_EQUAL, _SQNR))
    if equal is not None and equal.value == 1.0:
        return "equal bit for bit"
    return formats.with_unit(sqnr.value, "dB") if sqnr is not None and sqnr.value is not None else ""


def _told(place: PlaceRecord) -> str:
    """Return what must be known of a place: what it is, what ran there, and what its numbers are to be read with."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(place.versions.items()))
    notes = (f"{variant}: {note}" for variant, several in place.notes.items() for note in several)
    parts = [place.what, _KINDS[place.kind], versions, *([place.reason] if place.reason else ()), *notes]
    return "; ".join(part.rstrip(".") for part in parts if part) + "."
