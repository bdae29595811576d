"""What MLflow is told of a run: names that it takes, and numbers with their intervals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields

from foundation.files import JSON
from foundation.measurements import Measurement, Where
from foundation.printable import shortened

_LONGEST_NAME = 230
"""MLflow takes 250 characters; the ends of the interval's names need a few."""
_LONGEST_PARAMETER = 6000
_ELSEWHERE = re.compile(r"[^A-Za-z0-9_.\- ]")
"""What a name may not hold, and the slash: in a store of files "auroc" cannot be a file and a folder at once."""
_USUAL = Where("cpu", "test")


def metrics_of(measurements: Iterable[Measurement]) -> dict[str, float]:
    """Return the measured values of one variant by name, with the ends of their intervals and their n.

    The name is the metric's, with its class behind a dot, then whatever tells it from others and is not the usual:
    `auroc.polyps`, `latency_p50_ms.threads-2`, and beside it `….ci95_low`, `….ci95_high` and `….n`.
    """
    found: dict[str, float] = {}
    for one in measurements:
        if one.value is None:
            continue
        name = _free(_name_of(one), found)
        found[name] = float(one.value)
        if one.ci95 is not None:
            found[f"{name}.ci95_low"], found[f"{name}.ci95_high"] = map(float, one.ci95)
        if one.n is not None:
            found[f"{name}.n"] = float(one.n)
    return found


def parameters_of(configuration: Mapping[str, JSON]) -> dict[str, str]:
    """Return a configuration as one parameter per leaf, named by the path to it: `data.image_size`."""
    found: dict[str, str] = {}
    for name, value in _leaves("", configuration):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        found[_free(_fitting(name), found)] = shortened(text, _LONGEST_PARAMETER)
    return found


def _leaves(name: str, value: JSON) -> Iterable[tuple[str, JSON]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for number, inner in enumerate(value):
            yield from _leaves(f"{name}.{number}", inner)
    else:
        yield name, value


def _name_of(one: Measurement) -> str:
    parts = [one.metric.replace("/", ".", 1)]
    for field in fields(Where):
        found = getattr(one.where, field.name)
        if found is not None and found != getattr(_USUAL, field.name):
            parts.append(f"{field.name}-{found}")
    return _fitting(".".join(parts))


def _fitting(name: str) -> str:
    return shortened(_ELSEWHERE.sub("_", name), _LONGEST_NAME).replace("[…]", "--") or "_"


def _free(name: str, taken: Mapping[str, object]) -> str:
    """Return a name that is not taken: two names may differ in characters alone that MLflow does not take."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
