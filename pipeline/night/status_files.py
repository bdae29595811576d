"""The state of a fleet for other programs: a badge, a JUnit file, Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from foundation.files import write_text
from foundation.printable import printable
from pipeline.night.nights import History, Night
from pipeline.night.overview import FOLDER_NAME, histories_below, state_of
from reports.junit import xml_text
from reports.night_index import STATE_WORDS, State

PROMETHEUS_NAME, JUNIT_NAME, BADGE_NAME = "edgeproof.prom", "junit.xml", "badge.svg"
_COLOURS: Mapping[State, str] = {"green": "#0b6347", "red": "#a3211b", "amber": "#7a4d00", "none": "#4d5a66"}
_SEVERITY: tuple[State, ...] = ("green", "none", "amber", "red")


def write_status(root: Path) -> tuple[Path, ...]:
    """Write the three files beside the page over all nights, each atomically, and return their paths.

    Args:
        root: the folder of one nightly, or of several.
    """
    histories = histories_below(root)
    texts = {
        PROMETHEUS_NAME: prometheus(histories),
        JUNIT_NAME: junit(histories),
        BADGE_NAME: badge(_worst(histories)),
    }
    for name, text in texts.items():
        write_text(root / FOLDER_NAME / name, text)
    return tuple(root / FOLDER_NAME / name for name in texts)


def prometheus(histories: Mapping[str, History]) -> str:
    """Return the last night of each model in Prometheus' text format (0.0.4), for a node exporter's text folder.

    Args:
        histories: by the model's name.
    """
    families: dict[str, list[str]] = {
        "edgeproof_night_exit_code": [],
        "edgeproof_night_finished_timestamp_seconds": [],
        "edgeproof_last_good_night_timestamp_seconds": [],
        "edgeproof_measurement": [],
    }
    for name, history in histories.items():
        model = f'model="{_label(name)}"'
        ended = [night for night in history.nights if night.finished_utc is not None]
        good = [night for night in ended if state_of(night) == "green"]
        if ended:
            last = ended[-1]
            if last.exit_code is not None:
                families["edgeproof_night_exit_code"].append(f"{{{model}}} {last.exit_code}")
            families["edgeproof_night_finished_timestamp_seconds"] += _at(model, last)
            families["edgeproof_measurement"] += _values(model, last)
        if good:
            families["edgeproof_last_good_night_timestamp_seconds"] += _at(model, good[-1])
    lines = [
        line
        for family, samples in families.items()
        if samples
        for line in (f"# TYPE {family} gauge", *(f"{family}{sample}" for sample in samples))
    ]
    return "\n".join(lines) + "\n"


def junit(histories: Mapping[str, History]) -> str:
    """Return one test case a model: a failure where its last night is worse, an error where it is incomplete.

    Args:
        histories: by the model's name.
    """
    suite = ElementTree.Element("testsuite", name="nights")
    states = {name: _state(history) for name, history in histories.items()}
    for name, history in histories.items():
        case = ElementTree.SubElement(suite, "testcase", classname="edgeproof.nights", name=xml_text(name))
        if states[name] != "green":
            kind = "failure" if states[name] == "red" else "error"
            last = history.nights[-1] if history.nights else None
            told = (last.error or last.comparison or "killed") if last else "no night yet"
            ElementTree.SubElement(case, kind, message=xml_text(told), type=states[name])
    suite.set("tests", str(len(states)))
    suite.set("failures", str(sum(state == "red" for state in states.values())))
    suite.set("errors", str(sum(state in ("amber", "none") for state in states.values())))
    ElementTree.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}\n'


def badge(state: State) -> str:
    """Return a state as a small picture with its word."""
    word = STATE_WORDS[state]
    width = 12 + 7 * len(word)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{74 + width}" height="20" role="img" '
        f'aria-label="edgeproof: {word}"><title>edgeproof: {word}</title>'
        f'<rect width="74" height="20" fill="#1b2733"/>'
        f'<rect x="74" width="{width}" height="20" fill="{_COLOURS[state]}"/>'
        '<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="37" y="14">edgeproof</text><text x="{74 + width / 2:g}" y="14">{word}</text></g></svg>\n'
    )


def _worst(histories: Mapping[str, History]) -> State:
    return max((_state(history) for history in histories.values()), key=_SEVERITY.index, default="none")


def _state(history: History) -> State:
    return state_of(history.nights[-1]) if history.nights else "none"


def _at(labels: str, night: Night) -> Iterator[str]:
    if night.finished_utc is not None:
        try:
            yield f"{{{labels}}} {datetime.fromisoformat(night.finished_utc).timestamp():.0f}"
        except ValueError:  # a line of the history that was edited
            return


def _values(labels: str, night: Night) -> Iterator[str]:
    for name, value in night.headline.items():
        metric, _, variant = name.rpartition("/")
        if value is not None:
            yield f'{{{labels},metric="{_label(metric)}",variant="{_label(variant)}"}} {value!r}'


def _label(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
