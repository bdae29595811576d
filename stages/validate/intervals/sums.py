"""Statistics that are functions of weighted sums over images: the form in which a bootstrap is cheap.

A resample says how often each unit is drawn. What an image adds to the sums does not change with that, so it is
computed once and added up within its unit; a resample then costs one product and never touches an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Sums:
    """A statistic as a function of weighted sums.

    Attributes:
        terms: what each image, or each unit, adds to each sum: float64 [k, n]; where most are 0, sparse whole numbers
            of float32, whose sums are exact up to 16 million images.
        statistic: from sums [k, b] to values [b] or [m, b], NaN where they leave one undefined.
    """

    terms: Floats | csr_array
    statistic: Callable[[Floats], Floats]

    def __call__(self, weights: NDArray[np.floating]) -> Floats:
        """Return the statistic of each column of weights [n, b]: how often each image, or unit, counts."""
        return self.statistic(np.asarray(self.terms @ weights))

    def by_unit(self, units: Indices) -> Sums:
        """Return the same with the terms of each unit added up.

        Args:
            units: int64 [n], whose numbers are 0 to the number of units − 1.
        """
        from scipy.sparse import csr_array

        n = len(units)
        if np.array_equal(units, np.arange(n)):
            return self
        belongs = csr_array((np.ones(n, self.terms.dtype), (np.arange(n), units)), shape=(n, int(units.max()) + 1))
        summed: Any = self.terms @ belongs
        return replace(self, terms=summed)
