"""Line charts as small inline SVG: ROC and precision-recall curves, reliability, answers on worse images, training.

Colours, dashes and the ink of axes are classes of the page's style sheet, so a chart follows light, dark and print;
variants are told apart by dash and marker as well as by colour. Nothing is computed but places on the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reports.scales import Scale

WIDTH, HEIGHT = 240.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 6.0, 6.0, 30.0
KINDS = 8
"""Looks of a line in the style sheet; the ninth variant looks like the first but for its marker."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: whose it is.
        points: in the chart's units.
        look: 0 for fp32, then 1, 2…
        marks: whether every point gets a mark.
        dot: a point that stands out; None without one.
        bars: low and high of an interval at each point; empty without any.
    """

    name: str
    points: Points
    look: int
    marks: bool = False
    dot: tuple[float, float] | None = None
    bars: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Axes:
    """What a chart's axes say.

    Attributes:
        x: label of the horizontal one.
        y: of the vertical one.
        x_scale: its numbers.
        y_scale: likewise.
        x_ticks: places and texts of the numbers; None for round ones.
        diagonal: whether the line of chance, or of perfect calibration, is drawn.
    """

    x: str
    y: str
    x_scale: Scale
    y_scale: Scale
    x_ticks: Sequence[tuple[float, str]] | None = None
    diagonal: bool = False


SHARES = Scale(0.0, 1.0)


def chart(key: str, axes: Axes, lines: Sequence[Line], told: str, *, wide: bool = False) -> Markup:
    """Return a chart.

    Args:
        key: part of its ids, unique on the page; letters, digits and hyphens.
        axes: what they say.
        lines: drawn in this order, so that fp32's, the first, lies below the others.
        told: what a reader who cannot see it is told.
        wide: twice as wide as high, for a development.
    """
    width = WIDTH * 1.5 if wide else WIDTH
    frame = _Frame(axes, width)
    parts = [_grid(frame)]
    if axes.diagonal:
        (x0, y0), (x1, y1) = frame.place(0.0, 0.0), frame.place(1.0, 1.0)
        parts.append(f'<path class="chance" d="M{x0} {y0}L{x1} {y1}"/>')
    parts += [_line(frame, line) for line in lines]
    head = f'<svg class="chart" viewBox="0 0 {width:g} {HEIGHT:g}" role="img" aria-labelledby="{key}-told">'
    return Markup(f'{head}<title id="{key}-told">{escape(told)}</title>{"".join(parts)}</svg>')


@dataclass(frozen=True)
class _Frame:
    axes: Axes
    width: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = self.axes.x_scale.at(x) / 100.0 * (self.width - _LEFT - _RIGHT)
        up = self.axes.y_scale.at(y) / 100.0 * (HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(HEIGHT - _BOTTOM - up, 1)


def _grid(frame: _Frame) -> str:
    axes, parts = frame.axes, []
    x_ticks = axes.x_ticks or [(tick, _number(tick)) for tick in axes.x_scale.ticks()]
    for tick, text in x_ticks:
        x, _ = frame.place(tick, axes.y_scale.low)
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{HEIGHT - _BOTTOM:g}"/>')
        parts.append(
            f'<text class="tick" x="{x}" y="{HEIGHT - _BOTTOM + 11:g}" text-anchor="middle">{escape(text)}</text>'
        )
    for tick in axes.y_scale.ticks():
        _, y = frame.place(axes.x_scale.low, tick)
        parts.append(f'<path class="grid" d="M{_LEFT:g} {y}H{frame.width - _RIGHT:g}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 4:g}" y="{y + 3:g}" text-anchor="end">{_number(tick)}</text>')
    middle = (_LEFT + frame.width - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:g}" y="{HEIGHT - 4:g}" text-anchor="middle">{escape(axes.x)}</text>')
    half = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text class="axis" transform="translate(9 {half:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(axes.y)}</text>"
    )
    return "".join(parts)


def _line(frame: _Frame, line: Line) -> str:
    look = f"l{line.look % KINDS}"
    places = [frame.place(x, y) for x, y in line.points]
    parts = []
    if len(places) > 1:
        path = "L".join(f"{x:g} {y:g}" for x, y in places)
        parts.append(f'<path class="line {look}" d="M{path}"/>')
    for (x, _), bar in zip(line.points, line.bars, strict=False):
        if bar is not None:
            (at, low), (_, high) = frame.place(x, bar[0]), frame.place(x, bar[1])
            parts.append(f'<path class="bar {look}" d="M{at:g} {low:g}V{high:g}"/>')
    if line.marks:
        parts += [_mark(line.look, x, y) for x, y in places]
    if line.dot is not None:
        parts.append(_mark(line.look, *frame.place(*line.dot), size=4.2))
    return "".join(parts)


def _mark(look: int, x: float, y: float, size: float = 2.6) -> str:
    """Return a marker: diamond, circle, square, triangles, cross…, as many as there are looks."""
    r = size
    shapes = (
        f"M{x} {y - r * 1.3:.1f}L{x + r * 1.3:.1f} {y}L{x} {y + r * 1.3:.1f}L{x - r * 1.3:.1f} {y}Z",
        f"M{x - r:.1f} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}Z",
        f"M{x} {y - r:.1f}L{x + r:.1f} {y + r:.1f}H{x - r:.1f}Z",
        f"M{x} {y + r:.1f}L{x + r:.1f} {y - r:.1f}H{x - r:.1f}Z",
        f"M{x - r:.1f} {y}h{2 * r}M{x} {y - r:.1f}v{2 * r}",
        f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}M{x + r:.1f} {y - r:.1f}l{-2 * r} {2 * r}",
        f"M{x - r:.1f} {y}L{x} {y - r:.1f}L{x + r:.1f} {y}L{x} {y + r:.1f}ZM{x} {y - r:.1f}v{2 * r}",
    )
    return f'<path class="mark l{look % KINDS}" d="{shapes[look % KINDS]}"/>'


def legend_mark(look: int) -> Markup:
    """Return a line's look as a small picture for a legend in text."""
    line = f'<path class="line l{look % KINDS}" d="M1 6H27"/>'
    return Markup(f'<svg class="key" viewBox="0 0 28 12" aria-hidden="true">{line}{_mark(look, 14.0, 6.0)}</svg>')


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
