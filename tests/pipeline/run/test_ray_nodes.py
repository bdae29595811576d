"""A Ray cluster of two nodes that share nothing but a folder: one of them is lost in the middle of a run.

Both are on this host, each with an address of loopback, a cache and a folder for temporary files of its own.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_run import Heard, configuration, digests, without_times_and_report

from foundation.child import child_environment
from foundation.errors import ExitCode
from foundation.progress import Silent
from foundation.run_folder import RunFolder
from pipeline.flow import compile_and_validate, run_until
from pipeline.run.executors.opening import Asked, opened_executor

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers at every address of 127.0.0.0/8"),
]


@contextmanager
def ray_node(scratch, name, address, *options):
    """Yield the folder of a node that is up until the block ends, and the process that holds it."""
    own = scratch / name
    for folder in ("cache", "tmp"):
        (own / folder).mkdir(parents=True)
    environment = child_environment({"XDG_CACHE_HOME": str(own / "cache"), "TMPDIR": str(own / "tmp")})
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={address}"]
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    with (own / "said.txt").open("wb") as said:
        node = subprocess.Popen(
            [*command, *ports, *options],
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while b"Ray runtime started" not in (own / "said.txt").read_bytes():
            assert node.poll() is None, (own / "said.txt").read_text()
            assert time.monotonic() < until, (own / "said.txt").read_text()
            time.sleep(0.2)
        yield own, node
    finally:
        node.terminate()
        try:
            node.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


@contextmanager
def two_nodes(scratch):
    """Yield the address of a cluster whose head takes no tasks, and two nodes of one CPU each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    short = Path("/tmp") / f"ray-{os.getpid()}"  # the paths of its sockets must be short
    head = (f"--port={address.partition(':')[2]}", "--head", "--num-cpus=0", "--include-dashboard=false")
    try:
        with ExitStack() as up:
            up.enter_context(ray_node(scratch, "head", "127.0.0.1", *head, f"--temp-dir={short}"))
            joining = (f"--address={address}", "--num-cpus=1")
            nodes = [
                up.enter_context(ray_node(scratch, f"node-{number}", f"127.0.0.{number + 1}", *joining))
                for number in (1, 2)
            ]
            yield address, nodes
    finally:
        shutil.rmtree(short, ignore_errors=True)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def below(process):
    """Return the processes that a process started, and those that they did, with their command lines."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parts[2]))
        except OSError:
            continue
    found, waiting = {}, [process]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            waiting.append(child)
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def raylet_that_works(node):
    """Return a node's raylet while a worker of ours runs below it; None while none does."""
    processes = below(node.pid)
    if not any("pipeline.run.executors.worker" in line for line in processes.values()):
        return None
    return next(number for number, line in processes.items() if "raylet/raylet" in line.split()[0])


def test_a_node_that_is_lost_costs_its_tasks_alone(tmp_path, monkeypatch):
    without_times_and_report(monkeypatch)
    begun = RunFolder(tmp_path / "begun")
    run_until("export", configuration(), begun, None, Silent())
    alone = RunFolder(Path(shutil.copytree(begun.root, tmp_path / "alone")))
    assert compile_and_validate(configuration(), alone, Silent()).exit_code == ExitCode.PASSED

    share = f"file://{tmp_path / 'share'}"
    with two_nodes(tmp_path) as (address, nodes):
        (first, first_process), (second, second_process) = nodes
        whole, lost = (RunFolder(Path(shutil.copytree(begun.root, tmp_path / name))) for name in ("whole", "lost"))
        with opened_executor(Asked(ray=address, share=share)) as executor:
            assert executor.name == f"Ray at {address} (2 CPUs)"
            assert compile_and_validate(configuration(), whole, Silent(), executor).exit_code == ExitCode.PASSED
        assert digests(whole) == digests(alone)
        fetched = [names_in(node / "cache" / "edgeproof" / "shared") for node in (first, second)]
        assert all(fetched)  # each node worked, and fetched for itself
        assert fetched[0] | fetched[1] <= names_in(tmp_path / "share")

        heard, struck = Heard(), []

        def strike():
            while not struck:
                raylet = raylet_that_works(second_process)
                if raylet is not None and any("compile" in line for line in heard.lines):
                    os.kill(raylet, signal.SIGKILL)
                    struck.append(raylet)
                time.sleep(0.02)

        striker = threading.Thread(target=strike, daemon=True)
        striker.start()
        with opened_executor(Asked(ray=address, share=share)) as executor:
            outcome = compile_and_validate(configuration(), lost, heard, executor)
        striker.join(1)
        assert len(struck) == 1
        assert outcome.exit_code == ExitCode.PASSED
        assert digests(lost) == digests(alone)
        # Ray began what was lost on the node that stayed: nothing was left to the run itself.
        assert sum(": done on " in line for line in heard.lines) == 8
        assert not [line for line in heard.lines if "computed here" in line or line.startswith("✗")], heard.lines
        assert first_process.poll() is None
