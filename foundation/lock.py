"""One process at a time on a folder: two runs on one folder would mix their files."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from foundation.errors import UsageError

LOCK_NAME = ".lock"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process while the block runs.

    The kernel holds the lock (`flock` on `FOLDER/.lock`) and releases it when the holder dies, however it dies, so a
    killed run never leaves a folder locked. The file stays when the lock is released: deleting it would let a third
    process lock a new file while a second one waits on the deleted one.

    Args:
        folder: the folder to hold; it is created.

    Raises:
        UsageError: another process holds it, or the file system takes no locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise UsageError(
            "Expected Linux or macOS, found a system without fcntl's file locks. Use WSL or a container."
        ) from error
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"{path}: could not be opened to lock the folder ({error.strerror}). Choose a folder that is writable."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refusal(folder, descriptor, error) from error
        try:
            _write_holder(descriptor)
        except OSError as error:
            raise UsageError(
                f"{path}: could not be written ({error.strerror}). Free some space or choose another folder."
            ) from error
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def lock_patiently(folder: Path, *, seconds: float) -> Iterator[None]:
    """Hold `folder` as `lock_folder` does, after waiting for its holder.

    Args:
        folder: the folder to hold; it is created.
        seconds: how long to wait.

    Raises:
        UsageError: another process still holds it, or the file system takes no locks.
    """
    until_s = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(lock_folder(folder))
                break
            except UsageError:
                if time.monotonic() >= until_s:
                    raise
                time.sleep(0.1)
        yield


def _write_holder(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since_utc": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _refusal(folder: Path, descriptor: int, error: OSError) -> UsageError:
    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
        return UsageError(
            f"{folder}: this file system takes no locks ({error.strerror}). Choose a folder on a local disk."
        )
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = f"process {holder['pid']} on {holder['host']} since {holder['since_utc']}"
    except (ValueError, KeyError, TypeError):  # the holder has the lock and has not written its name yet
        who = "another process"
    return UsageError(
        f"{folder}: expected a folder that nobody is using, found it in use by {who}. "
        "Wait until that run ends, stop it, or choose another folder."
    )
