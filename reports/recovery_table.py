"""What each recovery step did to a static file, as the table beside the list of files."""

from __future__ import annotations

from foundation.note_parts import (
    BiasCorrectionNote,
    CompensatedRoundingNote,
    EqualizationNote,
    HalfRangeNote,
    KeptActivationsNote,
    LearnedRoundingNote,
    ReconstructionNote,
    StepNote,
)
from foundation.notes import static_notes
from reports import formats
from reports.facts import Facts
from reports.tables import Cell, Column, Row, Table, absent


def recovery_table(facts: Facts) -> Table | None:
    """Return one row for each recovery step of each variant; None where no variant took one."""
    rows = []
    for record in facts.record.variants:
        static = static_notes(record.notes)
        for note in static.recovery if static else ():
            name = f"{record.variant}: {note.did.step.replace('_', ' ')}"
            numbers = (note.logits_sqnr_db_before, note.logits_sqnr_db_after, note.gain_db)
            rows.append(Row(name, tuple(map(_db, numbers)), _told(note.did)))
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


def _told(did: StepNote) -> str:
    match did:
        case EqualizationNote():
            return f"{did.pairs:,} pairs of layers, {did.kept_channels:,} channels kept at a clip's bound"
        case LearnedRoundingNote() | CompensatedRoundingNote():
            return f"{did.turned_weights:,} weights not rounded to the nearest"
        case ReconstructionNote():
            return f"{did.turned_weights:,} weights with another integer than before"
        case BiasCorrectionNote():
            return f"{did.layers:,} layers"
        case HalfRangeNote():
            return did.layer
        case KeptActivationsNote():
            return ""
