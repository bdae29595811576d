from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from reports.forest import Entry, forest
from reports.line_charts import KINDS, SHARES, Axes, Line, chart
from reports.scales import Scale

AXES = Axes("1 − specificity", "sensitivity <b>", SHARES, SHARES, diagonal=True)
LINES = [
    Line("fp32", [(0.0, 0.0), (0.25, 0.5), (1.0, 1.0)], 0, dot=(0.25, 0.5)),
    Line("$x^2$ <b>", [(0.0, 0.0), (1.0, 1.0)], 1, marks=True, bars=[None, (0.8, 1.0)]),
]


def drawn(key: str = "roc-0") -> str:
    return str(chart(key, AXES, LINES, "told <to> all"))


def test_the_same_lines_give_the_same_svg_which_is_xml() -> None:
    assert drawn() == drawn()
    root = ElementTree.fromstring(drawn())
    assert "".join(root[0].itertext()) == "told <to> all"
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    assert {"1 − specificity", "sensitivity <b>", "0", "0.5", "1"} <= set(texts)
    assert "<b>" not in drawn()


def test_a_point_stands_where_its_numbers_say() -> None:
    """The frame reaches from 34 to 234 and from 170 up to 6."""
    path = re.findall(r'class="line l0" d="M([^"]+)"', drawn())[0]
    places = [tuple(map(float, place.split())) for place in path.split("L")]
    assert places == [(34, 170), (84, 88), (234, 6)]
    assert re.findall(r'class="bar l1" d="M([^"]+)"', drawn()) == ["234 38.8V6"]


def test_ids_of_two_charts_differ_and_nothing_leaves_the_page() -> None:
    ids = [set(re.findall(r' id="([^"]+)"', drawn(key))) for key in ("roc-0", "roc-1")]
    assert ids == [{"roc-0-told"}, {"roc-1-told"}]
    assert "http" not in drawn()


def test_the_looks_of_eight_variants_all_differ() -> None:
    marks = [
        re.sub(r"[\d.]+", "n", re.findall(r'class="mark l\d" d="([^"]+)"', str(chart("k", AXES, [line], "")))[0])
        for line in (Line("v", [], look, dot=(0.5, 0.5)) for look in range(KINDS))
    ]
    assert len(set(marks)) >= KINDS - 1  # two triangles have the same letters
    assert [Scale(0, 1).at(value) for value in (-1.0, 0.25, 2.0)] == [0.0, 25.0, 100.0]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)),
        (-0.031, 0.028, (-0.02, 0.0, 0.02)),
        (0.0, 1.6e6, (0.0, 500000.0, 1000000.0, 1500000.0)),
        (-3.0, -1.0, (-3.0, -2.5, -2.0, -1.5, -1.0)),
    ],
)
def test_ticks_are_round_and_on_the_axis(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert Scale(low, high).ticks() == ticks


def test_a_scale_of_one_value_or_of_none_still_has_a_length() -> None:
    assert Scale.over([5.0]).low < 5.0 < Scale.over([5.0]).high
    assert Scale.over([0.0]).high > Scale.over([0.0]).low
    assert Scale.over([float("nan")]).high > Scale.over([float("nan")]).low
    assert Scale.over([1.0, 1.0], within=(0.0, 1.0)).high <= 1.0


def test_a_forest_holds_numbers_intervals_and_limits_on_one_axis() -> None:
    entries = [
        Entry("a", -0.004, (-0.012, 0.003), -0.02, status="passed"),
        Entry("b", None, None, -0.02, status="missing", reason="no images"),
    ]
    plot = forest("k", "Difference, points", "Criterion", entries, "share", differences=True)
    first, second = plot.marks
    assert first.text == "−0.4 points (−1.2 to +0.3)"
    assert first.limit_text == "−2.0 points"
    assert first.limit is not None
    assert first.low is not None
    assert first.at is not None
    assert plot.zero is not None
    assert first.limit < first.low < first.at < plot.zero < first.low + first.width
    assert (second.text, second.at) == ("not measured", None)
    assert plot.judged
    assert "+0" not in [text for _, text in plot.ticks]


def test_a_plot_of_levels_has_no_zero_and_its_shares_stay_within_one() -> None:
    plot = forest("k", "", "", [Entry("a", 0.99, (0.98, 1.0), 0.9)], "share", differences=False)
    assert plot.zero is None
    assert plot.marks[0].text == "99.0\N{NARROW NO-BREAK SPACE}% (98.0–100\N{NARROW NO-BREAK SPACE}%)"
    assert plot.marks[0].low is not None
    assert plot.marks[0].low + plot.marks[0].width <= 100.0
