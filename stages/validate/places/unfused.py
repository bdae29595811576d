"""Here again, without ONNX Runtime's graph optimizations: by how much another order of roundings alone moves a file.

Where a sum ends between two integers, the last bit of a float decides, and every layer behind it sees another value.
A place that differs from here by no more than this one needs no other reason.
"""

from __future__ import annotations

from dataclasses import replace

from stages.validate.places.here import HERE

PLACE = replace(
    HERE,
    kind="yardstick",
    what="this machine's ONNX Runtime without its graph optimizations: what the order of roundings alone changes",
    job={"optimized": False},
)
