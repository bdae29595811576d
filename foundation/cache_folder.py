"""Where what can be made again lies between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `edgeproof/` in the user's cache folder, which is `$XDG_CACHE_HOME`, or `~/.cache` without one."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "edgeproof"
