"""The curves of answers on worse images."""

from __future__ import annotations

import re

from small_run import small_record

from foundation.measurements import Measurement, Where
from reports.facts import Facts
from reports.robustness import _HEADINGS, robustness
from stages.validate.robustness import KINDS, changes


def facts() -> Facts:
    rows = [
        Measurement("robust_accuracy", 0.9 - 0.01 * place, "share", variant, Where("cpu", "test", change=name), 60)
        for variant in ("fp32", "static-int8")
        for place, (name, _, _) in enumerate(changes())
    ]
    return Facts(small_record(), measurements=tuple(rows))


def test_each_kind_has_a_chart_that_names_each_file_and_a_row_for_each_strength() -> None:
    found = robustness(facts())
    assert found is not None
    assert [title for title, _ in found.charts] == list(_HEADINGS.values())
    for _, svg in found.charts:
        assert re.findall(r">(fp32|static-int8)<", svg) == ["fp32", "static-int8"]
    accuracy, _ = found.tables
    assert len(accuracy.rows) == 25
    assert accuracy.rows[4].cells[1].text.startswith("86.0")


def test_the_headings_say_what_the_strengths_are() -> None:
    for name, kind in KINDS.items():
        numbers = [float(text) for text in re.findall(r"[0-9.]+", _HEADINGS[name])][:5]
        factor = 100 if kind.unit == "of the range" else 1
        assert numbers == [round(factor * level, 6) for level in kind.levels]


def test_a_run_that_was_not_asked_has_no_such_section() -> None:
    assert robustness(Facts(small_record())) is None
