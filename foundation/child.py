"""The one way to start a child process, and to let it do what may break it: parse a file from anywhere.

A child takes nothing from the working directory or from PYTHONPATH and ends with its parent. A guarded one has limits
on memory and time besides and tells what is wrong in one sentence; what it breaks on breaks it alone.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from foundation.errors import DiskError, UsageError
from foundation.files import write_refused

_SOURCE = Path(__file__).resolve().parents[1]
_START = Path(__file__).with_name("child_start.py")


_KEPT = ("PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
"""What says how Python behaves, not what it imports."""

_DISK_REFUSED = 74
"""How a child tells that a write was refused: `EX_IOERR` of sysexits.h."""
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True)
class Limits:
    """What a child may use."""

    address_space_bytes: int
    seconds: float


class BrokenChildError(Exception):
    """The child crashed or ran out of memory; `exit_status` is its own, `too_slow` where its time was over."""

    def __init__(self, exit_status: int | None) -> None:
        super().__init__(f"exit status {exit_status}")
        self.exit_status = exit_status

    @property
    def too_slow(self) -> bool:
        """Whether its time was over."""
        return self.exit_status is None


def child_command(started: str | Path, *arguments: str | Path, python: str | Path | None = None) -> list[str]:
    """Return the command line of a child that ends with this process.

    Args:
        started: a module of ours, or the path of a Python file.
        arguments: its own.
        python: the interpreter; None for this one.
    """
    return [str(part) for part in (python or sys.executable, "-P", _START, os.getpid(), started, *arguments)]


def child_environment(changed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: this process's, but Python finds our own and the installed packages only.

    Args:
        changed: variables to set besides.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**inherited, **kept, "PYTHONPATH": str(_SOURCE), "PYTHONSAFEPATH": "1", **(changed or {})}


@contextmanager
def safe_spawning() -> Iterator[None]:
    """While the block runs, `multiprocessing` starts processes that import nothing from the working directory."""
    earlier = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    # Ended by a signal, this process leaves semaphores to multiprocessing's tracker, which need not talk about it.
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        yield
    finally:
        sys.warnoptions.remove("ignore:resource_tracker")
        if earlier is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        else:
            os.environ["PYTHONSAFEPATH"] = earlier


def run_guarded(function: str, arguments: tuple[str, ...], limits: Limits) -> None:
    """Call a function of ours in a child process.

    Args:
        function: `module:function`; it takes texts, returns nothing and leaves its result in files.
        arguments: of the function.
        limits: of the child.

    Raises:
        UsageError: what the function raised; a DiskError as such, since it is no fault of the file.
        BrokenChildError: the child broke, or hit a limit.
    """
    command = child_command("foundation.child", function, str(limits.address_space_bytes), *arguments)
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limits.seconds,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise BrokenChildError(None) from error
    if child.returncode == _DISK_REFUSED:
        raise DiskError(child.stdout.strip())
    if child.returncode == UsageError.exit_code:
        raise UsageError(child.stdout.strip())
    if child.returncode:
        raise BrokenChildError(child.returncode)


def _in_child(function: str, address_space_bytes: int, arguments: list[str]) -> int:
    """Set the limits and call the function; print what is wrong and return 2 or `_DISK_REFUSED`, or return 0."""
    try:
        import resource
    except ImportError:  # Windows has no such limits; there the child still takes a crash upon itself
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, name = function.split(":")
    try:
        getattr(import_module(module), name)(*arguments)
    except DiskError as error:
        print(error)
        return _DISK_REFUSED
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        print(write_refused(Path(error.filename or tempfile.gettempdir()), error))
        return _DISK_REFUSED
    except UsageError as error:
        print(error)
        return int(UsageError.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(_in_child(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
