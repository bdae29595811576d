"""Gradient maps of a shipped file, from its saliency twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.validate.sessions import open_session, preprocessing_of


def gradient_maps_of_file(
    twin: Path, images: NDArray[np.uint8], targets: NDArray[np.int64], batch_size: int = 16
) -> NDArray[np.float32]:
    """Return the magnitude of the target logit's gradient with respect to the image, averaged over channels.

    Source: Simonyan et al., arXiv 1312.6034.

    Args:
        twin: from `stages.saliency_twin`, with the metadata of the file it belongs to.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.
        batch_size: images per query.

    Returns:
        float32 [n, height, width], 0 or more; per gray value of a uint8 input.

    Raises:
        UsageError: the file is no ONNX model, or carries no preprocessing.
    """
    session = open_session(twin, "cpu", 1)
    preprocessing = preprocessing_of(session)
    image = next(value.name for value in session.get_inputs() if value.name != "target")
    maps = []
    for start in range(0, len(images), batch_size):
        chosen = slice(start, start + batch_size)
        (gradient,) = session.run(
            ["saliency"], {image: preprocessing.to_input(images[chosen]), "target": targets[chosen]}
        )
        maps.append(np.abs(gradient).mean(axis=1))
    return np.concatenate(maps).astype(np.float32)
