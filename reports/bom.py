"""`bom.cdx.json`: the machine-learning bill of materials of a run, CycloneDX 1.6, for programs that keep inventories.

It names each compiled file with its digest, what it was made from and what was measured of it, the data set, and the
libraries that computed. It holds no time, and its serial number follows from its content: the same run gives the same
bytes.
"""

from __future__ import annotations

import json
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from calibration_data.prepared import SPLITS
from foundation.files import JSON, sha256_of_json
from foundation.measurements import Measurement
from foundation.metrics import METRICS
from foundation.record import VariantRecord
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import find, reason_of, shown_unit

_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_TASKS = {"multi_class": "image classification", "multi_label": "multi-label image classification"}
_TRADED = ("size_against_fp32", "latency_speedup", "agreement", "saliency_spearman")
_RUN, _DATA = "run", "data"


def render(facts: Facts) -> str:
    """Return the file's text."""
    models = [_model(facts, variant) for variant in facts.record.variants]
    libraries = _libraries(facts)
    parts = [*models, *libraries]
    values: dict[str, JSON] = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [_tool(facts)]}, "component": _run(facts)},
        "components": [*models, _data(facts), *libraries],
        "dependencies": [
            {"ref": _RUN, "dependsOn": sorted(part["bom-ref"] for part in parts)},
            *({"ref": model["bom-ref"], "dependsOn": [_DATA]} for model in models),
        ],
    }
    values["serialNumber"] = f"urn:uuid:{uuid5(NAMESPACE_URL, sha256_of_json(values))}"
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _tool(facts: Facts) -> JSON:
    version = facts.record.environment.edgeproof
    return {"type": "application", "name": "edgeproof", **({} if version is None else {"version": version})}


def _run(facts: Facts) -> JSON:
    record = facts.record
    told = {
        "configuration_sha256": record.configuration_sha256,
        "gates_sha256": record.gates_sha256,
        "exit_code": "none: it did not end" if record.exit_code is None else int(record.exit_code),
        "processor": record.environment.cpu.model,
        "platform": record.environment.platform,
    }
    return {"type": "application", "bom-ref": _RUN, "name": record.name, "properties": _properties(told)}


def _model(facts: Facts, variant: VariantRecord) -> dict[str, JSON]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{variant.variant}",
        "group": facts.record.name,
        "name": variant.variant,
        "hashes": _sha256(variant.sha256),
        **_made_from(facts, variant),
        "modelCard": {
            "modelParameters": {
                "task": _TASKS[facts.task],
                "datasets": [{"ref": _DATA}],
                "inputs": [{"format": "image"}],
                "outputs": [{"format": f"one number for each of: {', '.join(facts.record.classes) or 'unknown'}"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(facts, variant.variant)},
            "considerations": _considerations(facts, variant.variant),
        },
        "properties": _properties({"path": variant.path, "size_bytes": variant.size_bytes, "method": variant.method}),
    }


def _made_from(facts: Facts, variant: VariantRecord) -> dict[str, JSON]:
    if variant.parent_sha256 is None:
        return {}
    names = {of.sha256: of.variant for of in facts.record.variants}
    parent = {
        "type": "machine-learning-model",
        "name": names.get(variant.parent_sha256, "the network's weights"),
        "hashes": _sha256(variant.parent_sha256),
    }
    return {"pedigree": {"ancestors": [parent]}}


def _metrics(facts: Facts, variant: str) -> list[JSON]:
    of_variant = (one for one in facts.measurements if one.variant == variant and one.value is not None)
    return [_metric(one) for one in of_variant if one.where.split in (None, "test")]


def _metric(one: Measurement) -> dict[str, JSON]:
    where = {"split": one.where.split, "provider": one.where.provider, **one.where.settings, "n": one.n}
    told = ", ".join(f"{key} {value}" for key, value in where.items() if value is not None)
    interval = (
        {}
        if one.ci95 is None
        else {"confidenceInterval": {"lowerBound": f"{one.ci95[0]:.9g}", "upperBound": f"{one.ci95[1]:.9g}"}}
    )
    name = one.metric if one.unit == "share" else f"{one.metric} in {one.unit}"
    return {"type": name, "value": f"{one.value:.9g}", **({"slice": told} if told else {}), **interval}


def _considerations(facts: Facts, variant: str) -> dict[str, JSON]:
    """Return what speaks for and against the file: its limits, and what it trades against fp32."""
    traded = [] if variant == BASELINE else [_trade(facts, variant, metric) for metric in _TRADED]
    use = facts.words("intended_use")
    return {
        **({"useCases": [use]} if use else {}),
        "technicalLimitations": _limitations(facts),
        **({"performanceTradeoffs": traded} if traded else {}),
    }


def _trade(facts: Facts, variant: str, metric: str) -> str:
    one, heading = find(facts, metric, variant), METRICS[metric].heading
    if one.value is None:
        return f"{heading}: not measured ({reason_of(one)})"
    within = f" ({formats.interval(*one.ci95, shown_unit(one))})" if one.ci95 else ""
    against = "" if "fp32" in heading else " against fp32"
    return f"{heading}{against}: {formats.with_unit(one.value, shown_unit(one))}{within}"


def _limitations(facts: Facts) -> list[str]:
    measured_on = f"The numbers hold for the processor they were measured on: {facts.record.environment.cpu.model}."
    generated = "The images were generated; the numbers have no clinical meaning."
    said = [facts.words("contraindications")] if facts.words("contraindications") else []
    unsaid = [] if facts.words("intended_use") else ["The run states no intended use."]
    return [measured_on, *([generated] if facts.record.synthetic else []), *said, *unsaid]


def _data(facts: Facts) -> JSON:
    data = facts.data
    told: dict[str, str | int] = {"synthetic": str(facts.record.synthetic).lower()}
    if data is not None:
        told |= {f"{name}_images": len(data.split(name)) for name in SPLITS}
        told["content_sha256"] = data.sha256
    return {
        "type": "data",
        "bom-ref": _DATA,
        "name": facts.record.dataset,
        "data": [{"type": "dataset", "name": facts.record.dataset}],
        "properties": _properties(told),
    }


def _libraries(facts: Facts) -> list[dict[str, JSON]]:
    environment = facts.record.environment
    worker = environment.neural_compressor or {}
    return [
        {"type": "platform", "bom-ref": "python", "name": "python", "version": environment.python},
        *(_library(name, version, "") for name, version in sorted(environment.packages.items())),
        *(_library(name, version, "neural-compressor-worker/") for name, version in sorted(worker.items())),
    ]


def _library(name: str, version: str, place: str) -> dict[str, JSON]:
    purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version, safe='.-')}"
    return {"type": "library", "bom-ref": f"{place}{purl}", "name": name, "version": version, "purl": purl}


def _sha256(digest: str) -> list[JSON]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(values: dict[str, str | int]) -> list[JSON]:
    return [{"name": f"edgeproof:{name}", "value": str(value)} for name, value in values.items()]
