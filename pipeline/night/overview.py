"""What the histories of a folder of nightlies say, model by model, and the page and the numbers made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from foundation.errors import ExitCode, UsageError
from foundation.files import write_text
from foundation.metrics import METRICS, row_name
from foundation.printable import printable
from pipeline.night.change_points import change_points
from pipeline.night.nights import HISTORY_NAME, History, Night, read_history
from reports.night_index import ModelNights, NightCell, State, Trend, render_nights

FOLDER_NAME = "_overview"
"""Of the page and the files beside it; no configuration may have such a name."""
PAGE_NAME = "index.html"
SHOWN_NIGHTS = 1000
"""Of a model; the history itself keeps all."""
_TREND_NIGHTS = 120
_WORST_FIRST: Mapping[State, int] = {"red": 0, "amber": 1, "none": 2, "green": 3}


def histories_below(root: Path) -> dict[str, History]:
    """Return the histories of a fleet's folder by the name of the model's folder; its own where it holds one.

    A history that cannot be read at all counts as an empty one with the reason.

    Args:
        root: the folder of one nightly, or of several.
    """
    folders = [root] if (root / HISTORY_NAME).is_file() else sorted(path for path in root.iterdir() if path.is_dir())
    found = {}
    for folder in folders:
        if (folder / HISTORY_NAME).is_file():
            try:
                found[folder.name] = read_history(folder)
            except UsageError as error:
                found[folder.name] = History((), (str(error),))
    return found


def write_overview(root: Path, now: datetime) -> Path:
    """Write the page over all nights into a folder beside them, atomically, and return its path.

    Args:
        root: the folder of one nightly, or of several.
        now: the present time.
    """
    single = (root / HISTORY_NAME).is_file()
    models = [
        model_nights(name, history, root if single else root / name, "../" if single else f"../{quote(name)}/", now)
        for name, history in histories_below(root).items()
    ]
    models.sort(key=lambda model: (_WORST_FIRST[model.state], model.name))
    path = root / FOLDER_NAME / PAGE_NAME
    write_text(path, render_nights(printable(root.name), models, _told(now)))
    return path


def model_nights(name: str, history: History, folder: Path, prefix: str, now: datetime) -> ModelNights:
    """Return one model's nights as the page shows them.

    Args:
        name: of the model.
        history: of its nights.
        folder: where their runs lie.
        prefix: of links to them, from the page.
        now: the present time.
    """
    nights = history.nights[-SHOWN_NIGHTS:]
    ended = [night.finished_utc for night in nights if state_of(night) == "green" and night.finished_utc]
    good = _time(max(ended, default=None))
    return ModelNights(
        printable(name),
        tuple(_cell(night, folder, prefix) for night in nights),
        tuple(_trends(nights[-_TREND_NIGHTS:])),
        None if good is None else _told(good),
        "" if good is None else age(now, good),
        f"Lines of its history that could not be read: {len(history.unreadable)}." if history.unreadable else "",
    )


def state_of(night: Night) -> State:
    """Return how a night stands: a killed one, and one whose evidence is incomplete, are amber."""
    if night.exit_code == ExitCode.PASSED:
        return "green"
    return "red" if night.exit_code == ExitCode.GATE_FAILED else "amber"


def age(now: datetime, then: datetime) -> str:
    """Return how long ago a time was, in the largest unit that fits: "3 days", "5 hours"."""
    seconds = max((now - then).total_seconds(), 0.0)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def _cell(night: Night, folder: Path, prefix: str) -> NightCell:
    if night.status == "killed":
        sentence = f"killed (attempt {night.attempts})"
    else:
        sentence = night.error or night.comparison or ""
        if night.suspects:
            sentence += f"; suspects: {', '.join(night.suspects)}"
    there = (folder / night.run / "report" / "index.html").is_file()
    link = f"{prefix}{quote(night.run)}/report/index.html" if there else None
    return NightCell(printable(night.run), state_of(night), printable(sentence[:300]), link)


def _trends(nights: Sequence[Night]) -> list[Trend]:
    names = dict.fromkeys(name for night in nights for name in night.headline)
    found = []
    for name in names:
        metric, _, variant = name.rpartition("/")
        row = METRICS.get(row_name(metric))
        values = tuple(night.headline.get(name) for night in nights)
        of_itself = row is not None and row.against_fp32 and variant == "fp32"
        if row is None or of_itself or all(value is None for value in values):
            continue
        places = change_points(values)
        intervals = tuple(night.intervals.get(name) for night in nights)
        changes = tuple(printable(nights[place].run) for place in places)
        found.append(Trend(row.heading, printable(variant), row.unit, values, intervals, changes, places))
    return found


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def _told(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
