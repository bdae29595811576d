"""What each recovery step did to a static file, as the table beside the list of files."""

from __future__ import annotations

from collections.abc import Mapping

from foundation.files import JSON
from reports import formats
from reports.facts import Facts
from reports.tables import Cell, Column, Row, Table, absent

_DETAILS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "equalization": (("pairs", "pairs of layers"), ("kept_channels", "channels kept at a clip's bound")),
    "learned_rounding": (("turned_weights", "weights not rounded to the nearest"),),
    "bias_correction": (("layers", "layers"),),
    "first_layer_half_range": (("layer", ""),),
}
"""Counts that a step's note holds, with what they count."""


def recovery_table(facts: Facts) -> Table | None:
    """Return one row for each recovery step of each variant; None where no variant took one."""
    rows = []
    for record in facts.record.variants:
        notes = record.notes.get("recovery")
        for note in notes if isinstance(notes, list) else []:
            before, after = note.get("logits_sqnr_db_before"), note.get("logits_sqnr_db_after")
            gain = after - before if before is not None and after is not None else None
            step = str(note["step"])
            rows.append(
                Row(f"{record.variant}: {step.replace('_', ' ')}", (_db(before), _db(after), _db(gain)), _did(note))
            )
    if not rows:
        return None
    return Table(
        "recovery",
        "Recovery steps, in their order",
        "Variant and step",
        (Column("SQNR before"), Column("SQNR after"), Column("Difference")),
        tuple(rows),
        "SQNR of the logits against the float file, on the calibration images, on which the steps were taken: for "
        "choosing steps, not for judging the file.",
    )


def _db(value: float | None) -> Cell:
    return absent("the logits are equal, or not finite") if value is None else Cell(formats.with_unit(value, "dB"))


def _did(note: Mapping[str, JSON]) -> str:
    parts = (
        f"{note[key]:,} {words}" if isinstance(note[key], int) else str(note[key])
        for key, words in _DETAILS.get(str(note["step"]), ())
        if key in note
    )
    return ", ".join(parts)
