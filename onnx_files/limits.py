"""How large a model from elsewhere may be, and what the child process that reads it may use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from foundation.child import Limits

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

LARGEST_FILE_BYTES = 1_500_000_000
"""With its weights. A protobuf ends at 2 GB, and what we write of a model can be larger than the model."""
MOST_NODES = 20_000
"""The largest classifiers that exporters write have some thousand. Rewriting a graph takes time with the square of
their number: 10 s at 4,000, minutes at 20,000."""
TIME_LIMIT_S = 120
_BYTES_PER_S = 1_000_000
"""Of a large file, on a busy machine: MViTv2-base (206 MB) took 110 s at a load of 8 on two cores."""
LEAST_ADDRESS_SPACE_BYTES = 2_000_000_000
"""Python, onnx and ONNX Runtime map 0.3 GB for themselves; the rest is for a small model's images and activations."""
_PER_PROCESSOR_BYTES = 16_000_000
"""Address space, not memory: the stack of the thread that numpy's OpenBLAS starts for each."""
_OF_PROGRAM_BYTES = 1_000_000_000
_TIMES_THE_FILE = 18
"""The file, the parsed model, its weights once more, what ONNX Runtime holds of it and what it writes, copies of them
for a moment, and what lies between layers where shapes are measured."""
_LEAST_GROWN_BYTES = 100_000_000
_TIMES_GROWN = 16
"""Weights of four bits that are computed once in float32 grow eightfold."""
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""An entry of external data as protobuf writes it, up to the length of the name; names of 127 bytes and less."""


class _HasNodes(Protocol):
    node: Iterable[NodeProto]


def limits_for(size_bytes: int) -> Limits:
    """Return what reading a model of a size may use: 2 GB for a small one, 18 times its size for a large one."""
    space = max(LEAST_ADDRESS_SPACE_BYTES, _OF_PROGRAM_BYTES + _TIMES_THE_FILE * size_bytes)
    return Limits(space + _PER_PROCESSOR_BYTES * (os.cpu_count() or 1), max(TIME_LIMIT_S, size_bytes // _BYTES_PER_S))


def size_with_weights(path: Path) -> int:
    """Return the size of a file and of those beside it that it may keep weights in; 0 where there is no file.

    Their names are looked for among the bytes, since nothing is parsed here. What only looks like a name counts if
    there is such a file: then the child may use more memory, and nothing else follows.
    """
    if not path.is_file():
        return 0
    size = path.stat().st_size
    if size > LARGEST_FILE_BYTES:  # refused as soon as it is opened
        return LARGEST_FILE_BYTES
    content = path.read_bytes()
    names = {content[found.end() : found.end() + found[1][0]] for found in _LOCATION.finditer(content)}
    return min(LARGEST_FILE_BYTES, size + sum(_size_of(path.parent, name) for name in names))


def largest_grown_bytes(size_bytes: int) -> int:
    """Return how large a model of a size may be once its constants are computed."""
    return min(LARGEST_FILE_BYTES, max(_LEAST_GROWN_BYTES, _TIMES_GROWN * size_bytes))


def number_of_nodes(model: ModelProto) -> int:
    """Return how many nodes a model has once its functions are written out, those of its branches and loops included.

    Functions that call functions that call functions can stand for more nodes than there is memory for; nothing is
    written out to count them.
    """
    functions = {(one.domain, one.name): one for one in model.functions}
    known: dict[tuple[str, str], int] = {}
    waiting = list(functions)
    entered: set[tuple[str, str]] = set()
    while waiting:
        name = waiting[-1]
        called = [key for key in _called(functions[name]) if key in functions and key not in known]
        if name in known or (name in entered and called):  # the latter calls itself, which the checker refuses
            known.setdefault(name, 1)
            waiting.pop()
        elif called:
            entered.add(name)
            waiting += called
        else:
            known[name] = sum(known.get(key, 1) for key in _called(functions[name]))
            waiting.pop()
    return sum(known.get(key, 1) for key in _called(model.graph))


def _called(body: _HasNodes | FunctionProto) -> list[tuple[str, str]]:
    """Return domain and operator of every node of a body, those of its branches and loops included."""
    called: list[tuple[str, str]] = []
    bodies = [body]
    while bodies:
        for node in bodies.pop().node:
            called.append((node.domain, node.op_type))
            for attribute in node.attribute:
                bodies += [*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())]
    return called


def _size_of(folder: Path, name: bytes) -> int:
    try:
        return (folder / name.decode()).stat().st_size
    except (OSError, ValueError):  # no file, or no name of one
        return 0
