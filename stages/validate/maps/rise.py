"""RISE: what an answer is worth on average while a pixel is shown. Any file will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import Task
from onnx_files.sessions import predict
from stages.validate.answers import probabilities
from stages.validate.maps.bilinear import bilinear

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


def rise_maps(
    session: InferenceSession,
    images: Images,
    targets: Indices,
    task: Task,
    masks: int,
    cells: int,
    kept_share: float,
    fill: Images,
    batch_size: int,
    seed: int,
) -> Maps:
    """Return the mean probability of a class over random masks, weighted by how far each mask shows the pixel.

    A mask is a grid of kept and hidden cells, drawn bilinearly over a bit more than the image and shifted at random;
    what it hides turns to the fill. Every image and every file gets the same masks. Where the paper divides by the
    expected number of masks that show a pixel (section 3.1), this divides by the number found: both tend to the same
    map, and an answer that no mask changes gives a flat map instead of the masks' own noise.
    Source: Petsiuk et al., BMVC 2018, arXiv 1806.07421.

    Args:
        session: of a model with one input.
        images: uint8 [n, channels, h, w].
        targets: int64 [n], the class to explain.
        task: the kind of task; it says what a probability is.
        masks: how many, at least 1; the paper takes 4,000 to 8,000.
        cells: of a mask along each side.
        kept_share: chance of a cell to be kept, within 0 and 1.
        fill: uint8 [channels], the colour of what is hidden.
        batch_size: masked images per query.
        seed: of the masks.

    Returns:
        float32 [n, h, w], 0 to 1.
    """
    total = np.zeros((len(images), *images.shape[2:]))
    shown = np.zeros(images.shape[2:])
    drawn = draw_masks(masks, cells, kept_share, seed, (images.shape[2], images.shape[3]))
    colour = fill.astype(np.float64)[:, None, None]
    for start in range(0, masks, batch_size):
        part = drawn.between(start, start + batch_size)
        shown += part.sum(axis=0)
        for index, (image, target) in enumerate(zip(images, targets, strict=True)):
            seen = colour + part[:, None] * (image - colour)
            logits = predict(session, np.rint(seen).astype(np.uint8), batch_size)
            total[index] += np.tensordot(probabilities(logits, task)[:, target], part, axes=1)
    return (total / np.maximum(shown, np.finfo(np.float64).tiny)).astype(np.float32)


@dataclass(frozen=True)
class RandomMasks:
    """Masks as what was drawn for them; the pixels are worked out where they are needed, for memory's sake.

    Attributes:
        kept: bool [masks, cells, cells].
        shift: int64 [masks, 2], rows and columns that the grid, drawn too large by one cell, is moved by.
        rows: float64 [shifts, h, cells], how much of each row of cells a row of pixels takes, for each shift.
        columns: float64 [shifts, w, cells], likewise.
    """

    kept: NDArray[np.bool_]
    shift: Indices
    rows: Floats
    columns: Floats

    def between(self, start: int, stop: int) -> Floats:
        """Return masks from `start` to before `stop`, or to the last: float64 [.., h, w], 0 hidden to 1 shown."""
        some = slice(start, stop)
        rows, columns = self.rows[self.shift[some, 0]], self.columns[self.shift[some, 1]]
        return rows @ self.kept[some].astype(np.float64) @ columns.transpose(0, 2, 1)


def draw_masks(masks: int, cells: int, kept_share: float, seed: int, size: tuple[int, int]) -> RandomMasks:
    """Draw the grids and shifts of RISE's masks (section 3.2 of the paper).

    Args:
        masks: how many.
        cells: along each side.
        kept_share: chance of a cell to be kept.
        seed: of the draws.
        size: height and width in pixels.
    """
    rng = np.random.default_rng(seed)
    kept = rng.random((masks, cells, cells)) < kept_share
    cell = [-(-side // cells) for side in size]
    shift = np.stack([rng.integers(0, pixels, masks) for pixels in cell], axis=1)
    rows, columns = (
        np.stack([bilinear(cells, (cells + 1) * pixels)[by : by + side] for by in range(pixels)])
        for side, pixels in zip(size, cell, strict=True)
    )
    return RandomMasks(kept, shift, rows, columns)
