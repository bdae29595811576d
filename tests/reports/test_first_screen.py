"""The first screen: a word that the criteria bear out, and what a reviewer must know before believing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_run import small_record

from foundation.answer_documents import AnswersInDetail, MachineNote
from foundation.errors import ExitCode
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.notes import ExportNotes
from foundation.record import GateChange, StageRecord, VariantRecord
from foundation.run_folder import RunFolder
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge
from reports.decision import outcome, without_gate
from reports.facts import Facts, read_facts
from reports.first_screen import first_screen
from reports.gate_rows import gate_forests, gate_rows
from reports.watch_out import watch_out

THIN = str.maketrans({"\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " "})


def files(*names: str) -> tuple[VariantRecord, ...]:
    return tuple(VariantRecord(name, "m", f"{name}.onnx", name, 10, None, {}, ExportNotes()) for name in names)


def accuracy(variant: str, value: float, change: PairedDifference | None = None) -> Measurement:
    return Measurement("accuracy", value, "share", variant, Where("cpu", "test"), 200, (0.8, 0.95), {}, change)


LESS = PairedDifference(-0.004, (-0.012, 0.003), "tango", 200, 100)
MEASURED = (accuracy("fp32", 0.9), accuracy("int8", 0.896, LESS))


def facts_of(*gates: Gate, variants: tuple[str, ...] = ("fp32", "int8")) -> Facts:
    record = small_record(
        variants=files(*variants),
        verdicts=judge(gates, MEASURED),
        exit_code=ExitCode.PASSED,
        configuration={"gates": [gate.model_dump(mode="json") for gate in gates]},
    )
    return Facts(record, measurements=MEASURED)


ON_FP32 = Gate(metric="accuracy", variant="fp32", at_least=0.85)
ON_INT8 = Gate(metric="accuracy", variant="int8", at_least=-0.02, relative_to_fp32="difference")
SIZE = Gate(metric="accuracy", variant="int8", at_least=0.5, relative_to_fp32="ratio")


@pytest.mark.parametrize(
    ("gates", "word", "without"),
    [
        ((), "No criteria", ("fp32", "int8")),
        ((ON_FP32,), "No criteria", ("int8",)),
        ((ON_INT8,), "No criteria", ("fp32",)),
        ((ON_FP32, ON_INT8), "Accept", ()),
    ],
)
def test_nothing_is_accepted_without_a_gate_on_the_baseline_and_on_each_variant(
    gates: tuple[Gate, ...], word: str, without: tuple[str, ...]
) -> None:
    facts = facts_of(*gates)
    assert outcome(facts).word == word
    assert without_gate(facts) == without
    if gates and without:
        assert without[0] in outcome(facts).headline


def test_gates_that_were_changed_afterwards_accept_nothing() -> None:
    facts = facts_of(ON_FP32, ON_INT8)
    changed = replace(facts, record=replace(facts.record, gate_changes=(GateChange(("old",), ("new",)),)))
    assert outcome(changed).word == "Cannot be told"
    assert watch_out(changed)[0].title == "Gates changed afterwards"


def test_the_deciding_criterion_stands_with_value_interval_and_margin() -> None:
    screen = first_screen(facts_of(ON_FP32, ON_INT8))
    assert screen.deciding.translate(THIN) == (
        "Nearest to fp32: int8: Accuracy −0.4 points (−1.2 to +0.3) against fp32; at least −2.0 points was asked."
    )
    strict = Gate(metric="accuracy", variant="fp32", at_least=0.95)
    assert first_screen(facts_of(ON_INT8, strict)).deciding.translate(THIN) == (
        "Decisive: fp32: Accuracy 90.0 % (80.0–95.0 %); at least 95.0 % was asked."
    )


def test_each_kind_of_gate_writes_its_limit_as_its_value() -> None:
    rows = gate_rows(facts_of(ON_FP32, ON_INT8, SIZE))
    assert [row.kind for row in rows] == ["level", "difference", "ratio"]
    assert [(row.value_text.translate(THIN), row.limit_text.translate(THIN)) for row in rows] == [
        ("90.0 % (80.0–95.0 %)", "85.0 %"),
        ("−0.4 points (−1.2 to +0.3)", "−2.0 points"),
        ("0.996×", "0.500×"),
    ]
    plots = gate_forests(facts_of(ON_FP32, ON_INT8, SIZE), rows)
    assert [plot.caption for plot in plots] == ["Difference from fp32, points", "Value, %", "Ratio to fp32, ×"]
    assert [plot.zero is None for plot in plots] == [False, True, False]


def test_a_missing_gate_says_why_where_its_number_would_stand() -> None:
    rows = gate_rows(facts_of(Gate(metric="auroc_macro", variant="int8", at_least=0.8)))
    assert (rows[0].value_text, rows[0].status, rows[0].variant) == ("not measured", "missing", "int8")
    assert rows[0].detail == "not measured in this run"


def test_everything_to_watch_out_for_is_told_with_its_place() -> None:
    base = facts_of(ON_FP32, ON_INT8)
    drop = PairedDifference(-0.05, (-0.09, -0.01), "tango", 30, 20)
    where = Where("cpu", "test", subgroup="age: <40")
    young = Measurement("accuracy", 0.8, "share", "int8", where, 30, (0.6, 0.9), {}, drop)
    few = Measurement("sensitivity/rare", 0.0, "share", "fp32", Where("cpu", "test"), 4, (0.0, 0.6))
    stage = StageRecord("quantize", "inc", "failed", "", {}, {}, 1.0, "out of memory")
    facts = replace(
        base,
        record=replace(base.record, synthetic=True, stages=(stage,)),
        measurements=(*MEASURED, young, few),
        answers=AnswersInDetail(2, (), (), ("it answers all images with 'a'.",), {"int8": ("rare",)}),
        machine=MachineNote("The machine was busy: 45 %.", 0.45),
        unreadable=("history.json could not be used",),
    )
    told = {one.title: one for one in watch_out(facts)}
    assert set(told) == {
        "Stage without a result", "Unreadable", "Synthetic data", "Weak baseline", "Never found", "A class got worse",
        "Worst subgroup", "Rare classes", "Busy machine",
    }  # fmt: skip
    assert "−5.0 points against fp32 (−9.0 to −1.0), 30 images." in told["Worst subgroup"].sentence.translate(THIN)
    assert "out of memory" in told["Stage without a result"].sentence
    assert "rare (4 images)" in told["Rare classes"].sentence.translate(THIN)


def test_a_loss_that_chance_explains_is_told_as_such() -> None:
    drop = PairedDifference(-0.05, (-0.12, 0.02), "tango", 30, 20)
    where = Where("cpu", "test", subgroup="age: <40")
    young = Measurement("accuracy", 0.8, "share", "int8", where, 30, (0.6, 0.9), {}, drop)
    (told,) = watch_out(Facts(small_record(), measurements=(young,)))
    assert told.sentence.endswith("chance alone may explain it.")


def test_what_the_decision_rests_on_is_counted(reported_run: RunFolder, labelled_run: RunFolder) -> None:
    classes, labels = (
        {one.name: one.text.translate(THIN) for one in first_screen(read_facts(run)).basis}
        for run in (reported_run, labelled_run)
    )
    assert classes["Images"] == "48 test images of 24 patients or groups; data set endoscopy"
    data = read_facts(reported_run).data
    assert data is not None
    unknown = replace(read_facts(reported_run), data=replace(data, groups_known=False))
    assert first_screen(unknown).basis[0].text.translate(THIN).startswith("48 test images, patients unknown;")
    assert "Patients unknown" in {one.title for one in watch_out(unknown)}
    assert classes["Classes"] == "8 of 8 judged"
    assert labels["Labels"] == "10 of 14 judged, 4 not"
    assert classes["Places"].startswith("1 machine, 2 execution providers")
    assert "numbers not measured" in classes["Numbers"]


def test_a_use_that_nobody_states_is_not_stated() -> None:
    said = {one.name: one for one in first_screen(facts_of(ON_FP32)).subject}
    assert (said["Use"].text, said["Use"].unknown) == ("not stated", True)
    facts = facts_of(ON_FP32)
    configured = {**facts.record.configuration, "report": {"intended_use": " Second reader. "}}
    stated = replace(facts, record=replace(facts.record, configuration=configured))
    assert {one.name: one.text for one in first_screen(stated).subject}["Use"] == "Second reader."
