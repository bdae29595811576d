from __future__ import annotations

from foundation.measurements import Measurement, PairedDifference, Where
from reports import formats
from reports.report_json import verdict_json
from reports.tables import cell

LOST = PairedDifference(-0.012, (-0.021, 0.003), "tango", 500, 500, 0.01, 0.022, 500.0, 500.0, 0.03)


def accuracy(metric: str = "accuracy", unit: str = "share") -> Measurement:
    return Measurement(metric, 0.9, unit, "fp16", Where("cpu", "test"), 500, (0.87, 0.92), difference=LOST)


def test_a_variant_is_shown_with_its_difference_from_fp32() -> None:
    assert cell(accuracy()).remark == "−1.2 points against fp32 (−2.1 to +0.3)"
    assert cell(accuracy("auroc_macro")).remark == "−0.012 against fp32 (−0.021 to +0.003)"  # shown as a probability


def test_agreement_is_a_comparison_already() -> None:
    assert cell(accuracy("agreement")).remark == ""


def test_a_difference_without_an_interval_says_so() -> None:
    assert formats.change(0.004, None, "share") == "+0.4 points against fp32 (no interval)"


def test_the_difference_is_published() -> None:
    from foundation.record import Verdict

    shown = verdict_json(Verdict("g", "passed", 0.9, 0.8, "", accuracy()))["measurement"]
    assert shown["difference"]["gained"] == 0.01
    assert shown["difference"]["ci95"] == (-0.021, 0.003)
