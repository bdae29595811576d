"""The bill of materials: CycloneDX 1.6 by its own schema, with the digests and intervals that the run has."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from sample_run import SIZES, VARIANTS
from small_run import small_record

from foundation.measurements import Measurement, Where
from foundation.notes import ExportNotes
from foundation.record import VariantRecord
from foundation.run_folder import RunFolder
from reports import bom
from reports.facts import Facts, read_facts

REQUIRED_IN_BOM = {
    "type": "object",
    "required": ["bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies"],
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "version": {"type": "integer", "minimum": 1},
        "serialNumber": {
            "pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        },
        "components": {
            "items": {
                "required": ["type", "name", "bom-ref"],
                "properties": {
                    "type": {"enum": ["machine-learning-model", "data", "library", "platform"]},
                    "hashes": {
                        "items": {
                            "required": ["alg", "content"],
                            "properties": {"alg": {"const": "SHA-256"}, "content": {"pattern": "^[0-9a-f]{64}$"}},
                        }
                    },
                },
            },
            "uniqueItems": True,
        },
        "dependencies": {"items": {"required": ["ref"]}, "uniqueItems": True},
    },
}
"""What CycloneDX 1.6 requires of the parts that are used; its whole schema is asked where it is installed."""


@pytest.fixture(scope="module")
def found(reported_run: RunFolder) -> dict[str, Any]:
    return json.loads((reported_run.report / "bom.cdx.json").read_text(encoding="utf-8"))


def of_type(found: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {part["bom-ref"]: part for part in found["components"] if part["type"] == kind}


def test_it_has_what_the_specification_requires(found: dict[str, Any]) -> None:
    Draft7Validator(REQUIRED_IN_BOM).validate(found)
    known = {part["bom-ref"] for part in found["components"]} | {found["metadata"]["component"]["bom-ref"]}
    assert len(known) == len(found["components"]) + 1
    named = {one["ref"] for one in found["dependencies"]}
    named |= {ref for one in found["dependencies"] for ref in one["dependsOn"]}
    assert named <= known


@pytest.mark.skipif(
    importlib.util.find_spec("cyclonedx") is None,
    reason="cyclonedx-python-lib, which has the schema, is not installed",
)
@pytest.mark.parametrize("sample", ["reported_run", "labelled_run"])
def test_it_is_valid_by_the_whole_schema(sample: str, request: pytest.FixtureRequest) -> None:
    from referencing import Registry, Resource

    (package,) = importlib.util.find_spec("cyclonedx").submodule_search_locations
    folder = Path(package) / "schema" / "_res"
    schemas = {
        f"http://cyclonedx.org/schema/{path.name.replace('.SNAPSHOT', '')}": json.loads(path.read_text("utf-8"))
        for path in folder.glob("*.schema.json")
    }
    registry = Registry().with_resources((uri, Resource.from_contents(one)) for uri, one in schemas.items())
    schema = schemas["http://cyclonedx.org/schema/bom-1.6.schema.json"]
    text = (request.getfixturevalue(sample).report / "bom.cdx.json").read_text(encoding="utf-8")
    assert [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(json.loads(text))] == []


def test_each_compiled_file_is_a_model_with_its_digest_and_its_parent(found: dict[str, Any]) -> None:
    models = of_type(found, "machine-learning-model")
    assert list(models) == [f"model:{name}" for name in VARIANTS]
    fp32, static = models["model:fp32"], models["model:static-int8"]
    assert static["pedigree"]["ancestors"][0]["hashes"] == fp32["hashes"]
    assert static["pedigree"]["ancestors"][0]["name"] == "fp32"
    assert fp32["pedigree"]["ancestors"][0]["name"] == "the network's weights"
    assert {"name": "edgeproof:size_bytes", "value": str(SIZES[3])} in static["properties"]
    parameters = static["modelCard"]["modelParameters"]
    assert (parameters["task"], parameters["datasets"]) == ("image classification", [{"ref": "data"}])
    (data,) = of_type(found, "data").values()
    assert (data["name"], data["data"][0]["type"]) == ("endoscopy", "dataset")
    assert {"name": "edgeproof:test_images", "value": "48"} in data["properties"]


def test_a_measurement_stands_there_with_its_interval_and_its_place(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    written = json.loads(bom.render(facts))
    model = of_type(written, "machine-learning-model")["model:static-int8"]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (accuracy,) = facts.by_name["balanced_accuracy", "static-int8", None]
    assert accuracy.value is not None
    assert accuracy.ci95 is not None
    (one,) = [metric for metric in metrics if metric["type"] == "balanced_accuracy"]
    assert float(one["value"]) == pytest.approx(accuracy.value, rel=1e-8)
    assert float(one["confidenceInterval"]["lowerBound"]) == pytest.approx(accuracy.ci95[0], rel=1e-8)
    assert one["slice"] == "split test, provider cpu, n 48"
    assert len(metrics) == sum(m.variant == "static-int8" and m.value is not None for m in facts.measurements)


def test_what_was_not_measured_is_left_out_and_no_data_is_no_error() -> None:
    rows = (
        Measurement("accuracy", None, "share", "fp16", remarks={"reason": "no kernel"}),
        Measurement("latency_p50_ms", 1.5, "ms", "fp16", Where("cpu", threads=2)),
        Measurement("accuracy", 0.5, "share", "fp16", Where("cpu", "validation")),
    )
    variant = VariantRecord("fp16", "fp16", "quantize/fp16.onnx", "0" * 64, 5, None, {}, ExportNotes())
    written = json.loads(bom.render(Facts(small_record(variants=(variant,)), rows)))
    (model,) = of_type(written, "machine-learning-model").values()
    assert "pedigree" not in model
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "latency_p50_ms in ms", "value": "1.5", "slice": "provider cpu, threads 2"}
    ]
    assert of_type(written, "data")["data"]["properties"] == [{"name": "edgeproof:synthetic", "value": "false"}]


def test_libraries_stand_with_version_and_package_url(found: dict[str, Any]) -> None:
    libraries = of_type(found, "library")
    assert libraries["pkg:pypi/torch@2.13.0%2Bcpu"]["version"] == "2.13.0+cpu"
    assert libraries["neural-compressor-worker/pkg:pypi/onnx@1.18.0"]["purl"] == "pkg:pypi/onnx@1.18.0"
    assert libraries["pkg:pypi/onnx@1.23.2"]["name"] == "onnx"
    assert of_type(found, "platform")["python"]["version"] == "3.11.2"
    assert found["metadata"]["tools"]["components"][0] == {
        "type": "application", "name": "edgeproof", "version": "0.1.0"
    }  # fmt: skip


def test_it_holds_no_time_and_its_number_follows_from_its_content(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    text = bom.render(facts)
    assert text == bom.render(facts)
    assert not re.search(r'"timestamp"|\d{4}-\d{2}-\d{2}T', text)
    other = bom.render(replace(facts, measurements=facts.measurements[1:]))
    assert json.loads(other)["serialNumber"] != json.loads(text)["serialNumber"]


def test_a_variant_says_what_it_trades_and_where_its_numbers_hold(found: dict[str, Any]) -> None:
    models = of_type(found, "machine-learning-model")
    considered = models["model:static-int8"]["modelCard"]["considerations"]
    size = f"Size, × fp32: {SIZES[3] / SIZES[0]:.3f}"
    assert considered["performanceTradeoffs"][0] == size
    assert considered["performanceTradeoffs"][2].startswith("Agreement with fp32: 85.4")
    assert "AMD EPYC 7B13" in considered["technicalLimitations"][0]
    assert "performanceTradeoffs" not in models["model:fp32"]["modelCard"]["considerations"]
