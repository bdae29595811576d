"""`summary.md`: the verdict and the deciding numbers, short enough for the job summary of a CI server."""

from __future__ import annotations

from reports import formats, markdown
from reports.decision import outcome
from reports.facts import Facts
from reports.variant_tables import at_a_glance


def render(facts: Facts) -> str:
    """Return the file's text."""
    verdict = outcome(facts)
    parts = [
        f"## {verdict.headline}",
        f"{markdown.escape(verdict.sentence)} Exit code {verdict.exit_code}.",
        f"Run {markdown.escape(facts.record.name)}, data set {markdown.escape(facts.record.dataset)}.",
    ]
    parts += [f"**!** {markdown.escape(change.sentence)}" for change in facts.record.gate_changes]
    if facts.record.synthetic:
        parts.append("**Synthetic data:** these numbers have no clinical meaning.")
    broken = [entry for entry in facts.record.verdicts if entry.status != "passed"]
    if broken:
        parts.append("\n".join(f"- {_gate_line(entry.gate, entry.status, entry.detail)}" for entry in broken))
    stages = facts.record.unfinished_stages
    if stages:
        parts.append(
            "\n".join(
                f"- Stage {markdown.escape(stage.name)}: {markdown.escape(stage.error or 'the run gives no reason')}"
                for stage in stages
            )
        )
    if facts.variant_names:
        table = at_a_glance(facts)
        parts += [markdown.table(table), markdown.escape(table.legend)]
    return "\n\n".join(parts) + "\n"


def _gate_line(gate: str, status: str, detail: str) -> str:
    word = formats.NOT_MEASURED if status == "missing" else status
    return f"Gate {markdown.escape(gate)} {word}: {markdown.escape(detail.removeprefix(f'{word}: '))}"
