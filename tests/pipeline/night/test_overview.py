from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

from pipeline.night.nights import Night, read_history, record_finish, record_start
from pipeline.night.overview import FOLDER_NAME, age, histories_below, model_nights, write_overview
from pipeline.night.status_files import badge, junit, prometheus, write_status

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


def nights(folder: Path, codes: list[int | None], start: datetime, level: float = 0.9) -> None:
    for number, code in enumerate(codes):
        began = start + timedelta(days=number)
        name = began.strftime("%Y-%m-%dT%H%M%SZ")
        record_start(folder, name, "c" * 64, began.isoformat())
        if code is not None:
            ended = (began + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            value = level if code != 1 else level - 0.05
            headline = {"balanced_accuracy/static-int8": value}
            intervals = {"balanced_accuracy/static-int8": (value - 0.02, value + 0.02)}
            suspects = ("packages",) if code == 1 else ()
            record_finish(
                folder,
                Night(name, "c" * 64, began.isoformat(), 1, ended, code, "3 compared", headline, intervals, suspects),
            )


def test_a_night_keeps_its_intervals_and_suspects(tmp_path: Path) -> None:
    nights(tmp_path, [1], datetime(2026, 2, 1, 2, tzinfo=UTC))
    (night,) = read_history(tmp_path).nights
    assert night.intervals == {"balanced_accuracy/static-int8": (0.83, 0.87)}
    assert night.suspects == ("packages",)


def test_a_model_is_told_by_its_last_night_and_its_last_good_one(tmp_path: Path) -> None:
    nights(tmp_path, [0, 3, 0, 1, None], datetime(2026, 2, 20, 2, tzinfo=UTC))
    shown = model_nights("skin", read_history(tmp_path), tmp_path, "../", NOW)
    assert [one.state for one in shown.nights] == ["green", "amber", "green", "red", "amber"]
    assert (shown.good, shown.good_age) == ("2026-02-22 03:00 UTC", "7 days")
    assert shown.nights[3].sentence == "3 compared; suspects: packages"
    assert shown.nights[3].link is None
    (trend,) = shown.trends
    assert (trend.metric, trend.variant) == ("Balanced accuracy", "static-int8")
    assert trend.values[:4] == (0.9, 0.9, 0.9, 0.85)


def test_the_page_begins_with_what_is_red_and_links_what_is_there(tmp_path: Path) -> None:
    start = datetime(2026, 2, 1, 2, tzinfo=UTC)
    nights(tmp_path / "calm", [0] * 12, start)
    nights(tmp_path / "worse", [0] * 11 + [1], start)
    report = tmp_path / "worse" / "2026-02-12T020000Z" / "report"
    report.mkdir(parents=True)
    (report / "index.html").write_text("report")
    (tmp_path / "notes").mkdir()
    path = write_overview(tmp_path, NOW)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / FOLDER_NAME / "index.html"
    assert text.index(" worse ") < text.index(" calm ")
    assert 'href="../worse/2026-02-12T020000Z/report/index.html"' in text
    assert "<script" not in text
    assert "1 passed · 1 worse or failed" in text


def test_a_step_in_a_trend_is_marked_with_its_night(tmp_path: Path) -> None:
    nights(tmp_path, [0] * 20 + [1] * 10, datetime(2026, 1, 1, 2, tzinfo=UTC))
    (trend,) = model_nights("m", read_history(tmp_path), tmp_path, "", NOW).trends
    assert trend.changes == ("2026-01-21T020000Z",)


def test_texts_of_a_history_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "<b>x"
    night = record_start(folder, "<script>alert(1)</script>", "c" * 64, "2026-02-01T02:00:00Z")
    evil = {"balanced_accuracy/<img src=x onerror=alert(1)>": 0.5}
    record_finish(
        folder,
        Night(night.run, "c" * 64, night.started_utc, 1, "2026-02-01T03:00:00Z", 1, "</style><script>", evil),
    )
    write_status(tmp_path)
    text = write_overview(tmp_path, NOW).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    ElementTree.fromstring((tmp_path / FOLDER_NAME / "junit.xml").read_text())


def test_a_history_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "history.jsonl").write_text("{broken\n")
    assert "could not be read: 1" in write_overview(tmp_path, NOW).read_text()


def test_ages() -> None:
    ages = [timedelta(seconds=30), timedelta(minutes=90), timedelta(hours=30), timedelta(days=-1)]
    assert [age(NOW, NOW - one) for one in ages] == ["less than a minute", "1 hour", "1 day", "less than a minute"]


def test_numbers_for_other_programs(tmp_path: Path) -> None:
    start = datetime(2026, 2, 1, 2, tzinfo=UTC)
    nights(tmp_path / "quiet", [0, 0], start)
    nights(tmp_path / 'wo"rse', [0, 1], start)
    nights(tmp_path / "killed", [None], start)
    histories = histories_below(tmp_path)
    lines = prometheus(histories).splitlines()
    assert 'edgeproof_night_exit_code{model="quiet"} 0' in lines
    assert 'edgeproof_night_exit_code{model="wo\\"rse"} 1' in lines
    assert f'edgeproof_last_good_night_timestamp_seconds{{model="wo\\"rse"}} {start.timestamp() + 3600:.0f}' in lines
    assert 'edgeproof_measurement{model="quiet",metric="balanced_accuracy",variant="static-int8"} 0.9' in lines
    suite = ElementTree.fromstring(junit(histories))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert "worse or failed" in badge("red")
    ElementTree.fromstring(badge("amber"))
