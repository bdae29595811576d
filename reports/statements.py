"""The words of whoever answers for the model, the CLAIM 2024 checklist, and what the sanity check means."""

from __future__ import annotations

from dataclasses import dataclass

from reports.facts import BASELINE, Facts
from reports.first_screen import NOT_STATED
from reports.measured import find, method_name, saliency_methods

WORDS = {
    "intended_use": "Intended use",
    "population": "Population",
    "reference_standard": "Reference standard",
    "acquisition_devices": "Acquisition devices",
    "contraindications": "When not to use it",
    "author": "Author",
    "reviewer": "Reviewer",
}
"""Setting of `report:` → its heading; also the order on the page."""

LOOKS_ALIKE = 0.5
"""A likeness to maps of random weights from which a method's maps say little of the weights."""


@dataclass(frozen=True)
class Statement:
    """Something the user says; `text` "not stated" where the configuration is silent."""

    name: str
    text: str
    stated: bool


def statements(facts: Facts) -> tuple[Statement, ...]:
    """Return the words of the user in their order."""
    said = ((heading, facts.words(name)) for name, heading in WORDS.items())
    return tuple(Statement(heading, text or NOT_STATED, bool(text)) for heading, text in said)


@dataclass(frozen=True)
class ClaimItem:
    """One item of the checklist: the id of the section that answers it and its name; "" where nothing does."""

    number: int
    item: str
    section: str
    where: str


def claim(facts: Facts) -> tuple[ClaimItem, ...]:
    """Return the items of CLAIM 2024 (Tejani 2024, Radiol Artif Intell 6:e240300) with the section that answers each.

    An item that only a person can answer stands as "not stated"; so does one whose words the configuration lacks.
    """
    held = _held(facts)
    items = []
    for number, (item, section, where, needs) in enumerate(_CLAIM, start=1):
        answered = section and (not needs or needs in held)
        items.append(ClaimItem(number, item, section if answered else "", where if answered else NOT_STATED))
    return tuple(items)


def _held(facts: Facts) -> frozenset[str]:
    """Return what of the things that an item may need is there."""
    held = {name for name in WORDS if facts.words(name)}
    source = facts.record.configuration.get("model")
    trained = isinstance(source, dict) and bool(source.get("train"))
    found = {
        "data": facts.data is not None,
        "patients": facts.data is not None and facts.data.groups_known,
        "subgroups": any(m.where.subgroup and m.value is not None for m in facts.measurements),
        "robustness": any(m.metric.startswith("robust_") and m.value is not None for m in facts.measurements),
        "maps": bool(facts.maps),
        "trained": trained,
        "changes": facts.changes is not None,
        "measurements": any(m.value is not None for m in facts.measurements),
    }
    return frozenset(held | {name for name, there in found.items() if there})


_MADE, _DATA, _WORDS = "How it was made", "Data", "Statements"
_CLAIM: tuple[tuple[str, str, str, str], ...] = (
    ("Identification as a study of an AI method", "decision", "Decision", ""),
    ("Structured summary", "decision", "Decision", ""),
    ("Scientific and clinical background", "", "", ""),
    ("Objectives and hypotheses", "decision", "Decision: criteria fixed before the run", ""),
    ("Prospective or retrospective", "", "", ""),
    ("Goal of the study", "statements", _WORDS, "intended_use"),
    ("Data sources", "data", _DATA, "data"),
    ("Inclusion and exclusion criteria", "statements", _WORDS, "population"),
    ("Data preprocessing", "configuration", "Configuration: data", ""),
    ("Selection of data subsets", "data", _DATA, "data"),
    ("De-identification", "", "", ""),
    ("How missing data were handled", "data", _DATA, "data"),
    ("Image acquisition protocol", "statements", _WORDS, "acquisition_devices"),
    ("Definition of the reference standard", "statements", _WORDS, "reference_standard"),
    ("Rationale for the reference standard", "", "", ""),
    ("Source of the reference annotations", "", "", ""),
    ("Annotation of the test set", "", "", ""),
    ("Variability of the annotators", "", "", ""),
    ("How data were assigned to partitions", "data", _DATA, "data"),
    ("Level at which partitions are disjoint", "data", _DATA, "patients"),
    ("Intended sample size", "", "", ""),
    ("Detailed description of the model", "files", "Files and lineage", ""),
    ("Software libraries and packages", "environment", "Environment", ""),
    ("Initialization of the parameters", "configuration", "Configuration: model", "trained"),
    ("Details of training", "configuration", "Configuration: model.train", "trained"),
    ("Selection of the final model", "configuration", "Configuration: model.train", "trained"),
    ("Ensembling", "", "", ""),
    ("Metrics of performance", "glossary", "Glossary", "measurements"),
    ("Measures of significance and uncertainty", "decision-plot", "The decision as a plot", "measurements"),
    ("Robustness or sensitivity analysis", "robustness", "Worse images", "robustness"),
    ("Explainability", "saliency", "Where it looks", "maps"),
    ("Evaluation on internal data", "changed", "What changed", "measurements"),
    ("Testing on external data", "", "", ""),
    ("Registration of a trial", "", "", ""),
    ("Numbers of patients or examinations", "data", _DATA, "data"),
    ("Demographic and clinical characteristics", "subgroups", "Subgroups", "subgroups"),
    ("Performance with its uncertainty", "variants", "Variants", "measurements"),
    ("Diagnostic performance and its precision", "classes", "Classes", "measurements"),
    ("Failure analysis of incorrect results", "ledger", "Ledger of answers", "changes"),
    ("Limitations", "limits", "What it does not cover", ""),
    ("Implications for practice and intended use", "statements", _WORDS, "intended_use"),
    ("Full protocol or technical details", "configuration", "Configuration", ""),
    ("Availability of software, model and data", "made", _MADE, ""),
    ("Funding", "", "", ""),
)
"""Item, id of the section, its name, and what must be there for it to be answered."""


def sanity_sentences(facts: Facts) -> tuple[str, ...]:
    """Return one sentence per saliency method on what the sanity check says of it."""
    sentences = []
    for method in saliency_methods(facts):
        found = find(facts, "sanity_spearman", BASELINE, saliency_method=method)
        name = method_name(method)
        if found.value is None:
            sentences.append(f"{name}: whether its maps depend on the weights was not measured.")
            continue
        depends = found.value < LOOKS_ALIKE
        said = (
            "they change with the weights, so they say something of this network"
            if depends
            else "they stay much the same when the weights know nothing, so they show edges of the image rather than "
            "what this network learned; do not read them as reasons"
        )
        sentences.append(
            f"{name}: maps of the same network with random weights are alike to ρ {found.value:.2f}; {said}."
        )
    return tuple(sentences)
