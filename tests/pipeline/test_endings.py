"""How a command ends when it is told to, and the folders that it refuses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NATIVE = (
    "import ctypes; ctypes.PyDLL(None).usleep(0); ctypes.CDLL(None).sleep(20)"  # lets other threads run, not handlers
)
PYTHON = "import time; time.sleep(20)"
UNWINDS = "try:\n    time.sleep(20)\nfinally:\n    print('unwound', flush=True)"
STUCK = "try:\n    time.sleep(20)\nfinally:\n    time.sleep(20)"
# Under nohup, and behind a shell's &, tests are started ignoring these.
HEARD = (
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "signal.signal(signal.SIGINT, signal.default_int_handler)"
)
PROGRAM = """
import os, sys, time
{first}
from pipeline.endings import InterruptedBySignal, end_now, end_on_signals
say = lambda line: print(line, flush=True)
end_on_signals(say)
try:
    print("ready", flush=True)
    exec({work!r})
except InterruptedBySignal as interrupted:
    end_now(interrupted, say)
"""


def ended(work: str, *signals: signal.Signals) -> tuple[int, str, float]:
    """Return the exit code, the output after the signals, and the seconds that it took."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=work, first=HEARD)],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    started = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    output = process.communicate()[0]
    return process.returncode, output, time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "work"),
    [
        (signal.SIGINT, PYTHON),
        (signal.SIGTERM, PYTHON),
        (signal.SIGHUP, PYTHON),
        (signal.SIGTERM, NATIVE),
        (signal.SIGINT, STUCK),
    ],
    ids=["int", "term", "hup", "native", "stuck"],
)
def test_every_signal_ends_a_command_with_its_code_and_one_sentence(number, work):
    code, output, seconds = ended(work, number)
    assert code == 128 + number
    assert output == f"Interrupted ({number.name}). The same command goes on from here.\n"
    assert seconds < 10  # it would have slept 20; the two seconds that are promised are measured elsewhere


def test_what_is_half_done_unwinds():
    code, output, _ = ended(UNWINDS, signal.SIGTERM)
    assert code == 143
    assert output.splitlines()[0] == "unwound"


def test_a_second_signal_does_not_wait():
    code, output, _ = ended(STUCK, signal.SIGTERM, signal.SIGINT)
    assert code == 143
    assert output.count("Interrupted") == 1


def test_an_ignored_signal_stays_ignored():
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    program = PROGRAM.format(work="time.sleep(1)", first=ignoring)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 0


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["demo", "--run", ""], ["demo", "--run="], ["report", ""], [""]])
def test_an_empty_argument_is_no_folder(arguments, tmp_path):
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "expected a value, found nothing" in answer.stderr.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_of_others_is_refused(tmp_path):
    theirs = tmp_path / "data" / "theirs.csv"
    theirs.parent.mkdir()
    theirs.write_text("1")
    answer = run_in(tmp_path, "demo", "--run", ".")
    assert answer.returncode == 2
    assert "holds `data` already" in answer.stderr.replace("\n", " ")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
