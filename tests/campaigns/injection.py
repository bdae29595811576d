"""Count what a process does to files below a folder, and strike at the N-th such event: a kill, or a refused call.

Python's audit hooks tell of every open, rename, removal and new folder before it happens, whoever asks for it;
`os.fsync` and `os.write` have none, so they are wrapped. An event is struck before it takes effect, except a write,
of which half gets through first: that is what a kill or a full disk leaves.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AUDITED = {
    "os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1, "os.link": 2, "os.symlink": 2,
    "os.chmod": 1,
}  # fmt: skip
"""Event → how many of its arguments are paths, or descriptors."""

Strike = Callable[[str], None]
"""Called at the chosen event with what happens there; it kills the process or raises."""


def kill(what: str) -> None:
    """End the process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> Strike:
    """Return a strike that raises an error of the operating system."""

    def strike(what: str) -> None:
        raise OSError(number, os.strerror(number), what.split(" ", 1)[1])

    return strike


STRIKES: dict[str, Strike] = {
    "SIGKILL": kill,
    "ENOSPC": refuse(errno.ENOSPC),
    "EIO": refuse(errno.EIO),
    "EROFS": refuse(errno.EROFS),
}


@dataclass
class Events:
    """What happened so far, and where to strike.

    Attributes:
        folder: only what is below it counts.
        at: number of the event to strike at, from 1; None to only count.
        strike: what to do there.
        lasting: strike at every later event too, as a disk that stays full does.
        seen: one text for each event, "open runs/tiny/run.json".
    """

    folder: Path
    at: int | None
    strike: Strike
    lasting: bool = False
    seen: list[str] = field(default_factory=list)

    def happens(self, event: str, path: object) -> bool:
        """Note an event and strike if its turn has come; return whether it has."""
        name = self._below(path)
        if name is None:
            return False
        self.seen.append(f"{event} {name}")
        if self.at is None or len(self.seen) < self.at or (len(self.seen) > self.at and not self.lasting):
            return False
        if event != "write":
            self.strike(self.seen[-1])
        return True

    def _below(self, path: object) -> str | None:
        try:
            if isinstance(path, int):
                text = str(Path(f"/proc/self/fd/{path}").readlink())
            else:
                text = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]  # noqa: PTH100
            return os.path.relpath(text, self.folder) if text.startswith(f"{self.folder}/") else None
        except (OSError, TypeError):
            return None


def watch(events: Events) -> None:
    """Let every event of this process go through `events` from now on; there is no way back."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
                events.happens("open", path)
        elif event in _AUDITED:
            for path in arguments[: _AUDITED[event]][-1:]:
                events.happens(event.removeprefix("os."), path)

    plain_fsync, plain_write = os.fsync, os.write

    def fsync(descriptor: int) -> None:
        events.happens("fsync", descriptor)
        plain_fsync(descriptor)

    def write(descriptor: int, content: bytes) -> int:
        if events.happens("write", descriptor):
            plain_write(descriptor, content[: len(content) // 2])
            events.strike(events.seen[-1])
        return plain_write(descriptor, content)

    os.fsync, os.write = fsync, write
    sys.addaudithook(audit)
