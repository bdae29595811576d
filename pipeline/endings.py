"""How a command ends when it is told to: Ctrl-C, a service manager's TERM, a closed terminal's HUP."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

_GRACE_S = 1.0
"""For the exception to unwind; a native call that takes longer is left where it is, and children end with us."""


class InterruptedBySignal(BaseException):
    """A signal to end: no error of a stage, so nothing that handles those may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells count."""
        return 128 + self.number

    @property
    def sentence(self) -> str:
        """What the user reads."""
        return f"Interrupted ({self}). The same command goes on from here."


def end_on_signals(say: Callable[[str], None]) -> None:
    """From here on INT, TERM and HUP raise `InterruptedBySignal`, and within two seconds the process is gone.

    Python runs a handler between two of its own steps only, so a thread waits for the signal as well: a second one,
    or native code that does not come back, ends the process there. An ignored signal (`nohup`) stays ignored.

    Args:
        say: prints a line.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    listening, telling = os.pipe()
    os.set_blocking(telling, False)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    for number in heard:
        signal.signal(number, _raise_once)
    threading.Thread(target=_wait, args=(listening, frozenset(heard), say), daemon=True).start()


def _raise_once(number: int, frame: object) -> None:
    for other in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(other, _ignore)  # what unwinds is not interrupted again
    raise InterruptedBySignal(number)


def _ignore(number: int, frame: object) -> None:
    """Take a signal without doing anything; unlike SIG_IGN, it still wakes the waiting thread."""


def _wait(listening: int, heard: frozenset[int], say: Callable[[str], None]) -> None:
    number = 0
    while number not in heard:
        number = os.read(listening, 1)[0]
    again = threading.Event()
    threading.Thread(target=_hear_again, args=(listening, heard, again), daemon=True).start()
    until = time.monotonic() + _GRACE_S
    while time.monotonic() < until and not again.wait(0.05):
        pass
    end_now(InterruptedBySignal(number), say)


def end_now(interrupted: InterruptedBySignal, say: Callable[[str], None]) -> NoReturn:
    """Say that it was interrupted and end the process, without waiting for threads, pools or libraries to end."""
    say(interrupted.sentence)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the terminal may be gone
            stream.flush()
    os._exit(interrupted.exit_code)


def _hear_again(listening: int, heard: frozenset[int], again: threading.Event) -> None:
    while os.read(listening, 1)[0] not in heard:
        pass
    again.set()
