"""ROC, precision-recall and reliability diagrams, the answers on worse images, and training, from stored facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from foundation.answer_documents import Curves
from reports import formats
from reports.facts import Facts
from reports.line_charts import SHARES, Axes, Line, chart, legend_mark
from reports.measured import find
from reports.scales import Scale


@dataclass(frozen=True)
class Key:
    """A legend's entry: a line's look and whose it is."""

    svg: Markup
    name: str


@dataclass(frozen=True)
class Figure:
    """A chart with its title, and a legend of its own where the page's does not hold for it."""

    title: str
    svg: Markup
    keys: tuple[Key, ...] = ()


def keys(facts: Facts) -> tuple[Key, ...]:
    """Return the legend that all line charts of the page share."""
    return tuple(Key(legend_mark(look), name) for name, look in looks(facts).items())


def looks(facts: Facts) -> Mapping[str, int]:
    """Return variant → the look of its lines, fp32's the first."""
    return {name: look for look, name in enumerate(facts.variant_names)}


@dataclass(frozen=True)
class ClassCurves:
    """The two charts of a class, and its numbers."""

    of_class: str
    sample: str
    roc: Markup
    precision_recall: Markup


def class_curves(facts: Facts) -> tuple[ClassCurves, ...]:
    """Return the curves of each class that has any; none of a run that stored none."""
    found: dict[str, list[Curves]] = {}
    for one in facts.answers.curves if facts.answers else ():
        found.setdefault(one.of_class, []).append(one)
    return tuple(_of_class(facts, number, curves) for number, curves in enumerate(found.values()))


def _of_class(facts: Facts, number: int, curves: Sequence[Curves]) -> ClassCurves:
    look, of_class = looks(facts), curves[0].of_class
    known = [one for one in curves if one.variant in look]
    roc = [
        Line(one.variant, one.roc, look[one.variant], dot=(one.dot.false_positive, one.dot.sensitivity))
        for one in known
    ]
    precision = [
        Line(
            one.variant,
            one.precision_recall,
            look[one.variant],
            dot=None if one.dot.precision is None else (one.dot.sensitivity, one.dot.precision),
        )
        for one in known
    ]
    areas = _told(facts, "auroc", of_class, known)
    sample = f"{formats.count(curves[0].positives, 'image')} against {curves[0].negatives}"
    return ClassCurves(
        of_class,
        sample,
        chart(
            f"roc-{number}",
            Axes("1 − specificity", "sensitivity", SHARES, SHARES, diagonal=True),
            roc,
            f"ROC curves of {of_class}. AUROC: {areas}.",
        ),
        chart(
            f"pr-{number}",
            Axes("recall", "precision", SHARES, SHARES),
            precision,
            f"Precision-recall curves of {of_class}. Average precision: "
            f"{_told(facts, 'average_precision', of_class, known)}.",
        ),
    )


def _told(facts: Facts, family: str, of_class: str, curves: Sequence[Curves]) -> str:
    parts = []
    for one in curves:
        value = find(facts, f"{family}/{of_class}", one.variant).value
        parts.append(f"{one.variant} {formats.NOT_MEASURED if value is None else formats.score(value)}")
    return "; ".join(parts)


def reliability_figures(facts: Facts) -> tuple[Figure, ...]:
    """Return one reliability diagram per file, fp32's line below each variant's."""
    if facts.reliability is None:
        return ()
    look, of = looks(facts), facts.reliability.variants
    figures = []
    for variant in facts.variant_names:
        if variant not in of:
            continue
        shown = dict.fromkeys([*([facts.variant_names[0]] if facts.variant_names[0] in of else []), variant])
        lines = [
            Line(
                name,
                [(part.confidence, part.right) for part in of[name]],
                look[name],
                marks=True,
                bars=[part.ci95 for part in of[name]] if name == variant else (),
            )
            for name in shown
        ]
        told = "; ".join(f"{part.confidence:.2f} → {part.right:.2f} ({part.answers})" for part in of[variant])
        figures.append(
            Figure(
                variant,
                chart(
                    f"reliability-{look[variant]}",
                    Axes("probability given", "share right", SHARES, SHARES, diagonal=True),
                    lines,
                    f"Reliability of {variant}: {told}.",
                ),
            )
        )
    return tuple(figures)


def history_figures(facts: Facts) -> tuple[Figure, ...]:
    """Return loss and validation metrics over the epochs, one chart for each kind of number."""
    numbers = dict.fromkeys(key for epoch in facts.history for key, value in epoch.items() if value is not None)
    losses = [key for key in numbers if key.endswith("loss")]
    metrics = [key for key in numbers if key.startswith("validation_") and key not in losses]
    figures = []
    for title, names in (("Loss", losses), ("Validation", metrics)):
        lines = [
            Line(
                name,
                [_point(epoch, at, name) for at, epoch in enumerate(facts.history) if epoch.get(name) is not None],
                look + 1,
            )
            for look, name in enumerate(names)
        ]
        values = [y for line in lines for _, y in line.points]
        if not values:
            continue
        last = ", ".join(f"{line.name.replace('_', ' ')} {formats.significant(line.points[-1][1])}" for line in lines)
        across = Scale.over([x for line in lines for x, _ in line.points], margin=0.02)
        axes = Axes("epoch", title.lower(), across, Scale.over(values))
        told = f"{title} over {formats.count(len(facts.history), 'epoch')}; at the last: {last}."
        own = tuple(Key(legend_mark(line.look), line.name.replace("_", " ")) for line in lines)
        svg = chart(f"history-{title.lower()}", axes, lines, told, wide=True)
        figures.append(Figure(title, svg, own))
    return tuple(figures)


def _point(epoch: Mapping[str, float | None], at: int, name: str) -> tuple[float, float]:
    number = epoch.get("epoch")
    return (float(at + 1 if number is None else number), float(epoch[name] or 0.0))
