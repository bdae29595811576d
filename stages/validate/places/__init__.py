"""Where a file can be asked beside this process: other processors, other runtimes. A new place is one file, one line.

`PLACES` is the table. Nothing is installed by asking: `edgeproof places` tells what is there and how to get the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from stages.validate.places import arm64, node, openvino, qnn_htp, unfused, wasm, x86_avx2
from stages.validate.places.place import Place

PLACES: Mapping[str, Place] = {
    "x86-avx2": x86_avx2.PLACE,
    "arm64": arm64.PLACE,
    "node": node.PLACE,
    "wasm": wasm.PLACE,
    "openvino": openvino.PLACE,
    "openvino-bf16": openvino.PLACE_BF16,
    "qnn-htp": qnn_htp.PLACE,
    "unfused": unfused.PLACE,
}

if TYPE_CHECKING:
    KnownPlace = str
else:  # every row of the table is a choice
    KnownPlace = Literal[tuple(PLACES)]
