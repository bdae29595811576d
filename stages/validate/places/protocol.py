"""What goes to a place and comes back: one folder with files, questions and answers, in JSON and raw numbers.

`job.json`: `format_version` 1; `threads`; `timed`, whether times are wanted; `files`: of each the `name`, the `model`
(a file), `inputs` (each `name`, `file` of raw little-endian numbers, `type`, `shape` [n, …]), the `outputs` that are
wanted and the `batch`. A place's own entries stand beside them (`plug_in`, `session`).

`answer.json`: `format_version` 1; `versions`, name → version; `machine`; `features` of the processor or null; and of
each of the `files` by name either `error`, one line, or `outputs` (each `name`, `file`, `type`, `shape`), `placement`
(provider → operator → count) or null, and `times_ms`, one for each query, or null. It is written anew after each.

What answers there is not trusted: sizes, types and names are checked before a number is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.errors import StageError
from foundation.files import JSON, write_bytes, write_json
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT_VERSION: Literal[1] = 1
_TYPES = ("float32", "float16", "int64", "int32", "uint8", "int8")

Text = Annotated[str, Field(max_length=1000)]
Array = NDArray[Any]


@dataclass(frozen=True)
class Question:
    """One file and what it is asked.

    Attributes:
        name: of the question: a variant's, or "VARIANT.saliency" of its twin.
        path: the ONNX file.
        inputs: name → array [n, …], uint8, float32 or int64.
        outputs: the outputs that are wanted.
        batch: inputs per query.
    """

    name: str
    path: Path
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    batch: int

    @property
    def n(self) -> int:
        """How many inputs it is asked."""
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class OutputFile:
    """One output as it lies in the folder."""

    name: Text
    file: Text
    type: Literal["float32", "float16", "int64", "int32", "uint8", "int8"]
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=1 << 31)], ...], Field(min_length=1, max_length=8)]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class FileAnswer:
    """What a place says of one file."""

    error: Text | None = None
    outputs: tuple[OutputFile, ...] = ()
    placement: Mapping[Text, Mapping[Text, int]] | None = None
    times_ms: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class PlaceAnswer:
    """What a place says.

    Attributes:
        format_version: of the file.
        versions: what ran there.
        machine: the architecture, as the place itself names it.
        features: what its processor can, of what matters to int8; None where it cannot be asked.
        files: by question.
    """

    format_version: Literal[1]
    versions: Mapping[Text, Text]
    machine: Text
    features: tuple[Text, ...] | None
    files: Mapping[Text, FileAnswer]

    __pydantic_config__ = CLOSED


def write_job(
    folder: Path, questions: Sequence[Question], threads: int, timed: bool, own: Mapping[str, JSON]
) -> None:
    """Write a job: the files, their inputs, and `job.json` last.

    Args:
        folder: an empty one.
        questions: each with another name.
        threads: of each session.
        timed: whether the place tells the time of each query.
        own: the place's own entries.
    """
    files: list[JSON] = []
    for index, question in enumerate(questions):
        model = f"{index}.onnx"
        write_bytes(folder / model, question.path.read_bytes())
        inputs: list[JSON] = []
        for number, (name, values) in enumerate(question.inputs.items()):
            file = f"{index}.{number}.in"
            write_bytes(folder / file, np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
            inputs.append({"name": name, "file": file, "type": values.dtype.name, "shape": list(values.shape)})
        files.append(
            {
                "name": question.name,
                "model": model,
                "inputs": inputs,
                "outputs": list(question.outputs),
                "batch": question.batch,
            }
        )
    head: dict[str, JSON] = {"format_version": FORMAT_VERSION, "threads": threads, "timed": timed}
    write_json(folder / "job.json", {**head, **own, "files": files})


def read_answer(folder: Path) -> PlaceAnswer:
    """Return what a place wrote.

    Raises:
        StageError: it wrote nothing, or something else.
    """
    try:
        return read_typed(folder / "answer.json", _adapter(), "a place's answers", "Ask it again.")
    except Exception as error:
        raise StageError(f"expected the place's answers, found none that can be read ({error})") from error


def output_of(folder: Path, question: Question, answer: FileAnswer, name: str) -> Array:
    """Return one output of a file, as the place gave it.

    Raises:
        StageError: it is missing, of another size than it says, or not of as many inputs as were asked.
    """
    found = next((one for one in answer.outputs if one.name == name), None)
    if found is None:
        raise StageError(f"{question.name}: expected the output {name!r}, found none among the place's answers")
    path = folder / found.file
    inside = path.parent == folder and path.is_file() and not path.is_symlink()
    expected = math.prod(found.shape) * np.dtype(found.type).itemsize
    if not inside or path.stat().st_size != expected or found.shape[0] != question.n:
        size = path.stat().st_size if inside else 0
        raise StageError(
            f"{question.name}: expected {question.n} answers of shape {list(found.shape[1:])} in {expected} bytes, "
            f"found the shape {list(found.shape)} in {size} bytes"
        )
    return np.fromfile(path, np.dtype(found.type).newbyteorder("<")).reshape(found.shape)


@cache
def _adapter() -> TypeAdapter[PlaceAnswer]:
    from pydantic import TypeAdapter

    return TypeAdapter(PlaceAnswer)
