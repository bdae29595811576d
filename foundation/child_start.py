"""The first lines of every child process: it ends with its parent, leaves Ctrl-C to it, and then is what it is told.

`python -P child_start.py PARENT MODULE ARGUMENT…` runs a module, `… FILE.py ARGUMENT…` a file. Nothing but the
standard library is needed, so that an environment of somebody else's can start this way too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_EVERY_S = 0.5


def end_with_parent(parent: int) -> None:
    """Have this process killed as soon as its parent is gone, however that went; Ctrl-C is the parent's to answer.

    On Linux the kernel sees to it: when the *thread* that started this process ends. Elsewhere a thread looks.

    Args:
        parent: process id of the parent; if it has died in the meantime, this process ends here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "nt":  # a process keeps its dead parent's id there
        return
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_look_for, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _look_for(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)


if __name__ == "__main__":
    import runpy

    end_with_parent(int(sys.argv[1]))
    wanted = sys.argv[2]
    del sys.argv[:2]
    if wanted.endswith(".py"):
        runpy.run_path(wanted, run_name="__main__")
    else:
        runpy.run_module(wanted, run_name="__main__", alter_sys=True)
