"""onnxruntime-web for a kit's page: one pinned release, taken from the user's cache and never from the network."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from foundation.errors import NotMeasuredError

VERSION = "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package, as the registry states it; what differs in a bit is not used."""
_PARTS = {
    "ort-wasm.mjs": "package/dist/ort.wasm.bundle.min.mjs",
    "ort-wasm.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
    "ort-webgpu.mjs": "package/dist/ort.webgpu.bundle.min.mjs",
    "ort-webgpu.wasm": "package/dist/ort-wasm-simd-threaded.asyncify.wasm",
}


@dataclass(frozen=True)
class BrowserRuntime:
    """What a page runs files with.

    Attributes:
        version: of onnxruntime-web.
        parts: name → content.
    """

    version: str
    parts: Mapping[str, bytes]


def package_path() -> Path:
    """Return where the package is looked for."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edgeproof" / f"onnxruntime-web-{VERSION}.tgz"


def browser_runtime() -> BrowserRuntime:
    """Return the runtime from the user's cache.

    Raises:
        NotMeasuredError: it is not there, or is another one.
    """
    path = package_path()
    mend = (
        f"`mkdir -p {path.parent} && npm pack onnxruntime-web@{VERSION} --pack-destination {path.parent}` brings it "
        "(33 MB, MIT)."
    )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotMeasuredError(f"expected onnxruntime-web {VERSION} in {path}, found none. {mend}") from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != _SHA512:
        raise NotMeasuredError(f"{path}: expected onnxruntime-web {VERSION}, found other bytes. Delete it; {mend}")
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
        members = {name: archive.extractfile(member) for name, member in _PARTS.items()}
        parts = {name: stream.read() for name, stream in members.items() if stream is not None}
    return BrowserRuntime(VERSION, {name: _without_map(name, part) for name, part in parts.items()})


def _without_map(name: str, part: bytes) -> bytes:
    """Return a script without its last comment, which would have a browser's tools ask for a map of it."""
    return part.partition(b"\n//# sourceMappingURL=")[0] + b"\n" if name.endswith(".mjs") else part
