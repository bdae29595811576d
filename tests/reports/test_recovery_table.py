from __future__ import annotations

from dataclasses import replace

from foundation.note_parts import BiasCorrectionNote, EqualizationNote, RecoveryStepNote
from foundation.notes import StaticNotes
from foundation.run_folder import RunFolder
from reports.facts import Facts, read_facts
from reports.html import render
from reports.recovery_table import recovery_table

STEPS = (
    RecoveryStepNote(
        did=EqualizationNote(pairs=1234, kept_channels=0, largest_factor=2.0, float_sqnr_db=120.0),
        logits_sqnr_db_before=-1.0625,
        logits_sqnr_db_after=19.5,
    ),
    RecoveryStepNote(did=BiasCorrectionNote(layers=53), logits_sqnr_db_before=19.5, logits_sqnr_db_after=None),
)
NOTES = StaticNotes(
    activation_type="uint8",
    weight_type="int8",
    reduce_range=False,
    layers=53,
    float_layers=(),
    calibration_images=(),
    saturation=None,
    recovery=STEPS,
)


def with_notes(run: RunFolder) -> Facts:
    facts = read_facts(run)
    variants = tuple(
        replace(record, notes=NOTES) if record.variant == "static-int8" else record
        for record in facts.record.variants
    )
    return replace(facts, record=replace(facts.record, variants=variants))


def test_each_step_is_a_row_with_what_it_changed(reported_run: RunFolder) -> None:
    table = recovery_table(with_notes(reported_run))
    assert table is not None
    first, second = table.rows
    assert first.name == "static-int8: equalization"
    assert [cell.text.replace("\N{NO-BREAK SPACE}", " ") for cell in first.cells] == ["−1.1 dB", "19.5 dB", "20.6 dB"]
    assert first.detail == "1,234 pairs of layers, 0 channels kept at a clip's bound"
    assert second.cells[1].reason == "the logits are equal, or not finite"
    assert second.detail == "53 layers"


def test_the_page_shows_the_table_only_where_a_step_was_taken(reported_run: RunFolder) -> None:
    assert recovery_table(read_facts(reported_run)) is None
    assert "Recovery steps" not in render(read_facts(reported_run))
    assert "static-int8: bias correction" in render(with_notes(reported_run))
