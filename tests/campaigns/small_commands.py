"""The commands that the campaigns disturb: one page of settings, so small that a run takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIGURATION: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": {"name": "endoscopy", "frames_per_class": 6, "frame_size": 32},
        "image_size": 16,
        "workers": 0,
    },
    "train": {"network": "cnn-small", "epochs": 1, "batch_size": 16, "threads": 1, "augment": {"flip": "none"}},
    "variants": {
        "fp16": {"method": "fp16", "images": 2},
        "dynamic-int8": {"method": "dynamic"},
        "static-int8": {"method": "static", "images": 4, "target": "x86-avx2"},
        "pact-int8": {"method": "pact", "target": "x86-avx2"},
    },
    "validation": {
        "accuracy": {"resamples": 1000},
        "saliency": {"images": 2, "resamples": 1000, "methods": ["gradient"]},
        "latency": {"rounds": 5, "queries_per_round": 1, "warmup_queries": 0, "time_budget_s": 0.0},
    },
    "gates": [{"metric": "size_bytes", "variant": "fp16", "at_most": 0.9, "relative_to_fp32": "ratio"}],
    "nightly": {"keep": 2, "quiet_wait_minutes": 0.0},
}

TUNED: dict[str, Any] = {
    "method": "tuned", "trials": 6, "images": 4, "scored_images": 8, "explained_images": 2, "latency_rounds": 5,
    "target": "x86-avx2", "accuracy_drop": 1.0, "agreement": 0.0, "saliency_spearman": -1.0,
}  # fmt: skip

COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", "tiny.json", "--quiet"),
    "nightly": ("nightly", "tiny.json", "--root", "nights", "--quiet"),
    "accept": ("accept", "runs/tiny", "--reason", "a campaign"),
    "tuned": ("quantize", "tiny.json", "--variant", "tuned", "--quiet"),
}
"""Name → the arguments of `edgeproof`."""

PREPARATION: dict[str, tuple[str, ...]] = {
    "accept": ("run", "tiny.json", "--quiet"),
    "tuned": ("export", "tiny.json", "--quiet"),
}
"""Name → what is run beforehand, where a command starts from a finished one."""

FOREIGN_TEXT = "somebody else's"
FOREIGN = {
    "run": (
        "runs/tiny/notes.txt",
        "runs/tiny/mine/mine.onnx",
        "runs/tiny/.hidden",
        "runs/tiny/.mine.12345678.tmp.npy",
    ),
    "nightly": ("nights/notes.txt", "nights/2020-01-01/mine.txt", "nights/.accepted.abcdefgh.tmp.json"),
    "accept": ("runs/notes.txt", "runs/.accepted.json.mine", "runs/.accepted.abcdefgh.tmp.json"),
    "tuned": ("runs/tiny/quantize/mine.onnx", "runs/tiny/quantize/tuned.txt", "runs/tiny/.hidden"),
}
"""Name → files of somebody else's that lie where the command writes."""


def write_start(folder: Path, command: str) -> Path:
    """Make the folder that a command starts in, with its configuration; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = CONFIGURATION
    if command == "tuned":
        configuration = {**CONFIGURATION, "variants": {"tuned": TUNED}, "gates": []}
    elif command == "nightly":
        configuration = {**CONFIGURATION, "variants": {"fp16": CONFIGURATION["variants"]["fp16"]}}
    (folder / "tiny.json").write_text(json.dumps(configuration))
    if command == "nightly":
        for night in ("2020-01-01T020000Z", "2020-01-02T020000Z"):  # of which the first is one too many
            (folder / "nights" / night / "report").mkdir(parents=True, exist_ok=True)
            (folder / "nights" / night / "report" / "index.html").write_text("an old night")
    return folder


def write_foreign_files(folder: Path, command: str) -> None:
    """Put somebody else's files where a command is going to write."""
    for name in FOREIGN[command]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FOREIGN_TEXT)
