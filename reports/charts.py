"""The search's charts, drawn by matplotlib as inline SVG: the same numbers give the same bytes, text stays text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1b2733", "#5b6875", "#e3e8ec"
PALETTE = ("#1b2733", "#0072b2", "#b84e00", "#007a5a", "#a8487f", "#7a5f00", "#2b7bb0", "#6a3591")
"""The baseline's ink, then Okabe and Ito's hues, dark enough for text on white (contrast of 4.5 and more)."""
THEMED: Mapping[str, str] = {INK: "ink", FAINT: "soft", GRID: "line", PALETTE[1]: "l1", PALETTE[2]: "l2"}
"""Colour → the page's variable that takes its place, so that a chart follows light and dark."""

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


@contextmanager
def style() -> Iterator[None]:
    """Draw within the report's look."""
    import matplotlib

    with matplotlib.rc_context(cast("Any", STYLE)), warnings.catch_warnings():
        # Text is written as text, so the reader's font draws a letter that this one lacks.
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from font", category=UserWarning)
        yield


def inline(figure: Figure, key: str, description: str) -> str:
    """Return a figure as an `<svg>` element whose ids no other chart on the page shares."""
    import html

    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{key}-", svg)
    for colour, name in THEMED.items():
        svg = svg.replace(colour, f"var(--{name}, {colour})")
    label = f'<title id="{key}-description">{html.escape(description)}</title>'
    head, rest = svg.split(">", 1)
    return f'{head} role="img" aria-labelledby="{key}-description">{label}{rest}'
