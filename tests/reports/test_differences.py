from __future__ import annotations

from small_run import small_record

from foundation.measurements import Measurement, PairedDifference, Where
from foundation.record import Verdict
from reports import formats, html
from reports.facts import Facts
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
    shown = verdict_json(Verdict("g", "passed", 0.9, 0.8, "", accuracy()))["measurement"]
    assert shown["difference"]["gained"] == 0.01
    assert shown["difference"]["ci95"] == [-0.021, 0.003]


def test_a_gate_on_a_difference_shows_the_difference_and_not_the_value() -> None:
    difference = PairedDifference(0.00668, (0.0036, 0.0123), "tango", 1048, 784, standard_error=None)
    one = Measurement("accuracy", 0.543, "share", "int8", Where("cpu", "test"), 1048, (0.508, 0.578), {}, difference)
    verdict = Verdict("int8: accuracy not inferior", "passed", 0.00668, -0.02, "worst of 2", one)
    page = html.render(Facts(small_record(verdicts=(verdict,)), measurements=(one,)))
    assert '<td class="text">+0.7 points (+0.4 to +1.2)</td>' in page.replace("\n", "")
    assert "≥ −2.0 points" in page
