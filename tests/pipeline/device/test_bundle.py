"""The kit: what is in it, that it is the same every time, that every byte of it counts."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from device_kits import bundled_kit, contents, write_changed, write_kit_run

from foundation.errors import NotMeasuredError, UsageError
from foundation.files import read_json
from foundation.progress import Silent
from foundation.run_folder import RunFolder
from onnx_files.preprocessing import Preprocessing
from pipeline.custody.check import check_run
from pipeline.device.browser_runtime import browser_runtime, package_path
from pipeline.device.bundle import bundle
from pipeline.device.contents import BundleRequest
from pipeline.device.golden import Asked, Files, derived_bounds, evaluate, generated_images
from pipeline.device.kit.answers import map_distances, rank_correlations
from pipeline.device.kit.files import Kit, KitError, checked


def test_a_kit_holds_what_measures_and_nothing_of_who_made_it(run: RunFolder, kit: Path):
    found = contents(kit)
    assert {"model.onnx", "model.saliency.onnx", "golden/images.npy", "golden/maps.npy", "measure.py"} <= found.keys()
    assert found["model.onnx"] == run.fp32.read_bytes()
    facts = json.loads(found["kit.json"])
    assert [len(golden["outputs"]) for golden in facts["golden"]] == [3, 3, 3, 3]
    assert facts["timing"] == {
        "processes": 5, "rounds": 5, "queries_per_round": 10, "warmup_queries": 2, "seed": 0,
    }  # fmt: skip
    home = str(Path.home()).encode()
    assert not [name for name, content in found.items() if str(run.root).encode() in content or home in content]


def test_the_outputs_and_maps_in_it_are_the_files_own(run: RunFolder, kit: Path):
    facts = json.loads(contents(kit)["kit.json"])
    session = onnxruntime.InferenceSession(
        run.fp32.with_name("fp32.saliency.onnx"), providers=["CPUExecutionProvider"]
    )
    images = generated_images(4, 1, 8, 8)
    logits, gradient, explained = session.run(None, {"image": images, "target": np.full(4, -1)})
    assert np.array([golden["outputs"] for golden in facts["golden"]]) == pytest.approx(logits, rel=1e-5)
    assert [golden["explained"] for golden in facts["golden"]] == explained.tolist()
    kept = np.load(io.BytesIO(contents(kit)["golden/maps.npy"]))
    assert kept == pytest.approx(np.abs(gradient[:, 0]), rel=1e-4)


def test_sha256sum_says_the_same(kit: Path, tmp_path: Path):
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("there is no sha256sum here")
    shutil.unpack_archive(kit, tmp_path / "unpacked")
    subprocess.run([program, "-c", "--quiet", "--strict", "SHA256SUMS"], cwd=tmp_path / "unpacked", check=True)


def test_the_same_run_gives_the_same_bytes_and_stays_whole(run: RunFolder, tmp_path: Path, without_page: None):
    first, again = (bundled_kit(run, tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.kit_sha256 == again.kit_sha256
    assert check_run(run, None).exit_code == 0
    (remark,) = first.remarks
    assert remark.startswith("No page for browsers: expected onnxruntime-web")


@pytest.mark.parametrize(
    ("variant", "golden", "said"),
    [("static-int8", 4, "expected one of fp32, found 'static-int8'"), ("fp32", 65, "from 1 to 64, found 65"),
     ("fp32", 0, "found 0")],
)  # fmt: skip
def test_what_cannot_be_bundled_is_said_in_a_sentence(run: RunFolder, tmp_path: Path, variant, golden, said):
    with pytest.raises(UsageError, match=said):
        bundle(BundleRequest(run, variant, tmp_path / "x.zip", "generated", golden), Silent())
    assert not (tmp_path / "x.zip").exists()


def test_a_file_that_was_changed_after_the_run_is_not_handed_out(run: RunFolder, tmp_path: Path):
    run.fp32.write_bytes(run.fp32.read_bytes() + b"x")
    with pytest.raises(UsageError, match="changed after the run wrote it"):
        bundled_kit(run, tmp_path / "x.zip")


def test_one_changed_byte_of_any_file_is_found(kit: Path, tmp_path: Path):
    draw = np.random.default_rng(0)
    assert len(checked(Kit(kit))) == len(contents(kit)) - 1
    for name, content in contents(kit).items():
        changed = bytearray(content)
        changed[draw.integers(len(changed))] ^= int(draw.integers(1, 256))
        with pytest.raises(KitError, match=r"SHA256SUMS|not the kit that was bundled"):
            checked(Kit(write_changed(kit, tmp_path / "changed.zip", name, bytes(changed))))


def test_a_file_too_many_or_too_few_is_found(kit: Path, tmp_path: Path):
    shutil.unpack_archive(kit, tmp_path / "unpacked")
    (tmp_path / "unpacked" / "device.json").write_text("{}")
    (tmp_path / "unpacked" / ".DS_Store").write_text("")
    checked(Kit(tmp_path / "unpacked"))
    (tmp_path / "unpacked" / "numpy.py").write_text("")
    with pytest.raises(KitError, match=r"numpy\.py was added"):
        checked(Kit(tmp_path / "unpacked"))
    (tmp_path / "unpacked" / "numpy.py").unlink()
    (tmp_path / "unpacked" / "model.onnx").unlink()
    with pytest.raises(KitError, match=r"model\.onnx is missing"):
        checked(Kit(tmp_path / "unpacked"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_in_which_a_name_stands_twice_is_refused(kit: Path):
    with zipfile.ZipFile(kit, "a") as archive:
        archive.writestr("model.onnx", b"another")
    with pytest.raises(KitError, match="expected a kit"):
        checked(Kit(kit))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip at all" * 100])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "kit.zip").write_bytes(content)
    with pytest.raises(KitError, match="expected a kit"):
        checked(Kit(tmp_path / "kit.zip"))


def test_the_bound_is_twice_what_rounding_does(tmp_path: Path):
    run = write_kit_run(tmp_path / "run")
    files = Files(run.fp32.read_bytes(), run.fp32.with_name("fp32.saliency.onnx").read_bytes())
    asked = Asked("image", "logits", Preprocessing("uint8", (0.5,), (0.25,), 8))
    images = generated_images(4, 1, 8, 8)
    targets = np.zeros(4, dtype=np.int64)
    found = evaluate(files, asked, images, targets)
    bounds = derived_bounds(files, asked, images, targets, found, lambda done, total: None)
    largest = float(np.abs(found.outputs).max())
    assert 2.0**-18 * largest <= bounds.outputs < 1e-4 * largest
    assert 2.0**-16 <= bounds.maps < 1e-3
    other = evaluate(Files(write_kit_run(tmp_path / "other", seed=1).fp32.read_bytes(), None), asked, images, None)
    assert np.abs(other.outputs - found.outputs).max() > 1000 * bounds.outputs


def test_maps_are_compared_by_their_distance_and_their_ranks():
    reference = np.array([[[3.0, 4.0]], [[0.0, 0.0]], [[1.0, 2.0]]], dtype=np.float32)
    maps = np.array([[[3.0, 4.5]], [[0.0, 2.0]], [[2.0, 1.0]]], dtype=np.float32)
    assert map_distances(maps, reference) == pytest.approx([0.1, 2.0, np.sqrt(2) / np.sqrt(5)])
    assert rank_correlations(maps, reference) == pytest.approx([1.0, 0.0, -1.0])


def test_another_release_of_the_runtime_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotMeasuredError, match=r"npm pack onnxruntime-web@1\.30\.0"):
        browser_runtime()
    package_path().parent.mkdir()
    package_path().write_bytes(b"another")
    with pytest.raises(NotMeasuredError, match="found other bytes"):
        browser_runtime()


def test_the_run_remembers_the_digests_of_what_it_handed_out(run: RunFolder, kit: Path):
    (note,) = (run.root / "devices" / "kits").iterdir()
    found = contents(kit)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in found.items() if name != "SHA256SUMS"}
    assert read_json(note)["files"] == sums
    assert note.name == f"fp32.{sums['kit.json'][:16]}.json"


def test_the_command_line_writes_a_kit(run: RunFolder, tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "bundle",
        str(run.root),
        "--variant",
        "fp32",
        "--images",
        "generated",
    ]
    done = subprocess.run(
        [*command, "--golden", "2", "--output", str(tmp_path / "k.zip"), "--json"], capture_output=True, text=True
    )
    assert (done.returncode, json.loads(done.stdout)["kit"]) == (0, str(tmp_path / "k.zip"))
    assert len(json.loads(contents(tmp_path / "k.zip")["kit.json"])["golden"]) == 2
