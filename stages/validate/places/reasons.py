"""Why a file answers otherwise, or is no faster, at a place: from its graph, where its nodes ran, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from foundation.measurements import Measurement


def reasons(
    place: str,
    path: Path,
    placement: Mapping[str, Mapping[str, int]] | None,
    measured: Sequence[Measurement],
) -> tuple[str, ...]:
    """Return sentences that a file's numbers at a place must be read with; none where there is nothing to say."""
    return ()
