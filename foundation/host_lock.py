"""Times are never taken while another task of ours computes on the same host.

Who computes holds a lock together with others, who takes times holds it alone. The kernel holds both (`flock`) and
releases them when the holder dies, however it dies. A second lock is the gate to the first: whoever waits to take
times holds it, so that those who compute do not relieve one another for ever.

The files lie in the user's cache folder: another user's work, or another container's, is not seen.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from foundation.cache_folder import cache_folder

_LOOK_EVERY_S = 0.05
_SAY_AFTER_S = 2.0


def nobody(text: str) -> None:
    """Hear nothing: a stage's own bar goes on."""


@contextmanager
def computing(say: Callable[[str], None] = nobody) -> Iterator[None]:
    """Work beside others while the block runs, after waiting for whoever takes times on this host; not to be nested.

    Where the cache folder takes no locks, nobody waits.

    Args:
        say: hears that times are waited for.
    """
    import fcntl

    with ExitStack() as held:
        try:
            with _locked("gate", fcntl.LOCK_SH, say):
                held.enter_context(_locked("work", fcntl.LOCK_SH, nobody))
        except OSError:
            held.close()
        yield


@contextmanager
def alone_on_host(say: Callable[[str], None]) -> Iterator[None]:
    """Be the only one of ours that computes on this host while the block runs, after waiting for the others.

    Args:
        say: hears that others are waited for, and that nobody could be waited for.
    """
    import fcntl

    with ExitStack() as held:
        try:
            held.enter_context(_locked("gate", fcntl.LOCK_EX, say))
            held.enter_context(_locked("work", fcntl.LOCK_EX, say))
        except OSError as error:
            held.close()
            say(
                f"! Whether other edgeproof work runs on this host is not known: {cache_folder()} takes no locks "
                f"({error.strerror or error})."
            )
        yield


@contextmanager
def _locked(name: str, kind: int, say: Callable[[str], None]) -> Iterator[None]:
    """Hold one of the two locks; the folder may be shared by several hosts, so its name bears this one's.

    Raises:
        OSError: the folder cannot be written, or takes no locks.
    """
    import fcntl

    waits = "this waits: another edgeproof takes times on this host, or is about to"
    if kind == fcntl.LOCK_EX:
        waits = "the times wait: other edgeproof work runs on this host"
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    cache_folder().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache_folder() / f"host-{host}.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        told, since_s = False, time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told and time.monotonic() - since_s >= _SAY_AFTER_S:
                    told = True
                    say(waits)
                time.sleep(_LOOK_EVERY_S)
        yield
    finally:
        os.close(descriptor)
