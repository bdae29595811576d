"""How far a map moves under noise that no one sees, and whether it adds up to what it explains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Floats = NDArray[np.float64]


def noisy_copies(images: Images, samples: int, radius: int, seed: int) -> Iterator[Images]:
    """Yield copies of images whose pixels moved by at most a radius, uniformly; the same for every file.

    Args:
        images: uint8 [n, channels, height, width].
        samples: copies of each image.
        radius: in whole gray values, since a file may take no others; 5 is the 0.02 of the range that captum takes.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        noise = rng.integers(-radius, radius + 1, images.shape, dtype=np.int16)
        yield np.clip(images + noise, 0, 255).astype(np.uint8)


def max_sensitivity(maps: Maps, noisy: Iterable[Maps]) -> Floats:
    """Return the largest ‖Φ(x + δ) − Φ(x)‖₂ / ‖Φ(x)‖₂ over noisy copies of the image, float64 [m]; low is good.

    Yeh et al. 2019 (NeurIPS, arXiv 1901.09392), definition 2, over the map's own norm, so that a file whose logits
    are larger is not called less stable. NaN where the map is 0 everywhere.

    Args:
        maps: Φ(x), [m, height, width].
        noisy: Φ(x + δ) of each copy, of the same shape.
    """
    clean = maps.astype(np.float64)
    farthest = np.zeros(len(maps))
    for of_copy in noisy:
        farthest = np.maximum(farthest, np.sqrt(np.square(of_copy - clean).sum(axis=(1, 2))))
    norm = np.sqrt(np.square(clean).sum(axis=(1, 2)))
    return cast("Floats", np.where(norm > 0, farthest / np.where(norm > 0, norm, 1.0), np.nan))


def completeness_error(maps: Maps, gains: Floats) -> Floats:
    """Return |Σ map − (logit(x) − logit(x₀))|, float64 [m], in logits; 0 is what integrated gradients promise.

    Sundararajan et al. 2017 (arXiv 1703.01365), proposition 1; captum calls it the convergence delta. What is left is
    the error of the midpoint rule, and in a quantized file what its straight-through gradients miss.

    Args:
        maps: [m, height, width].
        gains: float64 [m], logit(x) − logit(x₀).
    """
    return cast("Floats", np.abs(maps.sum(axis=(1, 2), dtype=np.float64) - gains))
