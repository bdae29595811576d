"""Which nodes of a file ran on which provider, what each kind cost, and what that says: `validate/placement.json`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.files import write_json
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter


# Operators as they run, after the fusions, by what they are there for.
REQUANTIZING = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
LAYOUT = frozenset(("Transpose", "ReorderInput", "ReorderOutput"))
FLOAT_LAYERS = frozenset(("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"))
INTEGER_LAYERS = frozenset((
    "QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "MatMulNBits",
))  # fmt: skip


@dataclass(frozen=True)
class NodesOfAKind:
    """The nodes of one operator that ran on one provider.

    Attributes:
        provider: ONNX Runtime's name of it, "CPUExecutionProvider".
        operator: as it ran, after ONNX Runtime's fusions: "QLinearConv".
        nodes: how many there are.
        share: of the time of all nodes, 0 to 1.
    """

    provider: str
    operator: str
    nodes: int
    share: float

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Placement:
    """Where a file's nodes ran.

    Attributes:
        variant: its name.
        provider: the one that was asked for, a key of `PROVIDERS`.
        kinds: what ran, the costliest first; empty where the file could not be opened.
        queries: how many the shares are of.
        notes: what costs time that it need not, and what to change, a sentence each.
        reason: why nothing is known; None where something is.
    """

    variant: str
    provider: str
    kinds: tuple[NodesOfAKind, ...]
    queries: int
    notes: tuple[str, ...]
    reason: str | None = None

    __pydantic_config__ = CLOSED

    def share_of(self, operators: frozenset[str]) -> float:
        """Return the share of the time that some operators take together."""
        return sum(kind.share for kind in self.kinds if kind.operator in operators)


def write_placements(path: Path, placements: Iterable[Placement]) -> None:
    """Write where the files of a run ran, atomically."""
    write_json(path, _adapter().dump_python(tuple(placements), mode="json"))


def read_placements(path: Path) -> tuple[Placement, ...]:
    """Return what `write_placements` wrote.

    Raises:
        UsageError: the file is missing or holds something else.
    """
    return read_typed(path, _adapter(), "where the files ran", "Delete it and run `edgeproof validate` again.")


@cache
def _adapter() -> TypeAdapter[tuple[Placement, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[Placement, ...])
