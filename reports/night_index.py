"""The page over all nights of all models: one file, no network, no script, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from reports import formats

State = Literal["green", "red", "amber", "none"]
"""Of a night: passed; a gate or the comparison failed; incomplete, killed or not begun; none yet."""

STATE_WORDS: dict[State, str] = {
    "green": "passed",
    "red": "worse or failed",
    "amber": "incomplete",
    "none": "no night yet",
}
_SIGNS: dict[State, str] = {"green": "✓", "red": "✗", "amber": "?", "none": "–"}
_HEIGHTS: dict[State, int] = {"green": 8, "amber": 14, "red": 20, "none": 0}
"""Of a night's bar in pixels: the worse, the taller, so that colour is not needed to see it."""
_NIGHT_PIXELS = 3
"""Of a unit of the strip, where there is room; many nights are drawn closer."""
_STRIP_HEIGHT, _TREND_WIDTH, _TREND_HEIGHT = 20, 220, 44


@dataclass(frozen=True)
class NightCell:
    """One night of one model, as it is shown."""

    name: str
    state: State
    sentence: str
    link: str | None


@dataclass(frozen=True)
class Trend:
    """One headline number over the nights.

    Attributes:
        metric: heading of the metric.
        variant: of the file.
        unit: of the values.
        values: one a night, oldest first; None where there is none.
        intervals: 95 %, likewise.
        changes: names of the nights from which it has another level.
        places: of these nights, as indices into `values`.
    """

    metric: str
    variant: str
    unit: str
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    changes: tuple[str, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class ModelNights:
    """All nights of one model, oldest first.

    Attributes:
        name: of the configuration.
        nights: of its history.
        trends: of its headline numbers.
        good: when the last green night ended, "2026-01-31 02:40 UTC"; None where none did.
        good_age: how long ago that was when the page was written, "3 days".
        warning: what is wrong with its history; "" where nothing is.
    """

    name: str
    nights: tuple[NightCell, ...]
    trends: tuple[Trend, ...]
    good: str | None
    good_age: str
    warning: str

    @property
    def state(self) -> State:
        """Of the last night."""
        return self.nights[-1].state if self.nights else "none"


def render_nights(title: str, models: Sequence[ModelNights], written: str) -> str:
    """Return the page.

    Args:
        title: name of the fleet's folder.
        models: those whose last night is worst come first as they are given.
        written: when, for the reader.
    """
    from importlib.resources import files

    from reports.html import page_environment

    style = (files("reports") / "templates" / "nights.css").read_text(encoding="utf-8")
    counts = {state: sum(model.state == state for model in models) for state in STATE_WORDS}
    return (
        page_environment()
        .get_template("nights.html")
        .render(
            night_style=Markup(style),  # our own file, not the nights'
            title=title,
            models=models,
            written=written,
            counts={STATE_WORDS[state]: count for state, count in counts.items() if count},
            words=STATE_WORDS,
            signs=_SIGNS,
            strip=_strip,
            trend=_trend,
            shown=_shown,
        )
    )


def _shown(trend: Trend) -> str:
    """Return the last value with its interval."""
    value, interval = trend.values[-1], trend.intervals[-1]
    if value is None:
        return formats.NOT_MEASURED
    told = formats.with_unit(value, trend.unit)
    return f"{told} ({formats.interval(*interval, trend.unit)})" if interval else told


def _strip(model: ModelNights) -> Markup:
    """Return all nights as bars, a path for each state; a night's bar is three units wide."""
    paths: dict[State, list[str]] = {}
    for place, night in enumerate(model.nights):
        paths.setdefault(night.state, []).append(f"M{3 * place} {_STRIP_HEIGHT}v-{_HEIGHTS[night.state]}")
    drawn = "".join(f'<path class="{state}" d="{"".join(moves)}"/>' for state, moves in paths.items())
    width = max(3 * len(model.nights), 3)
    label = f"{len(model.nights)} nights, the newest on the right"
    return Markup(
        f'<svg class="strip" width="{_NIGHT_PIXELS * width}" role="img" aria-label="{label}" '
        f'viewBox="-2 0 {width} {_STRIP_HEIGHT}" '
        f'preserveAspectRatio="none">{drawn}</svg>'
    )


def _trend(trend: Trend) -> Markup:
    """Return a number over the nights with its intervals as a band, and a mark where it has another level."""
    bounds = [bound for interval in trend.intervals if interval for bound in interval]
    known = [value for value in trend.values if value is not None] + bounds
    low, high = min(known), max(known)
    span = (high - low) or abs(high) or 1.0
    step = _TREND_WIDTH / max(len(trend.values) - 1, 1)

    def at(place: int, value: float) -> str:
        return f"{place * step:.1f} {4 + (_TREND_HEIGHT - 8) * (high - value) / span:.1f}"

    band = "".join(
        f"M{at(place, interval[0])}L{at(place, interval[1])}"
        for place, interval in enumerate(trend.intervals)
        if interval is not None
    )
    dots = [at(place, value) for place, value in enumerate(trend.values) if value is not None]
    line = "M" + "L".join(dots)
    marks = "".join(f"M{place * step:.1f} 0v{_TREND_HEIGHT}" for place in trend.places)
    return Markup(
        f'<svg class="trend" role="img" aria-label="{len(dots)} nights" viewBox="0 0 {_TREND_WIDTH} {_TREND_HEIGHT}">'
        f'<path class="band" d="{band}"/><path class="line" d="{line}"/><path class="mark" d="{marks}"/></svg>'
    )
