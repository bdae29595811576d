"""Nights of several members at once: a process for each, and one executor whose workers all of them share.

A process each, because what computes in a run sets what belongs to the process: torch's threads and its generator of
random numbers. The workers belong to the process of the whole night, so there are never more than were asked for.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import IO, Any

from foundation.child import child_command, child_environment
from foundation.errors import ExitCode
from foundation.host_lock import computing
from pipeline.night.fleet import Member, MemberNight
from pipeline.run.executors.task import Executor, ExecutorLostError, Outcome, Task

_COLUMNS = 80
_LONGEST_NAME = 24


class MembersAtOnce:
    """Does the night of a member in a process of its own, for as many threads as ask."""

    def __init__(self, executor: Executor, say: Callable[[str], None]) -> None:
        self._executor = executor
        self._say = say
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._is_ended = False

    def night_of(self, member: Member) -> MemberNight:
        """Do a night and return what it came to; where its process breaks, that."""
        if member.configuration is None:
            return MemberNight(member, ExitCode.USAGE, member.error or "it could not be read")
        with computing():  # nobody takes times while a process begins
            process = self._started()
            assert process.stdout is not None
            process.stdout.readline()
        under_way = _UnderWay(process, self._executor, lambda text: self._say(named_lines(member.name, text)))
        night = under_way.attend(member)
        with self._lock:
            self._processes.remove(process)
        return night

    def end(self) -> None:
        """End the processes, whatever they do; no other begins."""
        with self._lock:
            self._is_ended = True
            for process in self._processes:
                process.kill()

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            process = subprocess.Popen(
                child_command("pipeline.night.member"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=child_environment(),
                text=True,
                encoding="utf-8",
                errors="replace",
            )
            self._processes.append(process)
            if self._is_ended:
                process.kill()
            return process


@contextmanager
def members_at_once(executor: Executor, say: Callable[[str], None]) -> Iterator[MembersAtOnce]:
    """Yield what does nights while the block runs; what is under way when it ends is ended with it.

    Args:
        executor: whose workers all nights share.
        say: hears what each is told, every line with its member's name.
    """
    members = MembersAtOnce(executor, say)
    try:
        yield members
    finally:
        members.end()


def named_lines(name: str, text: str) -> str:
    """Return what a member tells in lines of at most 80 columns, each with its name."""
    half = (_LONGEST_NAME - 1) // 2
    short = name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
    lines = textwrap.wrap(text, _COLUMNS - len(short) - 3, subsequent_indent="    ", break_on_hyphens=False) or [""]
    return "\n".join(f"{short} │ {line}" for line in lines)


class _UnderWay:
    """A night under way in its process."""

    def __init__(self, process: subprocess.Popen[str], executor: Executor, say: Callable[[str], None]) -> None:
        self._process, self._executor, self._say = process, executor, say
        self._sending = threading.Lock()
        self._last_words = "it said nothing"

    def attend(self, member: Member) -> MemberNight:
        """Pass on what the process asks for and says, until it ends."""
        process, executor = self._process, self._executor
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert member.configuration is not None
        errors = threading.Thread(target=self._pass_on, args=(process.stderr,), daemon=True)
        errors.start()
        what = {"path": str(member.path), "configuration": member.configuration.as_json(), "root": str(member.root)}
        self._send({**what, "executor": executor.name, "share": executor.share})
        night = None
        for line in process.stdout:
            values = json.loads(line)
            if "said" in values:
                self._say(values["said"])
            elif "task" in values:
                self._submit(values["number"], values["task"])
            else:
                night = MemberNight.of_json(member, values["night"])
        status = process.wait()
        errors.join()
        with self._sending:
            process.stdout.close()
            process.stderr.close()
            with suppress(OSError):
                process.stdin.close()
        if night is not None:
            return night
        how = f"signal {-status}" if status < 0 else f"status {status}"
        told = f"its process ended before the night did ({how}; {self._last_words})"
        return MemberNight(member, ExitCode.INCOMPLETE, told)

    def _submit(self, number: int, text: str) -> None:
        def answer(future: Future[Outcome]) -> None:
            if future.cancelled():  # everything ends
                return
            try:
                became = {"outcome": future.result().as_text()}
            except ExecutorLostError as error:
                became = {"lost": str(error)}
            self._send({"number": number, **became})

        self._executor.submit(Task.of_text(text)).add_done_callback(answer)

    def _send(self, values: dict[str, Any]) -> None:
        process = self._process
        assert process.stdin is not None
        # A process that broke hears no more: ValueError where its pipe was closed meanwhile.
        with suppress(OSError, ValueError), self._sending:
            process.stdin.write(json.dumps(values) + "\n")
            process.stdin.flush()

    def _pass_on(self, errors: IO[str]) -> None:
        for line in errors:
            if line.strip():
                self._last_words = line.strip()
                self._say(line.rstrip())
