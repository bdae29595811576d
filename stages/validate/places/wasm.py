"""The browser: onnxruntime-web's WebAssembly on one thread, in a headless Chromium on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from foundation.errors import UsageError
from stages.validate.places.node import npm_steps
from stages.validate.places.place import Place, folder_of, there, why_not_installed

PACKAGE = "onnxruntime-web@1.30.0"
OVERRIDE = "EDGEPROOF_BROWSER"
"""Environment variable with the path of a browser of Chromium's family."""

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _steps(folder: Path) -> list[list[str]]:
    return npm_steps(folder, PACKAGE)


def _browser() -> str | None:
    override = os.environ.get(OVERRIDE)
    if override and not Path(override).is_file():
        raise UsageError(f"{OVERRIDE}: expected the path of a browser, found {override!r}. Correct it, or unset it.")
    return override or next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def _why_not() -> str | None:
    if _browser() is None:
        return (
            f"wasm: expected Chromium or Chrome, found none of {', '.join(_BROWSERS)}. Install one, as with `apt-get "
            f"install chromium`, or set {OVERRIDE} to its path."
        )
    return why_not_installed("wasm", _steps)


def command_with(arguments: list[str], job: Path) -> list[str]:
    """Return the command that answers a job in the browser, started with further arguments."""
    web = folder_of("wasm") / "node_modules" / "onnxruntime-web" / "dist"
    return [sys.executable, "-P", str(there("browser.py")), str(job), str(_browser()), str(web), *arguments]


PLACE = Place(
    kind="real",
    what="onnxruntime-web's WebAssembly, one thread, in Chromium on this machine",
    why_not=_why_not,
    command=lambda job: command_with([], job),
    steps=_steps,
    needs="Chromium: `apt-get install chromium`, and npm to fetch onnxruntime-web",
)
