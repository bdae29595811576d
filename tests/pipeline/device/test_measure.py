"""`measure.py` as its user starts it: in an interpreter that knows nothing of this project."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
import venv
from pathlib import Path

import numpy as np
import pytest
from device_kits import LATENCY, bundled_kit, contents, write_changed, write_kit_run

from onnx_files.preprocessing import Preprocessing
from pipeline.device.kit.answers import to_input
from pipeline.device.kit.files import Kit, KitError
from pipeline.device.kit.serve import opened


def test_the_answers_are_the_reviewed_ones_and_nobody_is_named(kit: Path, measure, tmp_path: Path):
    done = measure(kit, "--no-latency", "--name", "phone")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same: answers equal bit for bit, maps equal bit for bit" in done.stdout
    text = (tmp_path / "device.json").read_text()
    device = json.loads(text)
    assert (device["name"], device["way"], len(device["legs"][0]["outputs"])) == ("phone", "python", 4)
    assert device["legs"][0]["maps"]["spearman"] == [1.0] * 4
    assert socket.gethostname() not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("form", ["zip", "measure.py"])
def test_it_starts_from_the_zip_and_from_the_folder(kit: Path, measure, tmp_path: Path, form: str):
    shutil.unpack_archive(kit, tmp_path / "kit")
    started = {"zip": kit, "measure.py": tmp_path / "kit" / "measure.py"}[form]
    assert measure(started, "--no-latency").returncode == 0
    assert not list((tmp_path / "kit").rglob("__pycache__"))


@pytest.mark.parametrize("name", ["model.onnx", "golden/images.npy", "golden/maps.npy", "kit.json", "README.txt"])
def test_a_changed_file_is_refused_before_anything_runs(kit: Path, measure, tmp_path: Path, name: str):
    content = bytearray(contents(kit)[name])
    content[len(content) // 2] ^= 1
    done = measure(write_changed(kit, tmp_path / "c.zip", name, bytes(content)), "--no-latency")
    assert done.returncode == 2
    assert f"{name} was changed" in done.stderr
    assert not (tmp_path / "device.json").exists()


def test_a_file_that_answers_otherwise_is_called_different(tmp_path: Path, measure, without_page: None):
    """Whoever changes a model and mends every digest is found by the answers, if he leaves those as they are."""
    import hashlib

    from pipeline.device.kit.files import SUMS, sums_text

    kit = bundled_kit(write_kit_run(tmp_path / "run"), tmp_path / "kit.zip").path
    other = write_kit_run(tmp_path / "other", seed=1)
    parts = contents(kit)
    parts["model.onnx"] = other.fp32.read_bytes()
    del parts[SUMS]
    parts[SUMS] = sums_text({name: hashlib.sha256(one).hexdigest() for name, one in parts.items()}).encode()
    shutil.rmtree(tmp_path / "k", ignore_errors=True)
    for name, content in parts.items():
        (tmp_path / "k" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "k" / name).write_bytes(content)
    done = measure(tmp_path / "k" / "measure.py", "--no-latency")
    assert done.returncode == 1
    assert "DIFFERENT: answers differ by at most" in done.stdout


@pytest.mark.parametrize("arguments", [("--name", "Dr. Who's phone"), ("--threads", "0"), ("--threads", "1,1")])
def test_wrong_arguments_end_with_2(kit: Path, measure, arguments: tuple[str, ...]):
    assert measure(kit, "--no-latency", *arguments).returncode == 2


def test_an_input_is_made_as_the_run_makes_it():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    for kind, layout, order in (("uint8", "NCHW", "RGB"), ("float32", "NHWC", "BGR"), ("float32", "NCHW", "RGB")):
        form = Preprocessing(kind, (0.1, 0.2, 0.3), (0.9, 0.8, 0.7), 4, 5, layout, order)
        told = {"input_type": kind, "mean": form.mean, "std": form.std, "layout": layout, "channel_order": order}
        assert to_input(images, told).tobytes() == form.to_input(images).tobytes()


@pytest.mark.long
def test_a_bare_environment_is_enough_and_times_are_taken_by_the_rules(kit: Path, measure, tmp_path: Path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "bare").glob("lib/python*/site-packages")
    for name in ("numpy", "onnxruntime"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        (site / name).symlink_to(folder)
        if (libraries := folder.with_name(f"{name}.libs")).exists():
            (site / libraries.name).symlink_to(libraries)
    python = (str(tmp_path / "bare" / "bin" / "python"), "-I")
    found = subprocess.run(
        [*python, "-c", "import sys; sys.path.sort(); import importlib.util as u; print(u.find_spec('edgeproof'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "None"
    done = measure(kit, "--threads", "1,2", python=python)
    assert done.returncode == 0, done.stdout + done.stderr
    legs = json.loads((tmp_path / "device.json").read_text())["legs"]
    assert [leg["threads"] for leg in legs] == [1, 2]
    shape = (LATENCY["processes"], LATENCY["rounds"], LATENCY["queries_per_round"])
    for leg in legs:
        assert np.array(leg["timing"]["durations_ms"]).shape == shape
        assert np.array(leg["timing"]["kernel_ms"]).shape == shape
        assert len(leg["timing"]["load_ms"]) == 5
        assert min(leg["timing"]["load_ms"]) > 0


def test_a_python_without_onnxruntime_is_told_what_to_install(kit: Path, measure, tmp_path: Path):
    venv.create(tmp_path / "empty", with_pip=False, symlinks=True)
    done = measure(kit, python=(str(tmp_path / "empty" / "bin" / "python"), "-I"))
    assert done.returncode == 3
    assert "pip install numpy onnxruntime" in done.stderr


def served(kit: Path, **options: bool):
    return opened(Kit(kit), options.get("lan", False), 0, None)


def test_a_kit_without_a_page_serves_nothing(kit: Path):
    with pytest.raises(KitError, match=r"expected a kit with index\.html"):
        served(kit)


def test_only_the_page_is_served_and_only_under_its_address(page_kit: Path):
    import threading

    server, address = served(page_kit / "kit", lan=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert len(address.split("/")[-2]) == 12
        address = address.replace(address.split("/")[2].split(":")[0], "127.0.0.1")
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.read() == (page_kit / "kit" / "index.html").read_bytes()
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        root = "/".join(address.split("/")[:3])
        for path in ("/", "/index.html", f"{address}../kit.json", f"{address}model.onnx"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(path if path.startswith("http") else root + path, timeout=10)
    finally:
        server.shutdown()
        server.server_close()
