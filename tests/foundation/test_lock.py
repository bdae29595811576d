from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.errors import UsageError
from foundation.lock import lock_folder

HOLDER = """
import sys, time
from pathlib import Path
from foundation.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_taker_is_told_who_holds_the_folder_and_a_kill_releases_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with hold(folder) as holder:
        with pytest.raises(UsageError) as refusal, lock_folder(folder):
            pass
        message = str(refusal.value)
        assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
        assert str(folder) in message
        assert "Wait until that run ends" in message

        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock_folder(folder):  # the dead holder's name is still in the file; the kernel knows better
            assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()


def test_released_when_the_block_ends_or_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"), lock_folder(tmp_path):
        raise RuntimeError("inside")
    with lock_folder(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == ""


def test_one_process_cannot_take_a_folder_twice(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} "), lock_folder(tmp_path):
        pass


def test_different_folders_do_not_meet(tmp_path: Path) -> None:
    with lock_folder(tmp_path), lock_folder(tmp_path / "inner"):
        assert (tmp_path / "inner" / ".lock").exists()


def test_holder_without_a_readable_name(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        (tmp_path / ".lock").write_text("")
        with pytest.raises(UsageError, match="in use by another process"), lock_folder(tmp_path):
            pass


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="could not be opened to lock the folder"), lock_folder(tmp_path / "run"):
        pass
