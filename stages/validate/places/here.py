"""Here: this Python and its ONNX Runtime, asked in the same way, what every place is held against."""

from __future__ import annotations

import sys

from stages.validate.places.place import Place, there


def _nothing_is_missing() -> None:
    return None


HERE = Place(
    kind="real",
    what="this machine's processor, by ONNX Runtime's own provider",
    why_not=_nothing_is_missing,
    command=lambda job: [sys.executable, "-P", str(there("answer.py")), str(job)],
)
