"""What comes back from devices and places, and what the report shows of it and of the answers: seeds and calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .mutations_seeds import of_run

_LOGITS = np.arange(12, dtype=np.float32).reshape(4, 3)


# --- seeds ---


def placement(folder: Path) -> list[bytes]:
    from foundation.placement import NodesOfAKind, Placement, write_placements

    of_run("validate", "measurements.json")(folder)
    kinds = (
        NodesOfAKind("CPUExecutionProvider", "QLinearConv", 14, 0.625),
        NodesOfAKind("OpenVINOExecutionProvider", "Transpose", 2, 0.25),
    )
    path = folder / "seed.json"
    write_placements(
        path,
        (
            Placement("static-int8", "cpu", kinds, 30, ("a transpose costs a quarter",)),
            Placement("fp16", "openvino", (), 0, (), "the provider refused it"),
        ),
    )
    return [path.read_bytes()]


def place(folder: Path) -> list[bytes]:
    from foundation.measurements import Measurement, Where
    from foundation.places import PlaceRecord, write_place
    from foundation.record import read_record
    from foundation.run_folder import RunFolder
    from stages.validate.measurements import not_measured

    of_run("validate", "measurements.json")(folder)
    run, where = RunFolder(folder), Where(split="test", place="arm64")
    record = read_record(run)
    rows = (
        Measurement("place_agreement", 0.96, "share", "static-int8", where, 50, (0.9, 0.99)),
        Measurement("place_logits_sqnr_db", 31.5, "dB", "static-int8", where, 50),
        not_measured("latency_p50_ms", "static-int8", "it hung", where, {}),
    )
    files = {one.variant: one.sha256 for one in record.variants}
    placements = {"static-int8": {"CPUExecutionProvider": {"QLinearConv": 14}}}
    notes = {"static-int8": ("saturates",)}
    found = PlaceRecord(
        "arm64", "real", "ARM", record.data_sha256, files, {"python": "3"}, rows, None, notes, placements
    )
    return [write_place(run, found).read_bytes()]


def _facts() -> dict[str, Any]:
    """What a kit is known by: four golden images of three classes."""
    return {
        "variant": "static-int8", "images": 4, "task": "multi_class", "output": "logits",
        "answers": {"kind": "logits"}, "bounds": {"outputs": 0.5, "maps": 0.1},
        "golden": [{"outputs": row} for row in _LOGITS.tolist()],
    }  # fmt: skip


def device(folder: Path) -> list[bytes]:
    durations = np.arange(1.0, 46.0).reshape(5, 3, 3)
    timing = {
        "durations_ms": durations.tolist(), "load_ms": [2.0] * 5, "first_inference_ms": [3.0] * 5, "clock_ms": 1e-6,
        "preprocessing_ms": [0.25] * 5, "kernel_ms": (2 * durations).tolist(), "load_average": 0.1,
        "rules": {"processes": 5, "rounds": 3, "queries_per_round": 3, "warmup_queries": 2, "seed": 0},
    }  # fmt: skip
    leg = {
        "provider": "cpu", "threads": 1, "outputs": _LOGITS.tolist(), "timing": timing,
        "maps": {"distances": [0.0] * 4, "spearman": [1.0] * 4},
    }  # fmt: skip
    failed = {"provider": "webgpu", "threads": 1, "outputs": None, "reason": "no adapter"}
    content = {
        "format_version": 1, "name": "phone", "way": "python", "kit_sha256": "a" * 64,
        "files": {"model.onnx": "b" * 64}, "device": {"system": "Linux", "processor": "Cortex", "cores": 4},
        "versions": {"onnxruntime": "1.24.4"},
        "legs": [leg, failed],
    }  # fmt: skip
    return [json.dumps(content).encode()]


def place_answer(folder: Path) -> list[bytes]:
    (folder / "small.0.raw").write_bytes(_LOGITS.tobytes())
    output = {"name": "logits", "file": "small.0.raw", "type": "float32", "shape": [4, 3]}
    placed = {"CPUExecutionProvider": {"Conv": 3}}
    files = {
        "small": {"outputs": [output], "placement": placed, "times_ms": [1.5, 2.5, 1.25, 2.0]},
        "other": {"error": "no such operator"},
    }
    content = {
        "format_version": 1, "versions": {"onnxruntime": "1.24.4"}, "machine": "aarch64", "features": ["avx2"],
        "files": files,
    }  # fmt: skip
    return [json.dumps(content).encode()]


# --- calls: each reads the file, which may end in a sentence, and shows what was accepted, which may not ---


def read_placement(path: Path) -> object:
    from foundation.placement import read_placements
    from reports.placement import placement as section

    read_placements(path)
    return section(_facts_of(path.parents[1]))


def read_place_file(path: Path) -> object:
    from foundation.places import read_place
    from pipeline.places.text import notes_of, places_json, places_table
    from reports.places import places as section

    found = read_place(path)
    notes_of([found])
    places_table([found])
    places_json([found], 0)  # type: ignore[arg-type]
    return section(_facts_of(path.parents[2]))


def read_answers_file(path: Path) -> object:
    from foundation.answer_documents import read_answers
    from reports.curves_section import class_curves
    from reports.ledger import confusions
    from reports.watch_out import watch_out

    read_answers(path)
    facts = _facts_of(path.parents[1])
    return class_curves(facts), confusions(facts), watch_out(facts)


def read_device(path: Path) -> object:
    from pipeline.device.device_file import read_device_file
    from pipeline.device.handed_out import HandedOut
    from pipeline.device.there import likeness_of, measurements_of

    kit = HandedOut(_facts(), {}, None)
    found = read_device_file(path)
    return [likeness_of(kit, leg, path) for leg in found.legs], measurements_of(kit, found, found.legs, "phone", path)


def read_place_answer(path: Path) -> object:
    from dataclasses import replace

    from stages.validate.places.asking import _collect
    from stages.validate.places.here import HERE
    from stages.validate.places.protocol import Question, read_answer

    question = Question("small", path, {"image": np.zeros((4, 1, 8, 8), np.uint8)}, ("logits",), 1)
    answer = read_answer(path.parent)
    return _collect(path.parent, [question, replace(question, name="other")], answer, None, HERE)


def _facts_of(folder: Path) -> Any:
    from foundation.run_folder import RunFolder
    from reports.facts import read_facts

    return read_facts(RunFolder(folder))
