"""The curves of answers on worse images."""

from __future__ import annotations

import re

from small_run import small_record

from foundation.measurements import Measurement, Where
from reports.facts import Facts
from reports.robustness import robustness
from stages.validate.robustness import changes


def facts() -> Facts:
    rows = [
        Measurement(
            "robust_accuracy",
            0.9 - 0.01 * place,
            "share",
            variant,
            Where("cpu", "test", change=name),
            60,
            remarks={"change_is": kind.heading, "level": kind.levels[strength - 1]},
        )
        for variant in ("fp32", "static-int8")
        for place, (name, kind, strength) in enumerate(changes())
    ]
    return Facts(small_record(), measurements=tuple(rows))


def test_each_kind_has_a_chart_that_names_each_file_and_a_row_for_each_strength() -> None:
    found = robustness(facts())
    assert found is not None
    assert [title for title, _ in found.charts] == [
        "JPEG quality: 25, 18, 15, 10, 7",
        "Gaussian blur, px of 224: 1, 2, 3, 4, 6",
        "Gaussian noise, share of the range: 0.08, 0.12, 0.18, 0.26, 0.38",
        "Brighter by, share of the range: 0.1, 0.2, 0.3, 0.4, 0.5",
        "Rotation, degrees: 5, 10, 15, 20, 30",
    ]
    for _, svg in found.charts:
        assert re.findall(r"(fp32|static-int8) (?:\d+\.\d(?:, )?){5}", svg) == ["fp32", "static-int8"]
        assert re.findall(r'class="line (l\d)"', svg) == ["l0", "l1"]
    accuracy, _ = found.tables
    assert len(accuracy.rows) == 25
    assert accuracy.rows[4].cells[1].text.startswith("86.0")


def test_a_run_that_was_not_asked_has_no_such_section() -> None:
    assert robustness(Facts(small_record())) is None
