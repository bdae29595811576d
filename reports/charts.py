"""Charts as inline SVG: the same numbers give the same bytes, and the text stays text."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from foundation.files import JSON

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

INK, FAINT, GRID = "#1b2733", "#5b6875", "#e3e8ec"
PALETTE = ("#1b2733", "#0072b2", "#b84e00", "#007a5a", "#a8487f", "#7a5f00", "#2b7bb0", "#6a3591")
"""The baseline's ink, then Okabe and Ito's hues, dark enough for text on white (contrast of 4.5 and more)."""
MARKERS = ("D", "o", "s", "^", "v", "P", "X", "h")
"""Shape tells variants apart where colour cannot."""

STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgeproof",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True)
class Point:
    """One variant in a chart of two measurements, each with its 95 % interval where it has one."""

    name: str
    x: float
    y: float
    x_ci95: tuple[float, float] | None = None
    y_ci95: tuple[float, float] | None = None


def trade_off(key: str, points: Sequence[Point], x_label: str, y_label: str, description: str) -> str:
    """Return a chart of one measurement against another, every point labelled where it stands.

    Args:
        key: prefix of the SVG's ids, unique on the page.
        points: the baseline first; its marker is the diamond.
        x_label: with the unit.
        y_label: with the unit.
        description: what a reader who cannot see the chart is told.
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.3, 3.6))
        axes = figure.add_subplot()
        for index, point in enumerate(points):
            colour = PALETTE[index % len(PALETTE)]
            axes.errorbar(
                [point.x],
                [point.y],
                xerr=_reach(point.x, point.x_ci95),
                yerr=_reach(point.y, point.y_ci95),
                color=colour,
                marker=MARKERS[index % len(MARKERS)],
                markersize=8,
                markeredgecolor="white",
                markeredgewidth=0.7,
                elinewidth=1.2,
                zorder=3,
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.14, y=0.16)
        _, right = axes.get_xlim()
        axes.set_xlim(0, right)
        figure.tight_layout(pad=0.6)
        _label_points(figure, axes, points)
        return inline(figure, key, description)


def training_history(key: str, history: Sequence[Mapping[str, JSON]], description: str) -> str:
    """Return loss and validation metrics over the epochs, one panel for each kind of number.

    Args:
        key: prefix of the SVG's ids, unique on the page.
        history: one dictionary per epoch with "epoch" and numbers.
        description: what a reader who cannot see the chart is told.
    """
    losses, metrics = history_series(history)
    with style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        panels = [(names, label) for names, label in ((losses, "loss"), (metrics, "validation")) if names]
        figure = Figure(figsize=(3.9 * len(panels), 2.3))
        for index, (names, label) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), index + 1)
            ends = []
            for order, name in enumerate(names):
                drawn = [(entry["epoch"], entry[name]) for entry in history if _is_number(entry.get(name))]
                colour = PALETTE[(order + 1) % len(PALETTE)]
                axes.plot(*zip(*drawn, strict=True), color=colour, linewidth=1.6, marker=".", markersize=4)
                ends.append((drawn[-1], name, colour))
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            _label_ends(axes, ends)
        figure.tight_layout(pad=0.6, w_pad=2)
        return inline(figure, key, description)


def curves(key: str, lines: Mapping[str, Sequence[float]], x_label: str, y_label: str, description: str) -> str:
    """Return one line per name over 1, 2, 3…

    Args:
        key: prefix of the SVG's ids, unique on the page.
        lines: name → its values, all as many.
        x_label: of the steps.
        y_label: with the unit.
        description: what a reader who cannot see the chart is told.
    """
    with style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(4.6, 2.6))
        axes = figure.add_subplot()
        for order, (name, values) in enumerate(lines.items()):
            colour, steps = PALETTE[order % len(PALETTE)], range(1, len(values) + 1)
            marker = MARKERS[order % len(MARKERS)]
            axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker, markersize=4, label=name)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)  # lines may end in one place
        figure.tight_layout(pad=0.6)
        return inline(figure, key, description)


def history_series(history: Sequence[Mapping[str, JSON]]) -> tuple[list[str], list[str]]:
    """Return the losses and the validation metrics that a training history holds, by their keys."""
    numbers = dict.fromkeys(key for entry in history for key, value in entry.items() if _is_number(value))
    losses = [key for key in numbers if key.endswith("loss")]
    metrics = [key for key in numbers if key.startswith("validation_") and key not in losses]
    return losses, metrics


def _label_ends(axes: Axes, ends: Sequence[tuple[tuple[float, float], str, str]]) -> None:
    """Write each line's name to the right of its last point, the lower names pushed down until none overlap."""
    line_height = 11.0
    per_unit = axes.transData.transform((0, 1))[1] - axes.transData.transform((0, 0))[1]
    free_below = float("inf")
    for (x, y), name, colour in sorted(ends, key=lambda end: -end[0][1]):
        here = y * per_unit * 72 / axes.figure.dpi
        there = min(here, free_below)
        free_below = there - line_height
        axes.annotate(
            name.removeprefix("validation_").replace("_", " ") if len(ends) == 1 else name.replace("_", " "),
            (x, y),
            xytext=(6, there - here),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def style() -> Iterator[None]:
    """Draw within the report's look."""
    import matplotlib

    with matplotlib.rc_context(cast("Any", STYLE)), warnings.catch_warnings():
        # Text is written as text, so the reader's font draws a letter that this one lacks.
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from font", category=UserWarning)
        yield


def _reach(centre: float, ci95: tuple[float, float] | None) -> list[list[float]] | None:
    if ci95 is None:
        return None
    # A bootstrap interval may lie beside its point by a hair; a bar has no negative length.
    return [[max(0.0, centre - ci95[0])], [max(0.0, ci95[1] - centre)]]


def _label_points(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Write each name beside its point, at the first place that covers no other name, marker or interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    taken = [box for point in points for box in _occupied(axes, point, scale)]
    frame = axes.get_window_extent()
    for index, point in enumerate(points):
        at = axes.transData.transform((point.x, point.y))
        trial = axes.annotate(point.name, (point.x, point.y))
        extent = trial.get_window_extent(renderer)
        trial.remove()
        best: tuple[float, Bbox, tuple[float, float]] | None = None
        for cost, (dx, dy) in enumerate(_places(extent.width / scale, extent.height / scale)):
            left, bottom = at[0] + dx * scale, at[1] + dy * scale
            box = Bbox.from_bounds(left, bottom, extent.width, extent.height)
            inside = _shared(box, frame) >= 0.98 * box.width * box.height
            penalty = sum(_shared(box, other) for other in taken) + (0 if inside else 1e6) + cost * 1e-3
            if best is None or penalty < best[0]:
                best = (penalty, box, (dx, dy))
        assert best is not None  # _places never is empty
        _, box, offset = best
        taken.append(box)
        colour = PALETTE[index % len(PALETTE)]
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        far = not -extent.height / scale - 4 < offset[1] < 4
        axes.annotate(
            point.name,
            (point.x, point.y),
            xytext=offset,
            textcoords="offset points",
            color=colour,
            arrowprops=leader if far else None,
            zorder=4,
        )


def _occupied(axes: Axes, point: Point, scale: float) -> list[Bbox]:
    from matplotlib.transforms import Bbox

    def around(first: tuple[float, float], last: tuple[float, float], half: float) -> Bbox:
        (x0, y0), (x1, y1) = axes.transData.transform(first), axes.transData.transform(last)
        return Bbox.from_extents(x0 - half * scale, y0 - half * scale, x1 + half * scale, y1 + half * scale)

    here = (point.x, point.y)
    boxes = [around(here, here, 5.0)]
    if point.x_ci95:
        boxes.append(around((point.x_ci95[0], point.y), (point.x_ci95[1], point.y), 1.0))
    if point.y_ci95:
        boxes.append(around((point.x, point.y_ci95[0]), (point.x, point.y_ci95[1]), 1.0))
    return boxes


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield offsets of a label's lower left corner from its point, in typographic points, the nearest first."""
    for gap, lift in itertools.product((7.0, 12.0), (3.0, -height - 3.0, 14.0, -height - 14.0, 25.0, -height - 25.0)):
        yield gap, lift
        yield -width - gap, lift
    yield -width / 2, 8.0
    yield -width / 2, -height - 8.0


def _shared(first: Bbox, second: Bbox) -> float:
    """Return the area that two boxes share, in square pixels."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return float(max(0.0, width) * max(0.0, height))


def inline(figure: Figure, key: str, description: str) -> str:
    """Return a figure as an `<svg>` element whose ids no other chart on the page shares."""
    import html

    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{key}-", svg)
    label = f'<title id="{key}-description">{html.escape(description)}</title>'
    head, rest = svg.split(">", 1)
    return f'{head} role="img" aria-labelledby="{key}-description">{label}{rest}'
