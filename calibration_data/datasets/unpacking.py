"""Where compressed sources are unpacked to, once, because compressed bytes have no random access.

What lies there is named after the sha256 of what it was unpacked from, so it can be shared by all runs and deleted
at any time between them.
"""

from __future__ import annotations

from pathlib import Path

from foundation.cache_folder import cache_folder

LARGEST_UNPACKED_BYTES = 32 * 2**30
"""Of one source; the largest set known here, PathMNIST at 224 px, has 16 GB."""
_SMALL_BYTES = 2**28
_LARGEST_RATIO = 200
"""Images compress to a half, masks to a hundredth; a bomb to a thousandth and less."""


def largest_unpacked_bytes(packed_bytes: int) -> int:
    """Return how many bytes may come out of a compressed source of a size: 256 MiB of a small one."""
    return min(LARGEST_UNPACKED_BYTES, _SMALL_BYTES + _LARGEST_RATIO * packed_bytes)


def unpacked_path(sha256: str, name: str) -> Path:
    """Return where a part of the source with this digest is unpacked to."""
    return cache_folder() / "unpacked" / f"{sha256}-{name}"
