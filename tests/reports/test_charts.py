from __future__ import annotations

import re
from xml.etree import ElementTree

from reports import charts

POINTS = [
    charts.Point("fp32", 4.1, 90.0, (4.0, 4.2), (85.0, 94.0)),
    charts.Point("static-int8", 2.3, 89.0, None, (84.0, 93.0)),
    charts.Point("inc-int8", 2.3, 89.0),
    charts.Point("$x^2$ <b>", 2.35, 88.9, None, (88.95, 89.9)),
]


def chart(key: str = "latency") -> str:
    return charts.trade_off(key, POINTS, "latency p50, ms", "balanced accuracy, %", "told <to> all")


def test_the_same_points_give_the_same_svg() -> None:
    assert chart() == chart()


def test_every_point_is_labelled_as_it_is_written() -> None:
    root = ElementTree.fromstring(chart().replace("xlink:href", "href"))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"fp32", "static-int8", "inc-int8", "$x^2$ <b>"} <= set(texts)


def test_labels_do_not_cover_each_other() -> None:
    root = ElementTree.fromstring(chart().replace("xlink:href", "href"))
    names = {point.name for point in POINTS}
    places = []
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        if element.text in names:
            x, y = re.findall(r"-?[\d.]+", element.attrib["transform"])[:2]
            places.append((float(x), float(y), element.text))
    assert len(places) == 4
    for index, (x, y, text) in enumerate(places):
        for other_x, other_y, other in places[index + 1 :]:
            left, right = sorted(((x, text), (other_x, other)))
            assert abs(y - other_y) > 8 or left[0] + 4 * len(left[1]) < right[0]


def test_ids_of_two_charts_differ_and_every_reference_is_kept() -> None:
    first, second = chart("latency"), chart("size")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'href="#([^"]+)"', first)) | set(re.findall(r"url\(#([^)]+)\)", first))
    assert used
    assert used <= ids[0]


def test_nothing_dates_or_leaves_the_chart() -> None:
    svg = chart()
    assert "told &lt;to&gt; all" in svg
    assert "<metadata" not in svg
    assert "http" not in svg.replace("http://www.w3.org/", "")


def test_history_tells_losses_from_metrics() -> None:
    history = [
        {"epoch": k, "train_loss": 1.0 / k, "validation_loss": 2.0 / k, "validation_f1": 0.5, "note": "x"}
        for k in (1, 2)
    ]
    assert charts.history_series(history) == (["train_loss", "validation_loss"], ["validation_f1"])
    svg = charts.training_history("history", history, "told")
    assert [name in svg for name in ("train loss", "validation loss", ">f1<")] == [True] * 3
