"""The report's page: one file, no network, readable without scripts. Every text from the run is escaped.

One script of our own sorts, filters, enlarges and folds; the page's policy allows its digest and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from calibration_data.flow import data_flow
from calibration_data.summary import summary_lines
from foundation.files import JSON
from reports import formats
from reports.class_forest import class_forests, subgroup_forests
from reports.class_tables import class_tables, rare_sentence, subgroup_tables
from reports.curves_section import class_curves, history_figures, keys, reliability_figures
from reports.facts import Facts
from reports.first_screen import first_screen
from reports.gallery import gallery
from reports.gate_rows import STATUS_WORDS, gate_forests, gate_rows
from reports.glossary import glossary, term_id, terms_by_heading
from reports.ledger import MOST_PICTURES, confusions, ledger
from reports.lineage import lineage
from reports.measured import deciding_metric, method_name
from reports.multiples import multiples
from reports.not_covered import gaps, limits
from reports.placement import placement
from reports.places import places
from reports.recovery_table import recovery_table
from reports.robustness import robustness
from reports.saliency_tables import saliency_tables
from reports.statements import claim, sanity_sentences, statements
from reports.threshold_tables import threshold_tables
from reports.tuning import LONG_NOTES, searches
from reports.variant_tables import accuracy_table, at_a_glance, latency_tables

if TYPE_CHECKING:
    from jinja2 import Environment

SYMBOLS = {"passed": "✓", "failed": "✕", "incomplete": "!", "changed": "!", "unjudged": "–"}
STATUS_SIGNS = {"passed": "✓", "failed": "✕", "inconclusive": "~", "missing": "!"}


@dataclass(frozen=True)
class Section:
    """A part of the page: its template, and what the contents name of it, as id and heading."""

    template: str
    links: tuple[tuple[str, str], ...]


def render(facts: Facts) -> str:
    """Return the page."""
    template = page_environment().get_template("report.html")
    values = _decision(facts) | _changed(facts) | _measured(facts) | _made(facts)
    return template.render(facts=facts, sections=_sections(facts, values), terms=terms_by_heading(facts), **values)


def _decision(facts: Facts) -> dict[str, Any]:
    rows = gate_rows(facts)
    return {
        "screen": first_screen(facts),
        "gates": rows,
        "gate_forests": gate_forests(facts, rows),
        "multiples": multiples(facts),
        "glance": at_a_glance(facts),
        "accuracy": accuracy_table(facts),
        "deciding": deciding_metric(facts).row.heading,
        "page_name": _plain(facts.record.name),
        "symbols": SYMBOLS,
        "signs": STATUS_SIGNS,
    }


def _changed(facts: Facts) -> dict[str, Any]:
    return {
        "changed_answers": facts.image_by_image.answers if facts.image_by_image else None,
        "counts_of": {one.variant: one for one in facts.changes.variants} if facts.changes else {},
        "ledger": ledger(facts),
        "most_pictures": MOST_PICTURES,
        "confusions": confusions(facts),
        "class_forests": class_forests(facts),
        "subgroup_forests": subgroup_forests(facts),
        "class_curves": class_curves(facts),
        "reliability": reliability_figures(facts),
        "keys": keys(facts),
        "class_tables": class_tables(facts),
        "rare": rare_sentence(facts),
        "robustness": robustness(facts),
        "thresholds": threshold_tables(facts),
        "subgroups": subgroup_tables(facts),
    }


def _measured(facts: Facts) -> dict[str, Any]:
    return {
        "saliency": saliency_tables(facts),
        "sanity": sanity_sentences(facts),
        "gallery": gallery(facts),
        "latency": latency_tables(facts),
        "places": places(facts),
        "placement": placement(facts),
        "searches": searches(facts),
    }


def _made(facts: Facts) -> dict[str, Any]:
    return {
        "gaps": gaps(facts),
        "limits": limits(facts),
        "flow": data_flow(facts.data) if facts.data else None,
        "told_of_data": summary_lines(facts.data, facts.show_names)[1:] if facts.data else (),
        "history": history_figures(facts),
        "lineage": lineage(facts),
        "recovery": recovery_table(facts),
        "shown_elsewhere": LONG_NOTES,
        "names_by_hash": {record.sha256: record.variant for record in facts.record.variants},
        "configuration": as_yaml(facts.record.configuration),
        "statements": statements(facts),
        "claim": claim(facts),
        "glossary": glossary(facts),
    }


def _sections(facts: Facts, values: dict[str, Any]) -> tuple[Section, ...]:
    """Return the page's sections in their order."""
    behind = tuple((f"search-{anchor(one.variant)}", f"Search behind {one.variant}") for one in values["searches"])
    return (
        Section("plot.html", (("decision-plot", "The decision as a plot"), ("variants", "Variants"))),
        Section("changed.html", (("changed", "What changed"),)),
        Section("answers.html", ()),
        Section("saliency.html", (("saliency", "Where it looks"),)),
        Section("tuning.html", behind),
        Section("places.html", (("places", "Where it runs"),)),
        Section("limits.html", (("limits", "What it does not cover"),)),
        Section("made.html", (("made", "How it was made"),)),
        Section("statements.html", (("statements", "Statements and signature"),)),
        Section("glossary.html", (("glossary", "Glossary"),)),
    )


def as_yaml(value: JSON) -> str:
    """Return a value as YAML that `edgeproof run` reads back."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))


def anchor(key: str) -> str:
    """Return a text as part of an `id`: letters, digits and hyphens only."""
    return re.sub(r"[^A-Za-z0-9]+", "-", key)


def _plain(name: str) -> str:
    """Return a run's name for the running header, which stands in a style sheet: nothing but harmless characters."""
    return re.sub(r"[^A-Za-z0-9 ._-]+", " ", name).strip()[:80]


@cache
def _own_files() -> tuple[str, str, str]:
    """Return our style sheet, our script, and the script's digest as a policy writes it."""
    from importlib.resources import files

    folder = files("reports") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return style, script, f"'sha256-{digest}'"


@cache
def page_environment() -> Environment:
    """Return what fills the templates, every text escaped."""
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
        "p_value": formats.p_value,
        "short_hash": formats.short_hash,
        "yaml": as_yaml,
        "anchor": anchor,
        "method_name": method_name,
        "term_id": term_id,
        "ticked": ticked,
        "quoted": quoted,
        "status": lambda status: STATUS_WORDS.get(status, status),
    }
    style, script, digest = _own_files()
    environment.globals["style"] = Markup(style)  # our own files, not the run's
    environment.globals["script"] = Markup(script)
    environment.globals["script_digest"] = Markup(digest)
    return environment


def quoted(text: str) -> str:
    """Return a run's text with quotation marks for backticks, in turns; it never becomes markup."""
    parts = text.split("`")
    return "".join(part + ("‘" if at % 2 == 0 else "’") for at, part in enumerate(parts[:-1])) + parts[-1]


def ticked(text: str) -> Markup:
    """Return a text of our own whose parts between backticks are code, everything escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return Markup.escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else Markup.escape(part) for at, part in enumerate(parts)
    )
