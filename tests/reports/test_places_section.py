"""The files elsewhere, and where their nodes ran, as the report shows them."""

from __future__ import annotations

from dataclasses import replace

from small_run import small_record

from foundation.measurements import Measurement, Where
from foundation.placement import NodesOfAKind, Placement
from foundation.places import PlaceRecord
from reports.facts import Facts
from reports.placement import placement
from reports.places import places


def rows(place: str, agreement: float, equal: float, sqnr: float) -> tuple[Measurement, ...]:
    where = Where(split="test", place=place)
    told = {"place_agreement": agreement, "place_bit_equal": equal, "place_logits_sqnr_db": sqnr}
    return tuple(Measurement(name, value, "share", "fp32", where, 200) for name, value in told.items())


def test_the_matrix_says_who_agrees_how_closely_and_who_was_not_asked() -> None:
    arm = PlaceRecord("arm64", "emulated", "ARM", None, {}, {"python": "3.11"}, rows("arm64", 1.0, 1.0, 144.5))
    avx = PlaceRecord("x86-avx2", "emulated", "AVX2", None, {}, {}, rows("x86-avx2", 0.85, 0.0, 9.8))
    avx = replace(avx, notes={"fp32": ("saturates.",)})
    gone = PlaceRecord("wasm", "real", "a browser", None, {}, {}, (), reason="wasm: install it.")
    shown = places(Facts(small_record(), (Measurement("accuracy", 1.0, "share", "fp32"),), places=(arm, avx, gone)))
    assert shown is not None
    (row,) = shown.matrix.rows
    assert [cell.text.replace("\u202f", " ") for cell in row.cells] == ["100 %", "85.0 %", "not measured"]
    assert [cell.remark.replace("\xa0", " ") for cell in row.cells] == ["equal bit for bit", "9.8 dB", ""]
    assert shown.matrix.footnotes == ("wasm: install it.",)
    told = dict(shown.told)
    assert told["x86-avx2"] == "AVX2; emulated: its answers, no times; fp32: saturates."
    assert "real: its times count" in told["wasm"]


def test_a_run_that_asked_nobody_has_no_such_section() -> None:
    assert places(Facts(small_record())) is None
    assert placement(Facts(small_record())) is None


def test_the_time_of_a_file_is_divided_by_what_it_goes_into() -> None:
    kinds = (
        NodesOfAKind("CPUExecutionProvider", "QLinearConv", 35, 0.44),
        NodesOfAKind("CPUExecutionProvider", "Conv", 14, 0.35),
        NodesOfAKind("CPUExecutionProvider", "QuantizeLinear", 33, 0.13),
        NodesOfAKind("CPUExecutionProvider", "Transpose", 30, 0.05),
        NodesOfAKind("CPUExecutionProvider", "Add", 9, 0.03),
    )
    one = Placement("int8", "cpu", kinds, 20, ("14 nodes still compute in float.",))
    shown = placement(Facts(small_record(), placements=(one, Placement("int8", "cuda", (), 0, (), "no GPU"))))
    assert shown is not None
    texts = [[cell.text.replace("\u202f", " ") for cell in row.cells] for row in shown.table.rows]
    assert texts[0] == ["121", "CPU", "44.0 %", "35.0 %", "13.0 %", "5.0 %", "3.0 %"]
    assert set(texts[1]) == {"not measured"}
    assert shown.told == (("int8, cpu", "14 nodes still compute in float."),)
