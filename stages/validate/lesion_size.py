"""Small, medium and large lesions: a map may find the large ones and miss what matters most.

The bounds are the terciles of the explained images' own masks. COCO's fixed areas (32² and 96² pixels) are made for
photographs of 640 pixels, and fixed shares of the image would leave one of the three empty on most medical data
(Kvasir-SEG counts 48 small, 252 medium and 700 large polyps by 64² and 160² pixels). Every variant of a run explains
the same images, so terciles compare variants; between data sets the bounds stand beside each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]

LEAST_MASKS = 10
"""Masks of a size from which on it is measured; fewer would give an interval that spans nearly everything."""


@dataclass(frozen=True)
class LesionSize:
    """The masks of one size.

    Attributes:
        name: the subgroup's name in measurements and gates, "small lesions".
        mask_share: the bounds as text, in per cent of the image's area.
        members: bool [m], which of the masks are of this size.
        reason: why the size is not measured; "" where it is.
    """

    name: str
    mask_share: str
    members: Masks
    reason: str


def lesion_sizes(masks: Masks) -> Sequence[LesionSize]:
    """Divide masks into three sizes by the terciles of their share of the image; masks of equal area stay together.

    Args:
        masks: bool [m, height, width], none of them empty; m ≥ 1.

    Returns:
        small, medium and large, in this order.
    """
    return sizes_by_share(masks.mean(axis=(1, 2)))


def sizes_by_share(shares: NDArray[np.float64]) -> Sequence[LesionSize]:
    """Return what `lesion_sizes` does, from the share of the image that each mask takes, [m], above 0."""
    # A third of the masks each; interpolating between two would put a bound where no mask is.
    low, high = np.quantile(shares, [1 / 3, 2 / 3], method="inverted_cdf")
    parts = (
        ("small lesions", f"at most {100 * low:.2f} %", shares <= low),
        ("medium lesions", f"above {100 * low:.2f} %, at most {100 * high:.2f} %", (shares > low) & (shares <= high)),
        ("large lesions", f"above {100 * high:.2f} %", shares > high),
    )
    return tuple(
        LesionSize(name, bounds, cast("Masks", members), _reason(members)) for name, bounds, members in parts
    )


def _reason(members: Masks) -> str:
    found = int(members.sum())
    if found >= LEAST_MASKS:
        return ""
    return f"only {found} of the explained images have a mask of this size; a figure by size needs {LEAST_MASKS}"
