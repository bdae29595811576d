"""The smallest run that has every kind of task for workers, and what of it is the same whoever computed it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from foundation.files import sha256_of_file
from foundation.progress import Silent
from foundation.record import read_record
from foundation.run_files import files_below
from pipeline.configuration_file import parse_configuration

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    "name": "tiny",
    "data": {
        "source": {"name": "endoscopy", "frames_per_class": 6, "frame_size": 32},
        "image_size": 16,
        "workers": 0,
    },
    "train": {"network": "cnn-small", "epochs": 1, "batch_size": 16, "threads": 1, "augment": {"flip": "none"}},
    "variants": {
        "fp16": {"method": "fp16", "images": 2},
        "static-int8": {"method": "static", "images": 4, "target": "x86-vnni"},
    },
    "validation": {
        "accuracy": {"resamples": 1000},
        "operating_points": {},
        "saliency": {"images": 2, "resamples": 1000, "methods": ["gradient"], "sanity_draws": 1},
        "latency": {"rounds": 5, "queries_per_round": 1, "warmup_queries": 0, "time_budget_s": 0.0},
    },
}
HOLDS_TIMES = ("report/", "validate/measurements.json", "validate/machine.json", "validate/placement.json")


def configuration():
    return parse_configuration(VALUES, "tiny", ROOT)


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def without_times_and_report(patch):
    """Leave out what workers have no part in."""
    patch.setattr("stages.validate.latency.measure_latency", lambda *anything: [])
    patch.setattr("reports.write_report", lambda run: run.report / "index.html")


def digests(run):
    """Return path → sha256 of what holds no times, and what the record says of each stage but its seconds."""
    files = {path for path in files_below(run.root) if not path.startswith(HOLDS_TIMES)}
    stages = {
        one.name: dataclasses.replace(one, seconds=None, status="done" if one.succeeded else one.status)
        for one in read_record(run).stages
    }
    return {path: sha256_of_file(run.root / path) for path in files} | stages
