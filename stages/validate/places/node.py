"""Node.js: onnxruntime-node, the runtime of servers and desktop applications in JavaScript."""

from __future__ import annotations

import shutil
from pathlib import Path

from stages.validate.places.place import Place, folder_of, there, why_not_installed

PACKAGE = "onnxruntime-node@1.30.0"
_NEEDED = "Node.js 18 or newer with npm"


def npm_steps(folder: Path, package: str) -> list[list[str]]:
    """Return the command that installs one package from the npm registry, without running anything of it."""
    fixed = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--save-exact"]
    return [["npm", "install", *fixed, "--prefix", str(folder), package]]


def _steps(folder: Path) -> list[list[str]]:
    return npm_steps(folder, PACKAGE)


def _why_not() -> str | None:
    if shutil.which("node") is None:
        return f"node: expected {_NEEDED}, found no `node`. Install it, as with `apt-get install nodejs npm`."
    return why_not_installed("node", _steps)


PLACE = Place(
    kind="real",
    what="Node.js on this machine",
    why_not=_why_not,
    command=lambda job: ["node", str(there("answer.mjs")), str(job), str(folder_of("node") / "node_modules")],
    steps=_steps,
    needs=_NEEDED,
)
