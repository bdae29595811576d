"""Where the worker's environment lives, how it is made, and what is in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from foundation.errors import NotMeasuredError, UsageError
from foundation.files import sha256_of_file, write_text

OVERRIDE = "EDGEPROOF_NEURAL_COMPRESSOR"
"""Environment variable with the path of a Python interpreter that has the requirements; nothing is then created."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
SUPPORTED_PYTHON = ((3, 11), (3, 12))
"""numpy 1.26.4 has wheels up to 3.12; the house needs 3.11."""

_PACKAGES = ("neural_compressor", "onnxruntime-tools", "onnxruntime", "onnx", "numpy")
_COMMAND = "edgeproof doctor --create-neural-compressor"


def environment_folder() -> Path:
    """Return the folder of the environment that `create_environment` makes, inside the main one."""
    return Path(sys.prefix) / "neural-compressor"


def worker_python() -> Path:
    """Return the interpreter that runs the worker.

    Raises:
        UsageError: the override names a file that is not there.
        NotMeasuredError: the environment is missing, half made, or made for other requirements.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        if not Path(override).is_file():
            raise UsageError(
                f"{OVERRIDE}: expected the path of a Python interpreter, found {override!r}, which is no file. "
                f"Correct it, or unset it and run `{_COMMAND}`."
            )
        return Path(override).absolute()  # a bare name would be looked up in PATH
    folder = environment_folder()
    if not _is_complete(folder):
        state = "one that is half made or made for other versions" if folder.exists() else "nothing"
        raise NotMeasuredError(
            f"expected Intel Neural Compressor's environment in {folder}, found {state}. Create it with `{_COMMAND}`."
        )
    return _python_of(folder)


def worker_versions() -> dict[str, str] | None:
    """Return the versions of Python and the main packages in the worker's environment; None where it is missing."""
    try:
        python = worker_python()
    except NotMeasuredError:
        return None
    program = (
        "import json, platform, sys; from importlib.metadata import version; "
        "print(json.dumps({'python': platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))"
    )
    try:
        answer = subprocess.run(
            [python, "-I", "-c", program, *_PACKAGES], capture_output=True, text=True, timeout=60, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise UsageError(
            f"{python}: expected a Python interpreter that tells its versions within 60 s, found none ({error}). "
            f"Check {OVERRIDE}, or make the environment anew with `{_COMMAND}`."
        ) from error
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(
            f"{python}: expected an environment with {', '.join(_PACKAGES)}, found one that lacks some ({reason}). "
            f"Install {REQUIREMENTS} there, or unset {OVERRIDE} and run `{_COMMAND}`."
        )
    versions: dict[str, str] = json.loads(answer.stdout)
    return versions


def create_environment(log: Callable[[str], None] = lambda line: None) -> Path:
    """Make the worker's environment, unless it is there already; one that is half made is made anew.

    Args:
        log: called with a line on each step.

    Returns:
        Its interpreter.

    Raises:
        NotMeasuredError: this Python has no wheels of the pinned versions, or pip could not install them.
    """
    if os.environ.get(OVERRIDE):
        log(f"{OVERRIDE} is set: using {worker_python()}, creating nothing")
        return worker_python()
    folder = environment_folder()
    if _is_complete(folder):
        log(f"{folder} is there already")
        return _python_of(folder)
    if sys.version_info[:2] not in SUPPORTED_PYTHON:
        supported = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHON)
        raise NotMeasuredError(
            f"expected Python {supported}, found {sys.version_info[0]}.{sys.version_info[1]}, for which Intel Neural "
            f"Compressor's requirements have no wheels. Install {REQUIREMENTS} in an environment of a supported "
            f"Python and set {OVERRIDE} to its interpreter."
        )
    shutil.rmtree(folder, ignore_errors=True)
    log(f"creating {folder}")
    _run([sys.executable, "-m", "venv", str(folder)])
    log(f"installing {REQUIREMENTS} (about 700 MB on disk)")
    pip = [str(_python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    # Without its dependencies' own wishes: every package is pinned, and nothing else may come in.
    _run([*pip, "--no-deps", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS)])
    write_text(_marker(folder), sha256_of_file(REQUIREMENTS) + "\n")
    log("done")
    return _python_of(folder)


def _python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _marker(folder: Path) -> Path:
    # Written last, so that an environment without it is a half-made one.
    return folder / "requirements.sha256"


def _is_complete(folder: Path) -> bool:
    marker = _marker(folder)
    return marker.is_file() and marker.read_text(encoding="utf-8").strip() == sha256_of_file(REQUIREMENTS)


def _run(command: list[str]) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        last = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
        raise NotMeasuredError(
            f"expected `{' '.join(command[:4])} …` to succeed, found exit code {answer.returncode}:\n{last}\n"
            f"Check the network and the disk, then run `{_COMMAND}` again."
        )
