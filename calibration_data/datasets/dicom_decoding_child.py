"""The process in which compressed frames are decoded, `python -m …`: requests on its input, pixels on its output.

A request is a line of JSON and the frame's bytes; the answer is a line of JSON and, without an error in it, the
values. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration_data.datasets.dicom_decoding import decode_encapsulated


def main(address_space_bytes: int) -> None:
    """Answer requests until the input ends.

    Args:
        address_space_bytes: limit of the process's memory.
    """
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the decoders print does not get between the answers
    _limit(address_space_bytes)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        encoded = sys.stdin.buffer.read(request["bytes"])
        answer, values = _decode(encoded, request)
        answers.write(json.dumps(answer).encode() + b"\n")
        if values is not None:
            answers.write(values.tobytes())
        answers.flush()


def _decode(encoded: bytes, request: dict[str, Any]) -> tuple[dict[str, str], NDArray[np.generic] | None]:
    options = request["options"]
    try:
        values, photometric = decode_encapsulated(encoded, request["syntax"], request["plugin"], options)
    except Exception as error:  # a decoder may raise anything at all on damaged bytes
        return {"error": type(error).__name__}, None
    shape = (options["rows"], options["columns"], options["samples_per_pixel"])
    if values.shape != (shape[:2] if shape[2] == 1 else shape):
        return {"error": "another shape"}, None
    return {"dtype": values.dtype.newbyteorder("<").str, "photometric": photometric}, values


def _limit(address_space_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; there the process still takes a crash upon itself
        return
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(int(sys.argv[1]))
