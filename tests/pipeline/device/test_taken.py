"""`edgeproof import`: what a device found becomes a place of the run, and only if the run's own kit found it."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_kits import bundled_kit, write_kit_run

from foundation.errors import ExitCode, UsageError
from foundation.places import place_path, read_place
from foundation.record import read_record
from foundation.run_folder import RunFolder
from pipeline.custody.check import check_run
from pipeline.custody.report_again import report_again
from pipeline.device.kit.files import Kit, checked
from pipeline.device.taken import take_device

Change = Callable[[dict[str, Any]], object]


def device_of(kit: Path, **changes: Any) -> dict[str, Any]:
    """Return what a device that answers as reviewed writes, with 5 × 5 × 10 queries of 1 to 250 ms."""
    files, facts = checked(Kit(kit)), Kit(kit).facts()
    ran = {name: digest for name, digest in files.items() if name in facts["files"] or name.endswith(".py")}
    n = len(facts["golden"])
    durations = np.arange(1.0, 251.0).reshape(10, 25).T.reshape(5, 5, 10)
    timing = {
        "durations_ms": durations.tolist(), "load_ms": [2.0] * 5, "first_inference_ms": [3.0] * 5, "clock_ms": 1e-6,
        "kernel_ms": (2 * durations).tolist(), "rules": facts["timing"], "load_average": 0.1,
    }  # fmt: skip
    leg = {
        "provider": "cpu", "threads": 1, "outputs": [golden["outputs"] for golden in facts["golden"]],
        "maps": {"distances": [0.0] * n, "spearman": [1.0] * n}, "timing": timing,
    }  # fmt: skip
    return {
        "format_version": 1, "name": "phone", "way": "python", "kit_sha256": files["kit.json"], "files": ran,
        "device": {"system": "Linux <b>aarch64</b>", "processor": "Cortex", "cores": 4},
        "versions": {"onnxruntime": "1.24.4"}, "legs": [leg], **changes,
    }  # fmt: skip


@pytest.fixture
def device(kit: Path) -> dict[str, Any]:
    return device_of(kit)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Any], Path]:
    def write(values: Any) -> Path:
        path = tmp_path / "device.json"
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return write


def found_at(run: RunFolder, place: str = "phone") -> dict[str, Any]:
    return {one.metric: one for one in read_place(place_path(run, place)).measurements}


def test_a_device_becomes_a_place_with_its_answers_and_times(run: RunFolder, device, file):
    taken = take_device(run, file(device), None)
    assert (taken.exit_code, taken.places) == (ExitCode.PASSED, ("phone",))
    found = found_at(run)
    assert {name: found[name].value for name in found if name.startswith("place_")} == {
        "place_agreement": 1.0, "place_bit_equal": 1.0, "place_largest_difference": 0.0,
        "place_logits_sqnr_db": pytest.approx(144.5, abs=0.01), "place_saliency_spearman": 1.0,
    }  # fmt: skip
    assert (found["latency_p50_ms"].value, found["latency_p50_ms"].n) == (125.0, 250)
    assert found["latency_p90_ms"].value == 225.0
    assert found["latency_p99_ms"].value is None
    assert "250 queries, and this percentile takes 368" in found["latency_p99_ms"].reason
    assert found["latency_against_kernel"].value == pytest.approx(2.0)
    assert (found["load_ms"].value, found["first_inference_ms"].value) == (pytest.approx(2.0), pytest.approx(3.0))
    assert {one.where.place for one in found.values()} == {"phone"}
    assert check_run(run, None).exit_code == 0


def test_the_gates_that_name_it_are_judged_and_the_report_shows_it(run: RunFolder, device, file):
    assert [verdict.status for verdict in read_record(run).verdicts] == []
    taken = take_device(run, file(device), None)
    assert [verdict.status for verdict in taken.verdicts] == ["passed", "passed"]
    assert read_record(run).exit_code == ExitCode.PASSED
    page = (run.report / "index.html").read_text()
    assert "phone" in page
    assert "Linux &lt;b&gt;aarch64" in page
    assert "<b>aarch64" not in page
    report_again(run)
    assert "phone" in (run.report / "index.html").read_text()


def test_importing_twice_changes_nothing_and_a_new_measurement_takes_the_olds_place(run: RunFolder, device, file):
    take_device(run, file(device), None)
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    take_device(run, file(device), None)
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before
    device["legs"][0]["timing"]["durations_ms"] = (np.ones((5, 5, 10)) * 7).tolist()
    take_device(run, file(device), None)
    assert found_at(run)["latency_p50_ms"].value == 7.0
    assert len(read_place(place_path(run, "phone")).measurements) == len(found_at(run))


def test_a_device_that_answers_otherwise_is_called_different(run: RunFolder, device, file):
    outputs = np.array(device["legs"][0]["outputs"])
    outputs[0] = outputs[0, [1, 2, 0]]
    device["legs"][0]["outputs"] = outputs.tolist()
    taken = take_device(run, file(device), None)
    assert taken.exit_code == ExitCode.GATE_FAILED
    assert "DIFFERENT, answers differ by at most" in taken.sentence
    assert found_at(run)["place_agreement"].value == 0.75
    assert found_at(run)["place_bit_equal"].value == 0.75
    assert taken.verdicts[0].status == "failed"


def test_maps_that_moved_are_different_too(run: RunFolder, device, file):
    device["legs"][0]["maps"]["distances"][1] = 0.5
    assert take_device(run, file(device), None).exit_code == ExitCode.GATE_FAILED


def test_a_clock_too_coarse_for_the_file_carries_no_percentile(run: RunFolder, device, file):
    device["legs"][0]["timing"]["clock_ms"] = 20.0
    take_device(run, file(device), None)
    assert found_at(run)["latency_p50_ms"].value is None
    assert "steps of 20 ms" in found_at(run)["latency_p50_ms"].reason
    assert found_at(run)["throughput_images_per_s"].value > 0


def test_webgpu_is_a_place_beside_it_and_threads_are_not(run: RunFolder, device, file):
    first = device["legs"][0]
    failed = {"provider": "webgpu", "threads": 1, "outputs": None, "maps": None, "reason": "no adapter"}
    device["legs"] = [first, {**copy.deepcopy(first), "threads": 4}, failed]
    taken = take_device(run, file(device), "ward-tablet")
    assert taken.places == ("ward-tablet", "ward-tablet.webgpu")
    threads = {one.where.threads for one in read_place(place_path(run, "ward-tablet")).measurements}
    assert threads == {1, 4}
    assert "not measured (no adapter)" in taken.sentence
    assert taken.exit_code == ExitCode.GATE_FAILED


def set_at(*keys: Any) -> Callable[[Any], Change]:
    """Return what puts a value somewhere into the file."""

    def to(value: Any) -> Change:
        def change(device: dict[str, Any]) -> None:
            *way, last = keys
            for key in way:
                device = device[key]
            device[last] = value

        return change

    return to


LEG, TIMES = ("legs", 0), ("legs", 0, "timing")
BAD: dict[str, tuple[Change, str]] = {
    "a time below nothing": (set_at(*TIMES, "durations_ms", 0, 0, 0)(-1.0), "greater than or equal to 0"),
    "NaN": (set_at(*TIMES, "load_ms", 0)(math.nan), "device.json"),
    "infinity": (set_at(*LEG, "outputs", 0, 0)(math.inf), "device.json"),
    "a time of an hour": (set_at(*TIMES, "durations_ms", 0, 0, 0)(1e8), "less than or equal to"),
    "an output that float32 lacks": (set_at(*LEG, "outputs", 0, 0)(1e300), "float32 holds"),
    "an answer too few": (lambda d: d["legs"][0]["outputs"].pop(), "4 answers of 3 numbers"),
    "an output too many": (lambda d: d["legs"][0]["outputs"][0].append(1.0), "4 answers of 3 numbers"),
    "a ragged round": (lambda d: d["legs"][0]["timing"]["durations_ms"][0][0].pop(), "do not fit"),
    "no processes": (set_at(*TIMES, "durations_ms")([]), "at least 1 item"),
    "empty blocks": (set_at(*TIMES, "durations_ms")([[[]]] * 5), "do not fit"),
    "too many entries": (set_at(*LEG, "outputs")([[0.0]] * 65), "at most 64"),
    "too many legs": (lambda d: d["legs"].extend(d["legs"] * 16), "at most 16"),
    "another model": (set_at("files", "model.onnx")("0" * 64), "model.onnx was another when it ran"),
    "another image": (set_at("files", "golden/images.npy")("0" * 64), "golden/images.npy was another"),
    "another program": (set_at("files", "edgeproof_kit/measure.py")("0" * 64), "measure.py was another"),
    "a file that ran and is none of the kit": (set_at("files", "numpy.py")("0" * 64), "numpy.py was another"),
    "a file that did not run": (lambda d: d["files"].pop("model.onnx"), "model.onnx was another"),
    "another kit": (set_at("kit_sha256")("0" * 64), "handed out 1 others"),
    "another format": (set_at("format_version")(2), "format_version"),
    "a name that is a path": (set_at("name")("../../etc"), "pattern"),
    "a key of somebody else's": (set_at("extra")(1), "unexpected"),
    "a page that ran no script of ours": (set_at("way")("browser"), "page script was another"),
    "a number of cores that nobody has": (set_at("device", "cores")(10**9), "less than or equal to"),
    "a text of a million letters": (set_at("device", "system")("x" * 10**6), "at most 300"),
    "no object": (lambda d: None, ""),
}


@pytest.mark.parametrize("name", [name for name in BAD if name != "no object"])
def test_what_is_no_measurement_of_this_run_is_refused_and_leaves_no_trace(run: RunFolder, device, file, name: str):
    change, said = BAD[name]
    change(device)
    before = run.record.read_bytes()
    with pytest.raises(UsageError, match=said):
        take_device(run, file(device), None)
    assert run.record.read_bytes() == before
    assert not run.places.exists()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format_version": 1}', "[" * 100_000, '{"a": 1e999}', "\x00"])
def test_what_is_no_device_json_is_refused(run: RunFolder, file, kit: Path, text: str):
    with pytest.raises(UsageError, match=r"device\.json"):
        take_device(run, file(text), None)


def test_a_file_of_a_billion_entries_is_not_even_read(run: RunFolder, kit: Path, tmp_path: Path):
    path = tmp_path / "device.json"
    with path.open("wb") as stream:
        stream.truncate(2 * 10**9)  # a hole: as large as a billion entries, and no byte on the disk
    with pytest.raises(UsageError, match="at most 16000000 bytes; found 2000000000"):
        take_device(run, path, None)


def test_a_run_takes_nothing_of_another_run(run: RunFolder, tmp_path: Path, without_page: None, file, kit: Path):
    other = write_kit_run(tmp_path / "other", seed=3)
    others = bundled_kit(other, tmp_path / "other.zip").path
    with pytest.raises(UsageError, match="one of the kit"):
        take_device(run, file(device_of(others)), None)


def test_what_a_kit_handed_out_is_believed_only_as_recorded(run: RunFolder, device, file):
    (note,) = (run.root / "devices" / "kits").iterdir()
    note.write_text(note.read_text().replace('"variant": "fp32"', '"variant": "fp99"'))
    with pytest.raises(UsageError, match="changed after the run wrote it"):
        take_device(run, file(device), None)


def test_another_places_name_is_not_taken(run: RunFolder, device, file):
    take_device(run, file(device), None)
    place = place_path(run, "phone")
    text = place.read_text().replace("device kit, ", "qemu, ")
    place.write_text(text)
    from foundation.run_files import add_to_record

    add_to_record(run, [place])
    with pytest.raises(UsageError, match="that of another place"):
        take_device(run, file(device), None)
    with pytest.raises(UsageError, match="that of another place"):
        take_device(run, file(device), "wasm")
    with pytest.raises(UsageError, match="--place: expected small letters"):
        take_device(run, file(device), "Dr. Who")


def test_the_command_line_ends_with_the_outcome(run: RunFolder, device, file):
    command = [sys.executable, "-m", "pipeline", "import", str(run.root), str(file(device)), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["places"] == ["phone"]
    device["legs"][0]["maps"]["distances"][0] = 1.0
    file(device)
    assert subprocess.run(command, capture_output=True).returncode == 1
    file("{}")
    assert subprocess.run(command, capture_output=True).returncode == 2
