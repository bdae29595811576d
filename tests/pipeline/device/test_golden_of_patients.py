"""Golden images out of a run's own: answered as the run recorded, called by digests, of nobody's name."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from device_kits import contents, write_kit_run

from calibration_data.prepared_folder import Columns, Head, Rows, write_prepared
from foundation.errors import StageError
from foundation.progress import Silent
from foundation.run_files import add_to_record
from foundation.run_folder import RunFolder
from pipeline.device.bundle import bundle
from pipeline.device.contents import BundleRequest
from stages.validate.answers import Predictions

N = 9


def images_of() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 1, 8, 8), dtype=np.uint8)


def with_images(run: RunFolder, wrong: int) -> RunFolder:
    """Add nine test images of named patients, of which the run recorded some answers that the file does not give."""
    images, labels = images_of(), np.arange(N, dtype=np.int64) % 3
    rows = Rows(images, np.zeros((0, 8, 8), dtype=np.bool_), np.arange(N), np.full(N, -1))
    columns = Columns(
        labels, np.full(N, -1), [f"Doe_Jane_{k}.png" for k in range(N)], ["Doe, Jane"] * N, [()] * N,
        [f"{k:064x}" for k in range(N)],
    )  # fmt: skip
    head = Head("folder", "multi_class", ("polyp", "ulcer", "normal"), (0.5,), (0.25,), False, True)
    write_prepared(run.data, head, dict.fromkeys(("train", "validation", "test"), (rows, columns)))
    session = onnxruntime.InferenceSession(run.fp32, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": images})[0]
    logits[:wrong] = logits[:wrong, [1, 2, 0]]
    Predictions("fp32", logits, labels, run.predictions("fp32")).write()
    add_to_record(run, [*run.data.iterdir(), run.predictions("fp32")])
    return run


def test_patients_stay_at_home(tmp_path: Path, without_page: None):
    run = with_images(write_kit_run(tmp_path / "run"), wrong=2)
    bundled = bundle(BundleRequest(run, "fp32", tmp_path / "kit.zip", "test", N), Silent())
    assert bundled.remarks[0].startswith("2 of 9 golden images are left out")
    found = contents(bundled.path)
    facts = json.loads(found["kit.json"])
    assert (facts["images"], facts["synthetic"]) == ("test", False)
    assert [golden["name"] for golden in facts["golden"]] == [f"sha256:{0:012x}"] * 7
    assert np.load(io.BytesIO(found["golden/images.npy"])).tolist() == images_of()[2:].tolist()
    assert not [name for name, content in found.items() if b"Doe" in content]
    assert "Doe" not in (next((run.root / "devices" / "kits").iterdir())).read_text()


def test_a_machine_that_answers_otherwise_bundles_nothing(tmp_path: Path, without_page: None):
    run = with_images(write_kit_run(tmp_path / "run"), wrong=5)
    with pytest.raises(StageError, match="found 4 of 9 golden images answered alike"):
        bundle(BundleRequest(run, "fp32", tmp_path / "kit.zip", "test", N), Silent())
    assert not (tmp_path / "kit.zip").exists()
