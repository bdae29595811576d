"""Where compressed sources are unpacked to, once, because compressed bytes have no random access.

What lies there is named after the sha256 of what it was unpacked from, so it can be shared by all runs and deleted
at any time between them.
"""

from __future__ import annotations

import os
from pathlib import Path

LARGEST_UNPACKED_BYTES = 32 * 2**30
"""Of one source; the largest set known here, PathMNIST at 224 px, has 16 GB."""
_SMALL_BYTES = 2**28
_LARGEST_RATIO = 200
"""Images compress to a half, masks to a hundredth; a bomb to a thousandth and less."""


def largest_unpacked_bytes(packed_bytes: int) -> int:
    """Return how many bytes may come out of a compressed source of a size: 256 MiB of a small one."""
    return min(LARGEST_UNPACKED_BYTES, _SMALL_BYTES + _LARGEST_RATIO * packed_bytes)


def unpacked_path(sha256: str, name: str) -> Path:
    """Return where a part of the source with this digest is unpacked to: `edgeproof/` in the user's cache folder.

    The cache folder is `$XDG_CACHE_HOME`, or `~/.cache` where that is not set.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = Path(cache) if cache else Path.home() / ".cache"
    return folder / "edgeproof" / "unpacked" / f"{sha256}-{name}"
