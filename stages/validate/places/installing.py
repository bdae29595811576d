"""Installing a place into a folder of its own in the user's cache; one that is half made is made anew."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

from foundation.errors import NotMeasuredError
from foundation.files import write_text
from stages.validate.places.place import MARKER, Place, folder_of, marker_of

_QUOTED_LINES = 5


def install(name: str, place: Place, log: Callable[[str], None]) -> None:
    """Install a place by its own commands, unless it can be asked already.

    Args:
        name: of the place.
        place: its row.
        log: called with each command before it runs.

    Raises:
        NotMeasuredError: a command failed, or something else is missing that no command of ours may install.
    """
    if place.why_not() is None:
        log(f"{name} is there already")
        return
    folder = folder_of(name)
    steps = place.steps(folder)
    if steps:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for step in steps:
            log(" ".join(step))
            _run(name, step)
        write_text(folder / MARKER, marker_of(steps, folder))
    why_not = place.why_not()
    if why_not is not None:
        raise NotMeasuredError(why_not)
    log(f"{name} is installed")


def _run(name: str, step: list[str]) -> None:
    try:
        done = subprocess.run(step, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise NotMeasuredError(
            f"{name}: expected the program `{step[0]}`, found that it cannot be started ({error.strerror}). Install "
            f"it, then run `edgeproof places --install {name}` again."
        ) from error
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_QUOTED_LINES:])
        raise NotMeasuredError(
            f"{name}: expected `{' '.join(step[:3])} …` to succeed, found exit code {done.returncode}:\n{last}\n"
            f"Check the network and the disk, then run `edgeproof places --install {name}` again."
        )
