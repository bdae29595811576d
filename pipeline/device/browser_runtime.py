"""onnxruntime-web for a kit's page: one pinned release, taken from the user's cache and never from the network.

It is there as the package that `npm pack` brings, or unpacked, as the place `wasm` has it.
"""

from __future__ import annotations

import base64
import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundation.cache_folder import cache_folder
from foundation.errors import NotMeasuredError

VERSION = "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package, as the registry states it; what differs in a bit is not used."""
_PARTS = {
    "ort-wasm.mjs": (
        "dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort-wasm.wasm": (
        "dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
    "ort-webgpu.mjs": (
        "dist/ort.webgpu.bundle.min.mjs",
        "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    ),
    "ort-webgpu.wasm": (
        "dist/ort-wasm-simd-threaded.asyncify.wasm",
        "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
    ),
}
"""Name here → name in the package, and the sha256 that it has in the package of that SHA-512."""


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
    return cache_folder() / f"onnxruntime-web-{VERSION}.tgz"


def browser_runtime() -> BrowserRuntime:
    """Return the runtime from the user's cache.

    Raises:
        NotMeasuredError: it is not there, or is another one.
    """
    path, unpacked = package_path(), cache_folder() / "places" / "wasm" / "node_modules" / "onnxruntime-web"
    mend = (
        f"`mkdir -p {path.parent} && npm pack onnxruntime-web@{VERSION} --pack-destination {path.parent}` brings it "
        "(33 MB, MIT), and so does `edgeproof places --install wasm`."
    )
    try:
        parts = _of_package(path) if path.exists() else _of_folder(unpacked)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise NotMeasuredError(f"expected onnxruntime-web {VERSION} in {path}, found none. {mend}") from error
    other = [name for name, part in parts.items() if hashlib.sha256(part).hexdigest() != _PARTS[name][1]]
    if other:
        found = path if path.exists() else unpacked
        raise NotMeasuredError(f"{found}: expected onnxruntime-web {VERSION}, found other bytes. Delete it; {mend}")
    return BrowserRuntime(VERSION, {name: _without_map(name, part) for name, part in parts.items()})


def _of_package(path: Path) -> dict[str, bytes]:
    """Return its parts out of the package; one that is none of ours gives parts of other digests."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    if base64.b64encode(digest).decode() != _SHA512:
        return dict.fromkeys(_PARTS, b"")
    with tarfile.open(path, mode="r:gz") as archive:
        members = {name: archive.extractfile(f"package/{member}") for name, (member, _) in _PARTS.items()}
        return {name: stream.read() for name, stream in members.items() if stream is not None}


def _of_folder(folder: Path) -> dict[str, bytes]:
    return {name: (folder / member).read_bytes() for name, (member, _) in _PARTS.items()}


def _without_map(name: str, part: bytes) -> bytes:
    """Return a script without its last comment, which would have a browser's tools ask for a map of it."""
    return part.partition(b"\n//# sourceMappingURL=")[0] + b"\n" if name.endswith(".mjs") else part
