"""`report.json`: the run's facts for programs, with the keys that `format_version` 1 promises.

This interface is published, and older than the record of a run: whatever the record becomes, it is rendered here into
these keys. A measurement's `settings` are what `where` says beside provider and split, and its remarks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from foundation.files import JSON
from foundation.measurements import Measurement
from foundation.record import RunRecord, StageRecord, Verdict
from reports.facts import Facts

FORMAT_VERSION = 1


def render(facts: Facts) -> str:
    """Return the file's text; what was not measured is null, never left out."""
    report = published(facts.record, facts.measured_everywhere)
    return json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def published(record: RunRecord, measurements: Sequence[Measurement]) -> dict[str, JSON]:
    """Return a run as `report.json` and `--json` show it."""
    return {
        "format_version": FORMAT_VERSION,
        "run": {
            "name": record.name,
            "configuration": dict(record.configuration),
            "configuration_sha256": record.configuration_sha256,
            "gates_sha256": record.gates_sha256,
            "dataset": record.dataset,
            "synthetic": record.synthetic,
            "classes": list(record.classes),
            "exit_code": record.exit_code,
        },
        "environment": asdict(record.environment),
        "stages": [_stage(stage) for stage in record.stages],
        "variants": [asdict(one) | {"notes": one.notes.model_dump(mode="json")} for one in record.variants],
        "measurements": [_measurement(measurement) for measurement in measurements],
        "verdicts": [verdict_json(verdict) for verdict in record.verdicts],
        "gate_changes": [asdict(change) for change in record.gate_changes],
    }


def verdict_json(verdict: Verdict) -> dict[str, JSON]:
    """Return a verdict with the measurement that it judged; null where nothing fits the gate."""
    return {
        "gate": verdict.gate,
        "status": verdict.status,
        "value": verdict.value,
        "limit": verdict.limit,
        "detail": verdict.detail,
        "measurement": None if verdict.measurement is None else _measurement(verdict.measurement),
    }


def _stage(stage: StageRecord) -> dict[str, JSON]:
    own = {key: value for key, value in asdict(stage).items() if key not in ("kind", "subject")}
    return {"name": stage.name, **own}


def _measurement(one: Measurement) -> dict[str, JSON]:
    return {
        "metric": one.metric,
        "value": one.value,
        "unit": one.unit,
        "variant": one.variant,
        "provider": one.where.provider,
        "split": one.where.split,
        "n": one.n,
        "ci95": None if one.ci95 is None else list(one.ci95),
        "settings": {**one.where.settings, **one.remarks},
        "difference": None if one.difference is None else asdict(one.difference),
    }
