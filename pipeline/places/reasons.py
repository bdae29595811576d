"""Why a file answers otherwise, or takes longer, at a place: sentences to read its numbers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foundation.measurements import Measurement
from foundation.processor import INTEGER_TYPES, CpuTarget

if TYPE_CHECKING:
    from stages.validate.places.protocol import Question

_SAME_TO_DB = 60.0
"""From here on two files differ by no more than float arithmetic in another order does."""
_LOOKED_AT = 2
_NAMED_LAYERS = 3
_OWN = ("CPUExecutionProvider",)


def why_otherwise(
    place: str,
    question: Question,
    placement: Mapping[str, Mapping[str, int]] | None,
    measured: Sequence[Measurement],
    fp32s: Sequence[Measurement],
) -> tuple[str, ...]:
    """Return what a file's numbers at a place must be read with; nothing where there is nothing to say.

    Args:
        place: its name.
        question: what the file was asked.
        placement: provider → operator → nodes there; None where its runtime does not tell.
        measured: the file's numbers there.
        fp32s: the float file's numbers there.
    """
    told = []
    sqnr = _value(measured, "place_logits_sqnr_db")
    if place == "x86-avx2" and sqnr is not None and sqnr < _SAME_TO_DB:
        told += _saturates(question)
    told += _fallbacks(placement)
    time, fp32s_time = _value(measured, "latency_p50_ms"), _value(fp32s, "latency_p50_ms")
    if time is not None and fp32s_time is not None and _is_slower(measured, time, fp32s_time):
        told.append(f"slower there than fp32: {time:.3g} ms to {fp32s_time:.3g}{_unsuited(place, question)}")
    return tuple(told)


def _saturates(question: Question) -> list[str]:
    """Return which layers saturate where products are added in 16 bits, by arithmetic on the file's own integers."""
    from onnx_files.reading import read_model
    from stages.quantize.saturation import saturating_layers

    few = {name: values[:_LOOKED_AT] for name, values in question.inputs.items()}
    found = saturating_layers(read_model(question.path), [few])
    if not found:
        return []
    worst = sorted(found, key=lambda one: -one.changed_outputs)
    named = ", ".join(f"{one.layer} ({one.changed_outputs:.1%} of its outputs)" for one in worst[:_NAMED_LAYERS])
    more = f" and {len(found) - _NAMED_LAYERS} more" if len(found) > _NAMED_LAYERS else ""
    return [
        f"saturates: this processor adds products of uint8 and int8 in 16 bits, which overflow in {named}{more}. "
        "Compile it with target: x86-avx2."
    ]


def _fallbacks(placement: Mapping[str, Mapping[str, int]] | None) -> list[str]:
    if placement is None or set(placement) <= set(_OWN):
        return []
    left = {operator: count for name in _OWN for operator, count in placement.get(name, {}).items()}
    if not left:
        return []
    total = sum(count for of_provider in placement.values() for count in of_provider.values())
    named = ", ".join(f"{operator} × {count}" for operator, count in sorted(left.items()))
    return [f"{sum(left.values())} of {total} nodes fell back to the processor's own provider: {named}."]


def _unsuited(place: str, question: Question) -> str:
    """Return what the file's activations are where the place's own target takes another kind."""
    if place not in INTEGER_TYPES:
        return "."
    target: CpuTarget = place  # type: ignore[assignment]
    wanted, found = INTEGER_TYPES[target].activation, _activation_type(question)
    if found is None or found == wanted:
        return "."
    return f"; its activations are {found}, and target: {place} makes them {wanted}. Try that, and ask again."


def _activation_type(question: Question) -> str | None:
    """Return the type of a QDQ or QOperator file's first quantized activation; None of a float file."""
    from onnx_files.graph import GraphIndex
    from onnx_files.reading import read_model

    graph = read_model(question.path).graph
    index = GraphIndex.of(graph)
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2:
            zero = index.constant(node.input[2])
            if zero is not None:
                return str(zero.dtype)
    return None


def _is_slower(measured: Sequence[Measurement], time: float, fp32s_time: float) -> bool:
    """Return whether the interval of the speed-up says so; of a place that gives none, whether the medians do."""
    interval = next((row.ci95 for row in measured if row.metric == "latency_speedup"), None)
    return time > fp32s_time if interval is None else interval[1] < 1


def _value(rows: Sequence[Measurement], metric: str) -> float | None:
    return next((row.value for row in rows if row.metric == metric), None)
