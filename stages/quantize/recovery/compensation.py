"""Compensated rounding: each weight's rounding error is made up for by the weights that are not rounded yet.

GPTQ (Frantar et al., arXiv 2210.17323), which follows Optimal Brain Quantization (arXiv 2208.11580), against targets
of the float network. A layer of the network that is quantized so far reads x̂, while the float layer answers y. With
H = E[x̂x̂ᵀ] about the means and λ a share of its mean diagonal:

1. The weights that answer best, W* = W + (E[yx̂ᵀ] − W·H)·(H + λ₁I)⁻¹: they undo what the layers before have lost. λ₁
   is the one with which one half of the images serves the other best; where none does, W stays.
2. Column by column, the largest of H's diagonal first, w_j is rounded to its grid, and the error e = (w_j − ŵ_j)/U_jj
   moves the later columns by −e·U_j, where UᵀU = (H + λ₂I)⁻¹ and U is upper triangular.
3. The bias becomes E[y] − Ŵ·E[x̂], so that no channel's mean is shifted.

That is one pass over the images for each layer, and no gradient. As with learned rounding, what is chosen goes back
into the float graph, and each channel's greatest weights keep their integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.errors import UsageError
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import attributes_of
from onnx_files.probes import Batches, Feeds, Onward
from stages.quantize.recovery.moments import Moments, moments, wanted_answers
from stages.quantize.recovery.plain_layers import LayerGraphs, StoredWeight
from stages.quantize.recovery.rounding import defines_the_scale

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor

_COLUMNS_AT_A_TIME = 128
_PULLS = (0.03, 0.3, 3.0)
"""Tried towards the float weights, as a share of the mean square of what a layer reads."""
_LEAST_DIAGONAL = 1e-12  # where a layer reads nothing but zeros


class CompensatedRoundingSettings(Settings):
    """GPTQ: what rounding one weight costs a layer's answers, the others make up for."""

    images: int = Field(128, ge=1, description="calibration images to look at, the first of them")
    mirrored: bool = Field(
        True, description="where there are fewer, look at their mirror images as well (left and right exchanged)"
    )
    damping: float = Field(
        0.1, gt=0, description="pull of each weight towards its nearest integer, as a share of what the layer reads"
    )
    seed: int = Field(0, ge=0, description="seed of the positions that are looked at in large maps")


@dataclass(frozen=True)
class CompensatedRounding:
    """A float graph whose weights round to the chosen integers, and whose biases suit them.

    Attributes:
        model: the graph.
        integers: by the weight's name, in the type that the file stores.
        turned: how many of them are not the nearest.
        weights: how many there are.
        error_db: by how much the layers' mean squared errors fell, in dB, the mean over the layers.
    """

    model: ModelProto
    integers: dict[str, NDArray[np.generic]]
    turned: int
    weights: int
    error_db: float


def compensate(
    proto: ModelProto,
    quantized: ModelProto,
    batches: Batches,
    settings: CompensatedRoundingSettings,
    progress: Progress = no_progress,
    width_axis: int = 3,
) -> CompensatedRounding:
    """Choose each layer's integers and bias in order, on inputs that the layers before it have already changed.

    Args:
        proto: the float graph; left as it is.
        quantized: the same graph in QDQ form, its layers under the same names; left as it is.
        batches: calibration images.
        settings: how many images, and how far the weights may move.
        progress: called after each layer with the layers that are done and all.
        width_axis: axis of the images from left to right, as the model takes them.

    Raises:
        UsageError: no layer of the plain kind is stored as integers.
    """
    import onnx

    result, simulated = onnx.ModelProto(), onnx.ModelProto()
    result.CopyFrom(proto)
    simulated.CopyFrom(quantized)
    graphs = LayerGraphs.of(result, simulated)
    layers = [(node, stored) for node, stored in graphs.stored_layers(proto)]
    if not layers:
        raise UsageError(
            "recovery: expected a Conv, Gemm or MatMul with constant weights of its own that are stored as integers, "
            "found none. Leave recovery out."
        )
    few = _looked_at(batches, settings, width_axis)
    onward = Onward(simulated, few)
    integers: dict[str, NDArray[np.generic]] = {}
    gains: list[float] = []
    turned = done = 0
    while done < len(layers):
        count, wanted = wanted_answers(proto, [node for node, _ in layers[done:]], few, settings.seed)
        for (node, stored), answers in zip(layers[done : done + count], wanted, strict=True):
            given, weight = graphs.written.nodes[node.name].input[0], graphs.weight(node)
            found = moments(onward.values(given), node, weight.shape, answers, settings.seed)
            old = graphs.floats.constant(node.input[2]) if len(node.input) > 2 else None
            chosen, bias, gain = _choose(node, weight, old, stored, found, settings)
            graphs.replace(node, stored, chosen, bias)
            integers[node.input[1]] = chosen
            turned += int(np.count_nonzero(chosen != stored.integers))
            gains.append(gain)
            done += 1
            progress(done, len(layers))
    weights = sum(value.size for value in integers.values())
    return CompensatedRounding(graphs.without_unread(proto), integers, turned, weights, float(np.mean(gains)))


def _choose(
    node: NodeProto,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    stored: StoredWeight,
    halves: tuple[Moments, Moments],
    settings: CompensatedRoundingSettings,
) -> tuple[NDArray[np.generic], NDArray[np.float32] | None, float]:
    """Return a layer's integers, its new bias (None: the old one) and by how many dB its error fell."""
    import torch

    rows = _Rows(node, weight.shape)
    exact, scale, zero, nearest = (
        rows.of(np.broadcast_to(value, weight.shape))
        for value in (weight, stored.scale, stored.zero_point, stored.integers)
    )
    free_bias = node.op_type != "MatMul"
    halves = halves if free_bias else (halves[0].not_centred(), halves[1].not_centred())
    found = halves[0] if halves[0] is halves[1] else halves[0] + halves[1]
    old = (
        torch.zeros_like(found.y)
        if bias is None
        else torch.from_numpy(bias.astype(np.float64)).reshape(found.y.shape)
    )
    fixed = rows.of(defines_the_scale(weight, stored)) > 0
    chosen = _rounded(
        _refitted(exact, halves, found), _damped(found, settings.damping), scale, zero, nearest, fixed, stored.bounds
    )
    on_grid = scale * (chosen - zero)
    fitted = found.y - (on_grid @ found.x[:, :, None])[:, :, 0] if free_bias else old
    before, after = found.error(scale * (nearest - zero), old), found.error(on_grid, fitted)
    if not after < before:
        return stored.integers, None, 0.0
    gain = 10 * float(np.log10(before / after)) if after > 0 else 0.0
    integers = rows.back(chosen).astype(stored.integers.dtype)
    return integers, fitted.reshape(-1).numpy().astype(np.float32) if free_bias else None, gain


def _damped(found: Moments, damping: float) -> Tensor:
    import torch

    power = torch.diagonal(found.xx, dim1=1, dim2=2).mean(1).clamp_min(_LEAST_DIAGONAL)
    return found.xx + damping * power[:, None, None] * torch.eye(found.xx.shape[2], dtype=torch.float64)


def _refitted(weight: Tensor, halves: tuple[Moments, Moments], both: Moments) -> Tensor:
    """Return the weights that answer best, pulled towards the float ones as far as halves need it for one another."""
    import torch

    def moved(found: Moments, pull: float) -> Tensor:
        step: Tensor = torch.linalg.solve(_damped(found, pull), (found.yx - weight @ found.xx).mT).mT
        return weight + step

    def error(found: Moments, weight: Tensor) -> float:
        return found.yy + float(((weight @ found.xx - 2 * found.yx) * weight).sum())

    errors = {0.0: sum(error(half, weight) for half in halves)}
    for pull in _PULLS if halves[0] is not halves[1] else ():
        errors[pull] = sum(error(halves[1 - fit], moved(halves[fit], pull)) for fit in (0, 1))
    best = min(errors, key=errors.__getitem__)
    return moved(both, best) if best else weight


@dataclass(frozen=True)
class _Rows:
    """A layer's weights as [groups, outputs of one, weights of an output], and back."""

    node: NodeProto
    shape: tuple[int, ...]

    def of(self, values: NDArray[np.generic]) -> Tensor:
        import torch

        rows = values.T if self._transposed else values
        groups = attributes_of(self.node).get("group", 1)
        return torch.from_numpy(np.array(rows, dtype=np.float64)).reshape(groups, rows.shape[0] // groups, -1)

    def back(self, rows: Tensor) -> NDArray[np.float64]:
        if self._transposed:
            return np.ascontiguousarray(rows.reshape(self.shape[::-1]).numpy().T)
        return np.asarray(rows.reshape(self.shape).numpy())

    @property
    def _transposed(self) -> bool:
        return self.node.op_type != "Conv" and not attributes_of(self.node).get("transB", 0)


def _rounded(
    weight: Tensor, xx: Tensor, scale: Tensor, zero: Tensor, nearest: Tensor, fixed: Tensor, bounds: tuple[int, int]
) -> Tensor:
    """Return integers, column by column.

    Args:
        weight, scale, zero, nearest: float64 [G, n, K].
        xx: positive definite, float64 [G, K, K].
        fixed: bool [G, n, K], which weights take their nearest integer.
        bounds: the lowest and the highest integer.
    """
    import torch

    order = torch.argsort(torch.diagonal(xx, dim1=1, dim2=2).mean(0), descending=True, stable=True)
    weight, scale, zero, nearest, fixed = (part[:, :, order] for part in (weight, scale, zero, nearest, fixed))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(xx[:, order][:, :, order]))
    upper = torch.linalg.cholesky(inverse, upper=True)
    weight, chosen = weight.clone(), torch.empty_like(weight)
    columns = weight.shape[2]
    for start in range(0, columns, _COLUMNS_AT_A_TIME):
        end = min(columns, start + _COLUMNS_AT_A_TIME)
        errors = torch.empty_like(weight[:, :, start:end])
        for column in range(start, end):
            free = torch.round(weight[:, :, column] / scale[:, :, column] + zero[:, :, column]).clamp(*bounds)
            integer = torch.where(fixed[:, :, column], nearest[:, :, column], free)
            chosen[:, :, column] = integer
            lost = weight[:, :, column] - scale[:, :, column] * (integer - zero[:, :, column])
            error = lost / upper[:, column, column, None]
            weight[:, :, column:end] -= error[:, :, None] * upper[:, None, column, column:end]
            errors[:, :, column - start] = error
        weight[:, :, end:] -= errors @ upper[:, start:end, end:]
    result = torch.empty_like(chosen)
    result[:, :, order] = chosen
    return result


def _looked_at(batches: Batches, settings: CompensatedRoundingSettings, width_axis: int) -> Batches:
    """Return the first batches that hold so many images, and where there are fewer, batches of mirror images."""

    def looked_at() -> Iterator[Feeds]:
        count = 0
        for mirrored in (False, True) if settings.mirrored else (False,):
            for feeds in batches():
                if count >= settings.images:
                    return
                count += len(next(iter(feeds.values())))
                if mirrored and all(value.ndim > width_axis for value in feeds.values()):
                    yield {name: np.ascontiguousarray(np.flip(value, width_axis)) for name, value in feeds.items()}
                elif not mirrored:
                    yield feeds

    return looked_at
