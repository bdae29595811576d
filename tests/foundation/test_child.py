"""Children: nothing from the working directory runs in them, nothing is sent, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from calibration_data.dataset import Frame, Record
from calibration_data.decoding import decode
from calibration_data.fitting import ImageForm
from foundation.child import BrokenChildError, Limits, child_command, child_environment, run_guarded, safe_spawning
from foundation.errors import DiskError, StageError, UsageError
from stages.validate.latency_processes import started_worker

SOURCE = Path(__file__).parents[2]
LIMITS = Limits(4_000_000_000, 30)
BAIT = (
    "threading",
    "json",
    "resource",
    "ctypes",
    "runpy",
    "onnx",
    "numpy",
    "foundation",
    "pipeline",
    "sitecustomize",
)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A working directory full of modules that leave a mark when they are imported, and PYTHONPATH pointing there."""
    mark = tmp_path / "ran"
    folder = tmp_path / "here"
    folder.mkdir()
    for name in BAIT:
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return mark


def load(record: Record) -> Frame:
    return Frame(np.full((4, 4, 1), 7, dtype=np.uint8), None)


def test_the_trap_works(trap):
    """Python as it is would run what lies there; otherwise the tests below show nothing."""
    subprocess.run([sys.executable, "-c", "import runpy"], check=False, capture_output=True)
    assert trap.exists()


def test_a_guarded_child_imports_nothing_from_the_working_directory(trap, tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(UsageError, match="expected"):
        run_guarded("onnx_files.trial_run:check_in_child", (str(bad),), LIMITS)
    assert not trap.exists()


def test_a_latency_worker_imports_nothing_from_the_working_directory(trap):
    with started_worker() as worker:
        worker.ask({"ready": True}, 60)
        request = {"model": "missing.onnx", "provider": "cpu", "threads": 1, "image": {"shape": [0], "base64": ""}}
        with pytest.raises(StageError, match="expected an ONNX file"):
            worker.ask(request, 30)
    assert not trap.exists()


def test_decoding_workers_import_nothing_from_the_working_directory(trap, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")  # what this process itself was told to import from is its user's choice
    records = [Record(f"{number}", 0, f"{number}", (), None, "") for number in range(3)]
    decoded = list(decode(records, load, ImageForm(4, 1, "stretch"), workers=1))
    assert [int(one.image.mean()) for one in decoded] == [7, 7, 7]
    assert not trap.exists()
    assert "PYTHONSAFEPATH" not in os.environ  # as it was


def test_spawning_keeps_what_was_set(monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "x")
    with safe_spawning():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONSAFEPATH"] == "x"


def test_no_telemetry_in_this_process_or_in_a_child():
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"  # conftest and everything else imports the package first
    assert child_environment()["ORT_DISABLE_TELEMETRY"] == "1"
    assert child_environment({"OMP_NUM_THREADS": "1"})["OMP_NUM_THREADS"] == "1"


def test_onnxruntime_leaves_no_identity_behind(tmp_path):
    program = "import foundation, onnxruntime; print(onnxruntime.__version__)"
    environment = {**child_environment(), "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", program], env=environment, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_child_ends_with_its_parent(tmp_path, ending):
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)\n")
    program = (
        "import subprocess, sys, time; from foundation.child import child_command\n"
        "subprocess.Popen(child_command(sys.argv[1])); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", program, sleeper], stdout=subprocess.PIPE, text=True, env=environment
    )
    with parent:
        child = int(parent.stdout.readline())
        parent.send_signal(ending)
    assert gone(child)


def gone(process: int) -> bool:
    """Whether a process ends within two seconds; a zombie has ended."""
    for _ in range(40):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_child_whose_parent_is_another_ends_at_once(tmp_path):
    command = child_command(tmp_path / "never.py")
    command[3] = "1" if os.getpid() != 1 else "2"
    assert subprocess.run(command, check=False).returncode == 1


def test_limits_are_the_childs_own():
    with pytest.raises(BrokenChildError) as broken:
        run_guarded("time:sleep", ("not a number",), LIMITS)
    assert not broken.value.too_slow
    assert broken.value.exit_status == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's file that is always full")
def test_a_full_disk_in_a_child_is_no_fault_of_its_file(corner_model):
    arguments = ("gradient", str(corner_model.path), "/dev/full", "", "")
    with pytest.raises(DiskError, match=r"could not be written \(No space left on device\)"):
        run_guarded("stages.saliency_twin.drawing:draw_in_child", arguments, LIMITS)
