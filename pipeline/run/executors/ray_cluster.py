"""The executor on an existing Ray cluster, by its address.

Ray ends a process that loses its cluster. So a child speaks to it, and only the child is ended.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import IO

from foundation.child import child_command, child_environment
from foundation.errors import UsageError
from pipeline.run.executors.remote import RemoteExecutor

_REACH_S = 3.0
_JOIN_S = 20.0
_ADDRESS = re.compile(r"(ray://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")


@contextmanager
def ray_cluster(address: str, share: str | None) -> Iterator[RemoteExecutor]:
    """Yield the cluster at an address while the block runs; its tasks end with the block.

    Args:
        address: "HOST:PORT", "ray://HOST:PORT", or "auto" for the one that this host belongs to.
        share: URL through which its workers get the run's files; None where they see its folder.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    if find_spec("ray") is None:
        raise UsageError("--ray: expected Ray in this environment, found none. `pip install 'edgeproof[ray]'`.")
    _refuse_unreachable(address)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            child_command("pipeline.run.executors.ray_broker", address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Nothing is told to Ray's makers.
            env=child_environment({"RAY_USAGE_STATS_ENABLED": "0"}),
            text=True,
            encoding="utf-8",
        )
        lines: queue.Queue[str] = queue.Queue()
        assert process.stdin is not None
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            cluster = RemoteExecutor(_joined(address, lines, errors), share, partial(_send, process.stdin))
            threading.Thread(target=_hand_out, args=(cluster, lines), daemon=True).start()
            yield cluster
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
            with suppress(OSError):  # what was still to be sent is of no use any more
                process.stdin.close()


def _refuse_unreachable(address: str) -> None:
    if address == "auto":
        return
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UsageError(f"--ray: expected HOST:PORT, ray://HOST:PORT or auto, found {address!r}.")
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray: expected a Ray cluster at {address}, found none ({getattr(error, 'strerror', None) or error}). "
            "Start it (`ray start --head --port=6379`), or mend the address."
        ) from error


def _joined(address: str, lines: queue.Queue[str], errors: IO[bytes]) -> str:
    """Return the cluster's name once the child has joined it.

    Raises:
        UsageError: it could not.
    """
    try:
        line = lines.get(timeout=_JOIN_S)
    except queue.Empty:
        raise UsageError(
            f"--ray: expected a Ray cluster at {address}, found something that did not answer within {_JOIN_S:g} s. "
            "Mend the address, or look at `ray status` there."
        ) from None
    if line:
        values = json.loads(line)
        if "cpus" in values:
            return f"Ray at {address} ({values['cpus']:g} CPUs)"
        why = values["error"]
    else:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        why = said[-1] if said else "it ended without a word"
    raise UsageError(f"--ray: the cluster at {address} could not be joined: {why} Mend that, or leave --ray out.")


def _send(pipe: IO[str], line: str) -> None:
    pipe.write(line)
    pipe.flush()


def _read(output: IO[str], lines: queue.Queue[str]) -> None:
    for line in output:
        lines.put(line)
    lines.put("")


def _hand_out(cluster: RemoteExecutor, lines: queue.Queue[str]) -> None:
    while line := lines.get():
        cluster.answer(json.loads(line))
    cluster.lose()
