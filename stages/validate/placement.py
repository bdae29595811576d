"""Where a file's nodes run on a provider, what each kind of them costs, and why integers are not faster.

ONNX Runtime's own profile is read: it names every node as it runs, after the fusions, with its provider and its time.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import StageError, UsageError
from foundation.placement import (
    FLOAT_LAYERS,
    INTEGER_LAYERS,
    LAYOUT,
    REQUANTIZING,
    NodesOfAKind,
    Placement,
)
from foundation.processor import INTEGER_TYPES, CpuTarget
from onnx_files.sessions import PROVIDERS, open_session, session_preprocessing

QUERIES = 20
WARM_UPS = 3
NOTABLE_SHARE = 0.1
"""Of the time, from which on a kind of nodes is worth a sentence."""

_INTEGERS_ONE_BY_ONE = frozenset(("ConvInteger",))


def measure_placement(
    variant: str, path: Path, provider: str, images: NDArray[np.uint8], target: CpuTarget | None
) -> Placement:
    """Return where a file's nodes run, and what their kinds cost.

    Args:
        variant: its name.
        path: the file.
        provider: a key of `PROVIDERS`.
        images: uint8 [n, channels, height, width]; the first is asked again and again.
        target: what suits the processor; None where nobody knows.
    """
    try:
        kinds, unsigned = _profile(path, provider, images[:1])
    except (StageError, UsageError) as error:
        return Placement(variant, provider, (), 0, (), str(error))
    return Placement(variant, provider, kinds, QUERIES, notes_on(provider, kinds, unsigned, target))


def notes_on(
    provider: str, kinds: Sequence[NodesOfAKind], unsigned: bool, target: CpuTarget | None
) -> tuple[str, ...]:
    """Return what costs time that it need not, and what to change, a sentence each.

    Args:
        provider: the one that was asked for.
        kinds: what ran.
        unsigned: whether integer layers take unsigned activations.
        target: what suits the processor; None where nobody knows.
    """
    wanted = PROVIDERS[provider].execution_provider
    notes = []
    elsewhere = [kind for kind in kinds if kind.provider != wanted]
    if elsewhere:
        notes.append(
            f"{_count(elsewhere)} ran on {_providers(elsewhere)} in place of {wanted} and took {_share(elsewhere)} "
            f"of the nodes' time: {_named(elsewhere)}. Keep these operators out of the network, or leave {provider} "
            "out."
        )
    integers = [kind for kind in kinds if kind.operator in INTEGER_LAYERS]
    if not integers and not any(kind.operator in REQUANTIZING for kind in kinds):
        return tuple(notes)
    for operators, what, mend in (
        (FLOAT_LAYERS, "still compute in float", "quantize them too, or see why they were kept (`float_layers`)"),
        (
            REQUANTIZING,
            "go between float and integers",
            "operators between them have no integer form here; keep neighbours of layers to Clip, Relu, Add and "
            "averages",
        ),
        (
            LAYOUT,
            "put tensors into another order",
            "integer convolutions want channels last; operators that want them first stand between",
        ),
        (_INTEGERS_ONE_BY_ONE, "are slower than float", "use method: static, or weight_only for size alone"),
    ):
        of_kind = [kind for kind in kinds if kind.operator in operators]
        if sum(kind.share for kind in of_kind) >= NOTABLE_SHARE:
            notes.append(
                f"{_count(of_kind)} {what} and took {_share(of_kind)} of the time: {_named(of_kind)}; {mend}."
            )
    best = INTEGER_TYPES[target].activation if target is not None else None
    if integers and not unsigned and best == "uint8":
        notes.append(
            f"its layers take signed activations, for which {target} has fewer kernels; use target: {target}."
        )
    if unsigned and best == "int8":
        notes.append(
            f"its layers take unsigned activations, and {target} multiplies signed ones faster; use target: {target}."
        )
    return tuple(notes)


def _profile(path: Path, provider: str, image: NDArray[np.uint8]) -> tuple[tuple[NodesOfAKind, ...], bool]:
    """Return what ran, the costliest first, and whether an integer layer took unsigned activations.

    Raises:
        UsageError: the file cannot be read, or the image doesn't fit.
        StageError: the provider is missing, or refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="edgeproof-placement-") as folder:
        session = open_session(path, provider, 1, profile_prefix=Path(folder) / "profile")
        entry = session.get_inputs()[0]
        batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1
        ready = session_preprocessing(session).to_input(np.repeat(image, batch, axis=0))
        for _ in range(WARM_UPS + QUERIES):
            session.run(None, {entry.name: ready})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return kinds_of(events)


def kinds_of(events: Iterable[Mapping[str, Any]]) -> tuple[tuple[NodesOfAKind, ...], bool]:
    """Return what a profile's events say: what ran, and whether an integer layer took unsigned activations."""
    durations: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    unsigned = False
    for event in events:
        told = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in told:
            continue
        name = str(event["name"]).removesuffix("_kernel_time")
        durations[told["provider"], told["op_name"], name].append(event["dur"])
        types = [next(iter(one)) for one in told.get("input_type_shape", ()) if one]
        unsigned |= told["op_name"] in INTEGER_LAYERS and "uint8" in types[:1]
    # Single queries are disturbed by whatever else runs; the median of each node is not.
    of_node = {key: float(np.median(several[WARM_UPS:] or several)) for key, several in durations.items()}
    total = sum(of_node.values()) or 1.0
    times: Counter[tuple[str, str]] = Counter()
    nodes: Counter[tuple[str, str]] = Counter()
    for (provider, operator, _), duration in of_node.items():
        times[provider, operator] += duration  # type: ignore[assignment]
        nodes[provider, operator] += 1
    kinds = [NodesOfAKind(*key, nodes[key], round(times[key] / total, 4)) for key in nodes]
    return tuple(sorted(kinds, key=lambda kind: (-kind.share, kind.provider, kind.operator))), unsigned


def _count(kinds: Sequence[NodesOfAKind]) -> str:
    nodes = sum(kind.nodes for kind in kinds)
    return f"{nodes} node{'' if nodes == 1 else 's'}"


def _share(kinds: Sequence[NodesOfAKind]) -> str:
    return f"{sum(kind.share for kind in kinds):.0%}"


def _named(kinds: Sequence[NodesOfAKind]) -> str:
    return ", ".join(f"{kind.operator} × {kind.nodes}" for kind in kinds)


def _providers(kinds: Sequence[NodesOfAKind]) -> str:
    return ", ".join(sorted({kind.provider for kind in kinds}))
