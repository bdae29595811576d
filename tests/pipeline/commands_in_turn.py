"""Do several commands of `edgeproof` one after the other in the processes of one `torchrun`.

    torchrun ... commands_in_turn.py CONFIGURATION ...

What `train` says goes into `said-1.json` beside its configuration; of a second one, which finds everything there,
into `said-2.json`. Importing PyTorch takes each process longer than training so small a network.
"""

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

from pipeline.cli import main


def leads():
    return os.environ["RANK"] == "0"


def meet_anew(told):
    """Let the processes meet at a port of their own: in torchrun's store they would find what the last group left."""
    if leads():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            told.with_suffix(".new").write_text(str(free.getsockname()[1]))
        told.with_suffix(".new").rename(told)
    while not told.exists():
        time.sleep(0.01)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": told.read_text(),
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }


def train(configuration, number):
    os.chdir(configuration.parent)
    meet_anew(Path(f"port-{number}.txt"))
    sys.argv = ["edgeproof", "train", configuration.name, "--json"]
    with (
        Path(f"said-{number}.json" if leads() else os.devnull).open("w") as stream,
        contextlib.redirect_stdout(stream),
    ):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    for path in sys.argv[1:]:
        for number in (1, 2):
            train(Path(path), number)
