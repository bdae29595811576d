"""The report's page: one file, no network, no script. Every text from the run is escaped by the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from calibration_data.summary import summary_lines
from foundation.files import JSON
from foundation.measurements import Measurement
from foundation.record import Verdict
from reports import charts, formats
from reports.class_tables import class_tables, rare_sentence, subgroup_tables
from reports.decision import judged_as_it_stands, judged_difference, outcome
from reports.facts import Facts
from reports.gallery import changed_images, saliency_grid
from reports.measured import deciding_metric, find, latency_settings, method_name, reason_of, shown_unit
from reports.placement import placement
from reports.places import places
from reports.recovery_table import recovery_table
from reports.robustness import robustness
from reports.saliency_tables import saliency_tables
from reports.threshold_tables import threshold_tables
from reports.tuning import LONG_NOTES, Search, searches
from reports.variant_tables import accuracy_table, at_a_glance, latency_tables

if TYPE_CHECKING:
    from jinja2 import Environment

STATUS_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "inconclusive": "inconclusive",
    "missing": "not measured",
    "done": "done",
    "reused": "reused",
    "not_measured": "not measured",
}


@dataclass(frozen=True)
class GateRow:
    """One gate as it stands in the first table."""

    gate: str
    detail: str
    limit: str
    value: str
    interval: str
    status: str


@dataclass(frozen=True)
class MeasurementRow:
    """One measurement as it stands in the complete list."""

    variant: str
    metric: str
    value: str
    interval: str
    n: str
    where: str
    settings: str


@dataclass(frozen=True)
class Section:
    """A part of the page: its template, and what the contents name of it, as id and heading."""

    template: str
    links: tuple[tuple[str, str], ...]


def render(facts: Facts) -> str:
    """Return the page."""
    template = _environment().get_template("report.html")
    found = searches(facts)
    return template.render(
        facts=facts,
        sections=_sections(facts, found),
        outcome=outcome(facts),
        gates=[_gate_row(verdict) for verdict in facts.record.verdicts],
        glance=at_a_glance(facts),
        accuracy=accuracy_table(facts),
        saliency=saliency_tables(facts),
        latency=latency_tables(facts),
        trade_offs=_trade_offs(facts),
        searches=found,
        recovery=recovery_table(facts),
        shown_elsewhere=LONG_NOTES,
        grid=saliency_grid(facts),
        changed_answers=facts.image_by_image.answers if facts.image_by_image else None,
        changed=changed_images(facts),
        deciding=deciding_metric(facts).row.heading,
        class_tables=class_tables(facts),
        rare=rare_sentence(facts),
        robustness=robustness(facts),
        places=places(facts),
        placement=placement(facts),
        thresholds=threshold_tables(facts),
        subgroups=subgroup_tables(facts),
        splits=_splits(facts),
        history=_history(facts),
        measurements=[_measurement_row(measurement) for measurement in facts.measured_everywhere],
        names_by_hash={record.sha256: record.variant for record in facts.record.variants},
        told_of_data=summary_lines(facts.data, facts.show_names)[1:] if facts.data else (),
        configuration=as_yaml(facts.record.configuration),
    )


def _sections(facts: Facts, found: Sequence[Search]) -> tuple[Section, ...]:
    """Return the page's sections in their order."""
    of_classes = f"{'Labels' if facts.task == 'multi_label' else 'Classes'} and subgroups"
    asked = any(m.where.change for m in facts.measurements)
    behind = tuple((f"search-{anchor(one.variant)}", f"Search behind {one.variant}") for one in found)
    return (
        Section("variants.html", (("variants", "Variants"), ("trade-offs", "Trade-offs"))),
        Section("tuning.html", behind),
        Section("saliency.html", (("saliency", "Saliency"),)),
        Section("changed.html", (("changed", "Changed answers"),)),
        Section("classes.html", (("classes", of_classes),)),
        Section("robustness.html", (("robustness", "Worse images"),) if asked else ()),
        Section("places.html", _links_of_places(facts)),
        Section("made.html", (("made", "How it was made"),)),
    )


def _links_of_places(facts: Facts) -> tuple[tuple[str, str], ...]:
    places = (("places", "Other places"),) if facts.places else ()
    return (*places, ("placement", "Placement")) if facts.placements else places


def as_yaml(value: JSON) -> str:
    """Return a value as YAML that `edgeproof run` reads back."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))


def anchor(key: str) -> str:
    """Return a text as part of an `id`: letters, digits and hyphens only."""
    return re.sub(r"[^A-Za-z0-9]+", "-", key)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": formats.percent,
        "size": formats.size,
        "seconds": formats.seconds,
        "count": formats.count,
        "short_hash": formats.short_hash,
        "yaml": as_yaml,
        "anchor": anchor,
        "method_name": method_name,
        "status": lambda status: STATUS_WORDS.get(status, status),
    }
    style = environment.loader.get_source(environment, "report.css")[0] if environment.loader else ""
    environment.globals["style"] = Markup(style)  # our own file, not the run's
    return environment


def _gate_row(verdict: Verdict) -> GateRow:
    measurement = judged_as_it_stands(verdict)
    detail, interval = verdict.detail, ""
    limit = formats.plain(verdict.limit)
    value = formats.NOT_MEASURED if verdict.value is None else formats.plain(verdict.value)
    if measurement is None and (difference := judged_difference(verdict)) is not None:
        unit = shown_unit(verdict.measurement) if verdict.measurement else ""
        value, limit = (formats.signed(one, unit) for one in (difference.value, verdict.limit))
        low_high = [formats.signed(one, unit, with_word=False) for one in difference.ci95 or ()]
        interval = " to ".join(low_high)
    if measurement is not None and measurement.value is not None:
        unit = shown_unit(measurement)
        value = formats.with_unit(measurement.value, unit)
        limit = formats.with_unit(verdict.limit, unit)
        interval = formats.interval(*measurement.ci95, unit) if measurement.ci95 else ""
        detail = f"n = {measurement.n}" if measurement.n else ""  # the rest stands in the cells
        if "labels" in measurement.remarks:
            detail += f", mean over {measurement.remarks['labels']} labels"
    return GateRow(verdict.gate, detail, limit, value, interval, verdict.status)


def _measurement_row(measurement: Measurement) -> MeasurementRow:
    remarks = {key: value for key, value in measurement.remarks.items() if key != "reason"}
    settings = {**measurement.where.settings, **remarks}
    if measurement.value is None:
        value = f"{formats.NOT_MEASURED}: {reason_of(measurement)}"
    else:
        value = formats.with_unit(measurement.value, shown_unit(measurement))
    return MeasurementRow(
        measurement.variant,
        measurement.metric,
        value,
        formats.interval(*measurement.ci95, shown_unit(measurement)) if measurement.ci95 else "",
        "" if measurement.n is None else str(measurement.n),
        ", ".join(part for part in (measurement.where.provider, measurement.where.split) if part),
        ", ".join(f"{key}: {_compact(value)}" for key, value in sorted(settings.items())),
    )


def _compact(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _trade_offs(facts: Facts) -> list[tuple[str, Markup]]:
    """Return the charts of the deciding metric against latency and against size, each with its title."""
    drawn = []
    settings = latency_settings(facts)
    heading = deciding_metric(facts).row.heading
    label = _first_lower(heading) + (", %" if deciding_metric(facts).is_share else "")
    if settings:
        p50 = {
            variant: find(facts, "latency_p50_ms", variant, latency=settings[0]) for variant in facts.variant_names
        }
        points = _points(facts, p50)
        title = f"{heading} against latency ({settings[0]})"
        if points:
            told = _told(facts, title, points, "ms")
            svg = charts.trade_off("latency", points, "latency p50, ms", label, told)
            drawn.append((title, Markup(svg)))  # matplotlib escapes the names it writes
    sizes = {
        record.variant: Measurement("size_bytes", record.size_bytes / 1024, "KiB", record.variant)
        for record in facts.record.variants
    }
    points = _points(facts, sizes)
    if points:
        title = f"{heading} against size"
        svg = charts.trade_off("size", points, "size, KiB", label, _told(facts, title, points, "KiB"))
        drawn.append((title, Markup(svg)))
    return drawn


def _first_lower(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def _points(facts: Facts, horizontal: dict[str, Measurement]) -> list[charts.Point]:
    points = []
    shown = deciding_metric(facts)
    factor = 100 if shown.is_share else 1
    for variant in facts.variant_names:
        x, y = horizontal.get(variant), find(facts, shown.metric, variant)
        if x is None or x.value is None or y.value is None:
            continue
        y_ci95 = (y.ci95[0] * factor, y.ci95[1] * factor) if y.ci95 else None
        points.append(charts.Point(variant, x.value, y.value * factor, x.ci95, y_ci95))
    return points


def _told(facts: Facts, title: str, points: list[charts.Point], unit: str) -> str:
    share = deciding_metric(facts).is_share
    parts = (
        f"{p.name} {f'{p.y:.1f} %' if share else formats.score(p.y)} at {formats.significant(p.x)} {unit}"
        for p in points
    )
    return f"{title}: {'; '.join(parts)}."


def _history(facts: Facts) -> Markup | None:
    losses, metrics = charts.history_series(facts.history)
    if not losses and not metrics:
        return None
    last = facts.history[-1]
    told = ", ".join(
        f"{name.replace('_', ' ')} {formats.significant(value)}"
        for name in (*losses, *metrics)
        if (value := last.get(name))
    )
    description = f"Training over {len(facts.history)} epochs; at the last: {told}."
    return Markup(charts.training_history("history", facts.history, description))


def _splits(facts: Facts) -> list[tuple[str, int, int, int]]:
    """Return name, images, groups and masks of each split."""
    if facts.data is None:
        return []
    return [
        (name, len(split), len(set(split.groups)), int(split.has_mask.sum()))
        for name, split in (
            ("train", facts.data.train),
            ("validation", facts.data.validation),
            ("test", facts.data.test),
        )
    ]
