"""The search behind a tuned variant: its trials, its Pareto front, and the layers by what quantizing each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from foundation.files import JSON
from foundation.record import VariantRecord
from reports import formats
from reports.charts import FAINT, GRID, INK, PALETTE, inline, style
from reports.facts import Facts
from reports.tables import Cell, Column, Row, Table, absent

LONG_NOTES = ("search", "sensitivity")
"""Notes of a tuned variant that this section shows, and the list of files need not repeat."""
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


def searches(facts: Facts) -> list[Search]:
    """Return the searches of a run's tuned variants, in their order."""
    tuned = [record for record in facts.record.variants if record.method == "tuned" and "search" in record.notes]
    return [search_section(record) for record in tuned]


def search_section(record: VariantRecord) -> Search:
    """Return what the report shows of one tuned variant."""
    trials, layers = list(record.notes["search"]), list(record.notes["sensitivity"])
    measured = [trial for trial in trials if trial["measured"] is not None]
    within = [trial for trial in measured if trial["within_limits"]]
    limits = record.settings
    labelled = any(trial["measured"]["accuracy_drop"] is not None for trial in measured)
    sentence = (
        f"{formats.count(len(trials), 'file')} compiled, {len(measured)} measured, {len(within)} within the limits: "
        + (f"accuracy at most {formats.percent(limits['accuracy_drop'])} below fp32's, " if labelled else "")
        + f"agreement at least {formats.percent(limits['agreement'])}, "
        f"ρ of the gradient maps at least {formats.plain(limits['saliency_spearman'])}, all on validation images. "
        "The fastest of these was chosen; of files that are as fast, the one furthest inside the limits."
    )
    return Search(
        record.variant,
        sentence,
        _pareto(record, measured, float(limits["saliency_spearman"])),
        _front_table(record, measured),
        _layer_chart(record, layers[:MOST_LAYERS]),
        _layer_table(record, layers),
    )


def pareto_front(trials: Sequence[Mapping[str, JSON]]) -> list[Mapping[str, JSON]]:
    """Return the measured trials that no other one beats in both speed and saliency, the fastest first."""
    ordered = sorted(trials, key=lambda t: (-_value(t, "speedup"), -_value(t, "saliency_spearman")))
    front: list[Mapping[str, JSON]] = []
    for trial in ordered:
        if not front or _value(trial, "saliency_spearman") > _value(front[-1], "saliency_spearman"):
            front.append(trial)
    return front


def _value(trial: Mapping[str, JSON], metric: str) -> float:
    return float(trial["measured"][metric]["value"])


def _is_chosen(record: VariantRecord, trial: Mapping[str, JSON]) -> bool:
    chosen = record.notes["chosen"]
    return all(trial[key] == value for key, value in chosen.items())


def _pareto(record: VariantRecord, trials: Sequence[Mapping[str, JSON]], limit: float) -> Markup | None:
    if not trials:
        return None
    front = pareto_front(trials)
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
            [_value(t, "speedup") for t in front],
            [_value(t, "saliency_spearman") for t in front],
            where="post", color=GRID, linewidth=2.0, zorder=1,
        )  # fmt: skip
        for inside, marker, colour in ((False, "x", PALETTE[2]), (True, "o", PALETTE[1])):
            drawn = [t for t in trials if bool(t["within_limits"]) is inside and not _is_chosen(record, t)]
            axes.plot(
                [_value(t, "speedup") for t in drawn],
                [_value(t, "saliency_spearman") for t in drawn],
                linestyle="none", marker=marker, color=colour, markersize=5,
            )  # fmt: skip
        for trial in trials:
            if _is_chosen(record, trial):
                at = (_value(trial, "speedup"), _value(trial, "saliency_spearman"))
                axes.plot(*at, marker="D", color=INK, markersize=8, markeredgecolor="white")
                axes.annotate("chosen", at, xytext=(7, 5), textcoords="offset points", color=INK)
        axes.set_xlabel("speed-up over fp32, ×")
        axes.set_ylabel("ρ of the gradient maps with fp32's")
        axes.margins(x=0.1, y=0.12)
        figure.tight_layout(pad=0.6)
        told = (
            f"{len(trials)} trials; on the Pareto front: "
            + "; ".join(f"{_value(t, 'speedup'):.2f} × at ρ {_value(t, 'saliency_spearman'):.3f}" for t in front)
            + "."
        )
        return Markup(inline(figure, f"pareto-{record.variant}", told))


def _front_table(record: VariantRecord, trials: Sequence[Mapping[str, JSON]]) -> Table:
    front = pareto_front(trials)
    shown = [*front, *(t for t in trials if _is_chosen(record, t) and t not in front)]
    if trials and trials[0] not in shown:
        shown.append(trials[0])
    rows = []
    for trial in shown:
        repairs = [name.replace("_", " ") for name in ("equalization", "bias_correction") if trial[name]]
        words = [word for word, holds in (
            ("chosen", _is_chosen(record, trial)), ("plain", trial is trials[0]),
        ) if holds]  # fmt: skip
        rows.append(
            Row(
                f"{trial['calibration']}, {formats.count(int(trial['float_layers']), 'float layer')}",
                (
                    _cell(trial["measured"]["speedup"], "×"),
                    _cell(trial["measured"]["saliency_spearman"], "correlation"),
                    _cell(trial["measured"]["agreement"], "share"),
                    _cell(trial["measured"]["accuracy_drop"], "share"),
                    Cell("yes" if trial["within_limits"] else "no"),
                ),
                ", ".join([*words, *repairs]) or "no repairs",
            )
        )
    columns = ("Speed-up", "ρ of the maps", "Agreement", "Accuracy lost", "Within limits")
    return Table(
        f"front-{record.variant}",
        "Pareto front of the search, and the plain file",
        "Calibration",
        tuple(Column(heading) for heading in columns),
        tuple(rows),
        "Speed-ups of the search: pairs of queries in one process. The chosen file's own latency stands above.",
    )


def _layer_chart(record: VariantRecord, layers: Sequence[Mapping[str, JSON]]) -> Markup | None:
    if not layers:
        return None
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.3, 0.9 + 0.21 * len(layers)))
        names = [str(layer["layer"]) for layer in layers]
        panels = (("logits_sqnr_db", "SQNR of the logits, dB"), ("saliency_spearman", "ρ of the maps"))
        for index, (metric, label) in enumerate(panels):
            axes = figure.add_subplot(1, 2, index + 1)
            for row, layer in enumerate(layers):
                estimate = layer[metric]
                if estimate["ci95"]:
                    axes.plot(estimate["ci95"], [row, row], color=PALETTE[1], linewidth=1.2)
                axes.plot(estimate["value"], row, marker="o", color=PALETTE[1], markersize=4)
            axes.set_ylim(len(layers) - 0.5, -0.5)
            axes.set_yticks(range(len(names)), [_short(name) for name in names] if index == 0 else [""] * len(names))
            axes.set_xlabel(label)
        figure.tight_layout(pad=0.6, w_pad=1.5)
        told = "; ".join(f"{layer['layer']} {layer['logits_sqnr_db']['value']:.1f} dB" for layer in layers)
        return Markup(inline(figure, f"sensitivity-{record.variant}", f"Layers by sensitivity: {told}."))


def _layer_table(record: VariantRecord, layers: Sequence[Mapping[str, JSON]]) -> Table:
    rows = tuple(
        Row(
            str(layer["layer"]),
            (
                _cell(layer["logits_sqnr_db"], "dB"),
                _cell(layer["accuracy_drop"], "share"),
                _cell(layer["saliency_spearman"], "correlation"),
            ),
            f"{rank}. {layer['operator']}",
        )
        for rank, layer in enumerate(layers[:MOST_LAYERS], start=1)
    )
    first = layers[0] if layers else None
    counted = f"n = {first['agreement']['n']} images, {first['saliency_spearman']['n']} maps." if first else ""
    others = f" The {len(layers) - MOST_LAYERS} others cost less." if len(layers) > MOST_LAYERS else ""
    return Table(
        f"sensitivity-{record.variant}",
        "Layers by what quantizing each alone costs",
        "Layer",
        (Column("Logits' SQNR"), Column("Accuracy lost"), Column("ρ of the maps")),
        rows,
        counted + others,
    )


def _cell(estimate: Mapping[str, JSON] | None, unit: str) -> Cell:
    if estimate is None:
        return absent("the images have no labels")
    interval = formats.interval(estimate["ci95"][0], estimate["ci95"][1], unit) if estimate["ci95"] else ""
    return Cell(formats.with_unit(float(estimate["value"]), unit), interval)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"
