"""The search behind a tuned variant: its trials, its Pareto front, and the layers by what quantizing each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from foundation.files import JSON
from foundation.note_parts import CandidateNote, Estimate, MeasuredNote, SensitivityNote, TrialNote
from foundation.notes import TunedNotes
from reports import formats
from reports.charts import FAINT, GRID, INK, PALETTE, inline, style
from reports.facts import Facts
from reports.limits import missed
from reports.tables import Cell, Column, Row, Table, absent

LONG_NOTES = {"method", "search", "sensitivity", "misses", "timed_at"}
"""Notes that this section or the line above shows, and the list of files need not repeat."""
MOST_LAYERS = 20
"""Layers in chart and table; the rest cost less than these."""


@dataclass(frozen=True)
class Search:
    """What the report shows of one tuned variant."""

    variant: str
    sentence: str
    pareto: Markup | None
    front: Table
    sensitivity: Markup | None
    layers: Table


@dataclass(frozen=True)
class Point:
    """A file of the search that was measured.

    Attributes:
        candidate: how it was made.
        found: what was measured of it.
        at: its speed-up and rank correlation; None unless both were measured.
        is_chosen: whether the search came to it.
    """

    candidate: CandidateNote
    found: MeasuredNote
    at: tuple[float, float] | None
    is_chosen: bool


def searches(facts: Facts) -> list[Search]:
    """Return the searches of a run's tuned variants, in their order."""
    return [
        search_section(record.variant, record.settings, record.notes)
        for record in facts.record.variants
        if isinstance(record.notes, TunedNotes)
    ]


def search_section(variant: str, limits: Mapping[str, JSON], notes: TunedNotes) -> Search:
    """Return what the report shows of one tuned variant.

    Args:
        variant: its name.
        limits: of the search, by name.
        notes: of the search.
    """
    trials, layers = notes.search, notes.sensitivity
    measured, front = _points(trials, notes.chosen), _points(notes.front, notes.chosen)
    within = [point for point in measured if point.found.within_limits]
    labelled = any(point.found.score.accuracy_drop is not None for point in measured)
    sentence = (
        f"{formats.count(len(trials), 'file')} compiled, {len(measured)} measured, {len(within)} shown to keep the "
        "limits: "
        + (f"accuracy at most {formats.percent(limits['accuracy_drop'])} below fp32's, " if labelled else "")
        + f"agreement at least {formats.percent(limits['agreement'])}, "
        f"ρ of the {notes.map_method} maps at least {formats.plain(limits['saliency_spearman'])}, all on validation "
        f"images, by {_held_by(limits)}. "
        + (
            f"As none keeps them all, the nearest was taken: it misses {missed(notes.misses)}."
            if notes.misses
            else "The fastest of these was chosen; of files that are as fast, the one furthest inside the limits."
        )
        + (f" Speed was measured at the place {notes.timed_at}." if notes.timed_at else "")
    )
    return Search(
        variant,
        sentence,
        _pareto(variant, measured, front, float(limits["saliency_spearman"])),
        _front_table(variant, measured, front),
        _layer_chart(variant, layers[:MOST_LAYERS]),
        _layer_table(variant, layers),
    )


def _held_by(limits: Mapping[str, JSON]) -> str:
    """Return what the limits were held by; runs of before the bounds have no error rate."""
    if "alpha" not in limits:
        return "their estimates"
    return f"one-sided bounds at {formats.percent(limits['alpha'])} for {limits['trials']} files together"


def _points(trials: Sequence[TrialNote], chosen: CandidateNote) -> list[Point]:
    return [
        Point(trial.candidate, trial.measured, trial.measured.point, trial.candidate == chosen)
        for trial in trials
        if trial.measured
    ]


def _pareto(variant: str, points: Sequence[Point], front: Sequence[Point], limit: float) -> Markup | None:
    drawable = [(point, point.at) for point in points if point.at]
    if not drawable:
        return None
    on_front = [point.at for point in front if point.at]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.3, 3.4))
        axes = figure.add_subplot()
        axes.axhline(limit, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(
            "limit", (1.0, limit), xycoords=("axes fraction", "data"), xytext=(-2, 3),
            textcoords="offset points", color=FAINT, ha="right",
        )  # fmt: skip
        axes.step(
            [speed for speed, _ in on_front],
            [likeness for _, likeness in on_front],
            where="post", color=GRID, linewidth=2.0, zorder=1,
        )  # fmt: skip
        for inside, marker, colour in ((False, "x", PALETTE[2]), (True, "o", PALETTE[1])):
            drawn = [at for point, at in drawable if point.found.within_limits is inside and not point.is_chosen]
            axes.plot(
                [speed for speed, _ in drawn],
                [likeness for _, likeness in drawn],
                linestyle="none", marker=marker, color=colour, markersize=5,
            )  # fmt: skip
        for point, at in drawable:
            if point.is_chosen:
                axes.plot(*at, marker="D", color=INK, markersize=8, markeredgecolor="white")
                axes.annotate("chosen", at, xytext=(7, 5), textcoords="offset points", color=INK)
        axes.set_xlabel("speed-up over fp32, ×")
        axes.set_ylabel("ρ of the maps with fp32's")
        axes.margins(x=0.1, y=0.12)
        figure.tight_layout(pad=0.6)
        told = (
            f"{len(drawable)} trials; on the Pareto front: "
            + "; ".join(f"{speed:.2f} × at ρ {likeness:.3f}" for speed, likeness in on_front)
            + "."
        )
        return Markup(inline(figure, f"pareto-{variant}", told))


def _front_table(variant: str, points: Sequence[Point], front: Sequence[Point]) -> Table:
    shown = [*front, *(point for point in points if point.is_chosen and point not in front)]
    if points and points[0] not in shown:
        shown.append(points[0])
    rows = []
    for point in shown:
        candidate, found = point.candidate, point.found
        words = [word for word, holds in (("chosen", point.is_chosen), ("plain", point == points[0])) if holds]
        rows.append(
            Row(
                f"{candidate.calibration}, {formats.count(candidate.float_layers, 'float layer')}",
                (
                    _cell(found.speedup, "×", found.reason),
                    _cell(found.score.saliency_spearman, "correlation", found.reason),
                    _cell(found.score.agreement, "share"),
                    _cell(found.score.accuracy_drop, "share"),
                    Cell("yes" if found.within_limits else "no"),
                ),
                ", ".join([*words, *candidate.repairs]) or "no repairs",
            )
        )
    columns = ("Speed-up", "ρ of the maps", "Agreement", "Accuracy lost", "Within limits")
    return Table(
        f"front-{variant}",
        "Pareto front of the search, and the plain file",
        "Calibration",
        tuple(Column(heading) for heading in columns),
        tuple(rows),
        "Speed-ups of the search: pairs of queries in one process. The chosen file's own latency stands above.",
    )


def _layer_chart(variant: str, layers: Sequence[SensitivityNote]) -> Markup | None:
    if not layers:
        return None
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.3, 0.9 + 0.21 * len(layers)))
        names = [layer.layer for layer in layers]
        panels: tuple[tuple[str, list[Estimate | None]], ...] = (
            ("SQNR of the logits, dB", [layer.score.logits_sqnr_db for layer in layers]),
            ("ρ of the maps", [layer.score.saliency_spearman for layer in layers]),
        )
        for index, (label, estimates) in enumerate(panels):
            axes = figure.add_subplot(1, 2, index + 1)
            for row, estimate in enumerate(estimates):
                if estimate is None:  # of a layer both are always measured
                    continue
                if estimate.ci95:
                    axes.plot(estimate.ci95, [row, row], color=PALETTE[1], linewidth=1.2)
                axes.plot(estimate.value, row, marker="o", color=PALETTE[1], markersize=4)
            axes.set_ylim(len(layers) - 0.5, -0.5)
            axes.set_yticks(range(len(names)), [_short(name) for name in names] if index == 0 else [""] * len(names))
            axes.set_xlabel(label)
        figure.tight_layout(pad=0.6, w_pad=1.5)
        told = "; ".join(f"{layer.layer} {layer.score.logits_sqnr_db.value:.1f} dB" for layer in layers)
        return Markup(inline(figure, f"sensitivity-{variant}", f"Layers by sensitivity: {told}."))


def _layer_table(variant: str, layers: Sequence[SensitivityNote]) -> Table:
    rows = tuple(
        Row(
            layer.layer,
            (
                _cell(layer.score.logits_sqnr_db, "dB"),
                _cell(layer.score.accuracy_drop, "share"),
                _cell(layer.score.saliency_spearman, "correlation"),
            ),
            f"{rank}. {layer.operator}",
        )
        for rank, layer in enumerate(layers[:MOST_LAYERS], start=1)
    )
    first = layers[0].score if layers else None
    maps = first.saliency_spearman.n if first and first.saliency_spearman else 0
    counted = f"n = {first.agreement.n} images, {maps} maps." if first else ""
    others = f" The {len(layers) - MOST_LAYERS} others cost less." if len(layers) > MOST_LAYERS else ""
    return Table(
        f"sensitivity-{variant}",
        "Layers by what quantizing each alone costs",
        "Layer",
        (Column("Logits' SQNR"), Column("Accuracy lost"), Column("ρ of the maps")),
        rows,
        counted + others,
    )


def _cell(estimate: Estimate | None, unit: str, reason: str = "the images have no labels") -> Cell:
    if estimate is None:
        return absent(reason)
    interval = formats.interval(*estimate.ci95, unit) if estimate.ci95 else ""
    return Cell(formats.with_unit(estimate.value, unit), interval)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"
