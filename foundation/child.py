"""The one way to let a child process do what may break it: parse a file that can come from anywhere.

The child takes nothing from the working directory or from PYTHONPATH, has limits on memory and time, and tells what
is wrong in one sentence. What it breaks on breaks the child alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from foundation.errors import UsageError

_SOURCE = Path(__file__).resolve().parents[1]


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


def run_guarded(function: str, arguments: tuple[str, ...], limits: Limits) -> None:
    """Call a function of ours in a child process.

    Args:
        function: `module:function`; it takes texts, returns nothing and leaves its result in files.
        arguments: of the function.
        limits: of the child.

    Raises:
        UsageError: what the function raised.
        BrokenChildError: the child broke, or hit a limit.
    """
    command = [sys.executable, "-P", "-m", "foundation.child", function, str(limits.address_space_bytes), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(_SOURCE), "ORT_DISABLE_TELEMETRY": "1"}
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=limits.seconds, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise BrokenChildError(None) from error
    if child.returncode == UsageError.exit_code:
        raise UsageError(child.stdout.strip())
    if child.returncode:
        raise BrokenChildError(child.returncode)


def _in_child(function: str, address_space_bytes: int, arguments: list[str]) -> int:
    """Set the limits and call the function; print what is wrong and return 2, or return 0."""
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
    except UsageError as error:
        print(error)
        return int(UsageError.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(_in_child(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
