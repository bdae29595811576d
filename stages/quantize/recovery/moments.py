"""What a layer reads and what it ought to answer, as sums: all that a least-squares problem of it needs.

Sums don't grow with the images, and are taken over a sample of the positions of large maps, whose neighbours say
nearly the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_files.graph import attributes_of
from onnx_files.probes import Batches, runner

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor

_MOST_POSITIONS = 512
"""Of one image's map, of one layer."""
_MOST_BYTES = 256_000_000
_MOST_LAYERS = 16
"""Whose answers are kept at a time."""


@dataclass(frozen=True)
class Moments:
    """Means over images and positions of what a layer reads, x of K values for each of G groups, and its n targets y.

    Attributes:
        x: mean of x, float64 [G, K].
        y: mean of y, float64 [G, n].
        xx: mean of the products less the product of the means, float64 [G, K, K].
        yx: likewise, float64 [G, n, K].
        yy: mean of the squares of y less the squares of the means, summed over its channels.
        samples: how many positions of images.
    """

    x: Tensor
    y: Tensor
    xx: Tensor
    yx: Tensor
    yy: float
    samples: int

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both samples together."""
        share = self.samples / (self.samples + other.samples)
        x, y = other.x - self.x, other.y - self.y
        between = share * (1 - share)

        def mean(one: Tensor, another: Tensor) -> Tensor:
            return share * one + (1 - share) * another

        return Moments(
            mean(self.x, other.x),
            mean(self.y, other.y),
            mean(self.xx, other.xx) + between * x[:, :, None] * x[:, None, :],
            mean(self.yx, other.yx) + between * y[:, :, None] * x[:, None, :],
            share * self.yy + (1 - share) * other.yy + between * float(y.square().sum()),
            self.samples + other.samples,
        )

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Return the mean squared error of a layer, summed over its channels.

        Args:
            weight: float64 [G, n, K].
            bias: float64 [G, n].
        """
        about_means = self.yy + float(((weight @ self.xx - 2 * self.yx) * weight).sum())
        shift = (weight @ self.x[:, :, None])[:, :, 0] + bias - self.y
        return max(0.0, about_means) + float(shift.square().sum())

    def not_centred(self) -> Moments:
        """Return the same about zero, of a layer without a bias that could take the means."""
        import torch

        return Moments(
            torch.zeros_like(self.x),
            torch.zeros_like(self.y),
            self.xx + self.x[:, :, None] * self.x[:, None, :],
            self.yx + self.y[:, :, None] * self.x[:, None, :],
            self.yy + float(self.y.square().sum()),
            self.samples,
        )


def wanted_answers(
    proto: ModelProto, layers: Sequence[NodeProto], batches: Batches, seed: int
) -> tuple[int, list[list[NDArray[np.float32]]]]:
    """Return what the first of some layers answer on the images, as many of them as memory allows, at least one.

    Args:
        proto: the float graph.
        layers: of it.
        batches: the images.
        seed: of the choice of positions.

    Returns:
        How many layers, and for each of them the sampled answers of every batch, float32 [samples, channels].
    """
    layers = layers[:_MOST_LAYERS]
    run = runner(proto, [node.output[0] for node in layers])
    kept: list[list[NDArray[np.float32]]] = [[] for _ in layers]
    count = len(layers)
    for number, feeds in enumerate(batches()):
        found = run(feeds)
        for answers, node in zip(kept[:count], layers, strict=False):
            answer = _channels_last(node, np.asarray(found[node.output[0]], np.float32))
            answers.append(answer[:, _positions(answer.shape[1], seed, number)].reshape(-1, answer.shape[2]))
        while count > 1 and sum(part.nbytes for parts in kept[:count] for part in parts) > _MOST_BYTES:
            count -= 1
            kept[count] = []
    return count, kept[:count]


def moments(
    given: Iterable[NDArray[np.generic]],
    node: NodeProto,
    shape: Sequence[int],
    wanted: Sequence[NDArray[np.float32]],
    seed: int,
) -> tuple[Moments, Moments]:
    """Return the moments of what a layer reads, against the answers that it ought to give.

    Args:
        given: what it reads, batch by batch, such as in a graph that is quantized so far.
        node: the layer.
        shape: of its weights.
        wanted: from `wanted_answers`, of the same images and seed.
        seed: of the choice of positions.

    Returns:
        Of one half of the images and of the other. A single image stands in both.
    """
    import torch

    groups = attributes_of(node).get("group", 1)
    halves: list[Moments | None] = [None, None]
    for number, (values, answers) in enumerate(zip(given, wanted, strict=True)):
        read = torch.from_numpy(np.array(values, dtype=np.float32))
        x = _patches(node, read, shape[2:], seed, number)
        y = torch.from_numpy(answers).reshape(len(answers), groups, -1).permute(1, 0, 2)
        middle = len(answers) // len(read) * (len(read) // 2 if len(read) > 1 else number % 2)
        for half, part in enumerate((slice(0, middle), slice(middle, None))):
            if x[:, part].shape[1]:
                found, before = _moments_of(x[:, part], y[:, part]), halves[half]
                halves[half] = found if before is None else before + found
    first, second = halves
    assert second is not None
    return first or second, second


def _moments_of(x: Tensor, y: Tensor) -> Moments:
    samples = x.shape[1]
    x_mean, y_mean = x.double().mean(1), y.double().mean(1)
    x, y = x - x_mean[:, None].float(), y - y_mean[:, None].float()
    xx, yx = (x.mT @ x).double() / samples, (y.mT @ x).double() / samples
    return Moments(x_mean, y_mean, xx, yx, float(y.double().square().sum()) / samples, samples)


def _positions(count: int, seed: int, batch: int) -> NDArray[np.int64]:
    """Return which positions of a map are looked at in a batch."""
    if count <= _MOST_POSITIONS:
        return np.arange(count)
    return np.sort(np.random.default_rng((seed, count, batch)).permutation(count)[:_MOST_POSITIONS])


def _channels_last(node: NodeProto, answer: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a layer's answer as [images, positions, channels]."""
    if node.op_type == "Conv":
        return np.moveaxis(answer.reshape(*answer.shape[:2], -1), 1, 2)
    return answer.reshape(len(answer), -1, answer.shape[-1])


def _patches(node: NodeProto, read: Tensor, kernel: Sequence[int], seed: int, batch: int) -> Tensor:
    """Return what the layer's weights multiply, [groups, samples, weights of an output]."""
    import torch
    from torch.nn import functional

    if node.op_type != "Conv":
        rows = read.reshape(len(read), -1, read.shape[-1])
        return rows[:, torch.from_numpy(_positions(rows.shape[1], seed, batch))].reshape(1, -1, rows.shape[2])
    given = attributes_of(node)
    (top, left, bottom, right), (high, wide) = given.get("pads", (0, 0, 0, 0)), kernel
    (down, across), (step_down, step_across) = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    padded = functional.pad(read, (left, right, top, bottom))
    views = padded.unfold(2, (high - 1) * step_down + 1, down)[..., ::step_down]
    views = views.unfold(3, (wide - 1) * step_across + 1, across)[..., ::step_across]
    rows_of, columns_of = np.divmod(_positions(views.shape[2] * views.shape[3], seed, batch), views.shape[3])
    chosen = views[:, :, torch.from_numpy(rows_of), torch.from_numpy(columns_of)]
    groups, (images, channels, count) = given.get("group", 1), chosen.shape[:3]
    split = chosen.reshape(images, groups, channels // groups, count, high * wide)
    return split.permute(1, 0, 3, 2, 4).reshape(groups, images * count, -1)
