"""`report.json`: the run's facts for programs, with the keys that `format_version` 1 promises."""

from __future__ import annotations

import json

from reports.facts import FORMAT_VERSION, Facts

APART = frozenset({"format_version", "environment", "stages", "variants", "verdicts"})
"""Keys of `run.json` that stand beside "run" in the report, not inside it."""


def render(facts: Facts) -> str:
    """Return the file's text; what was not measured is null, never left out."""
    report = {
        "format_version": FORMAT_VERSION,
        "run": {key: value for key, value in facts.record.items() if key not in APART},
        "environment": dict(facts.environment),
        "stages": facts.record.get("stages") or [],
        "variants": facts.record.get("variants") or [],
        "measurements": [measurement.as_json() for measurement in facts.measurements],
        "verdicts": facts.record.get("verdicts") or [],
    }
    return json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
