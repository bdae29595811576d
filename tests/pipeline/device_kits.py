"""A run that holds one small file with its twin, its kit, and what stands in for the browser's runtime."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from small_models import build_model
from small_run import small_record

from foundation.errors import ExitCode, NotMeasuredError
from foundation.notes import ExportNotes
from foundation.progress import Silent
from foundation.record import VariantRecord, write_record
from foundation.run_files import files_below, record_of_file
from foundation.run_folder import RunFolder
from pipeline.device.bundle import Bundled, bundle
from pipeline.device.contents import BundleRequest
from stages.saliency_twin.twin_file import make_twin

GATES = [
    {"metric": "place_agreement", "variant": "fp32", "place": "phone", "at_least": 1.0},
    {"metric": "latency_p50_ms", "variant": "fp32", "place": "phone", "at_most": 1e6},
]
LATENCY = {"processes": 5, "rounds": 5, "queries_per_round": 10, "warmup_queries": 2, "seed": 0}


def write_kit_run(
    root: Path, seed: int = 0, input_type: str = "uint8", size: int = 8, channels: int = 1
) -> RunFolder:
    """Return a run that has ended, with one file and its twin."""
    run = RunFolder(root)
    model = build_model(run.fp32, size=size, channels=channels, seed=seed, input_type=input_type)
    make_twin(run.fp32, None, None, None)
    size_bytes = run.fp32.stat().st_size
    fp32 = VariantRecord("fp32", "export", "export/fp32.onnx", model.sha256, size_bytes, None, {}, ExportNotes())
    files = {path: record_of_file(root / path) for path in files_below(root)}
    configuration = {"gates": GATES, "validation": {"latency": LATENCY}, "data": {"fit": "pad"}}
    record = small_record(
        name="small",
        configuration=configuration,
        task="multi_class",
        classes=("polyp", "ulcer", "<b>normal</b>"),
        variants=(fp32,),
        exit_code=ExitCode.INCOMPLETE,
        files=files,
    )
    write_record(run, record)
    return run


def bundled_kit(run: RunFolder, path: Path, golden: int = 4) -> Bundled:
    return bundle(BundleRequest(run, "fp32", path, "generated", golden), Silent())


def no_runtime() -> Any:
    raise NotMeasuredError("expected onnxruntime-web, found none. Install it.")


def contents(kit: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(kit) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_changed(kit: Path, to: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for one, original in contents(kit).items():
            archive.writestr(one, content if one == name else original)
    return to
