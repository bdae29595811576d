"""What of the places is here without having been installed: the browser's package, as `npm pack` brings it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation.cache_folder import cache_folder
from foundation.errors import NotMeasuredError
from pipeline.device.browser_runtime import browser_runtime, package_path
from stages.validate.places import PLACES
from stages.validate.places.place import MARKER, folder_of, marker_of


@pytest.fixture(scope="module", autouse=True)
def wasm_from_the_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the place `wasm` be asked where its package lies in the cache and nobody has installed it: no network."""
    if PLACES["wasm"].why_not() is None or not package_path().exists():
        yield
        return
    try:
        browser_runtime()  # the package's digest
    except NotMeasuredError:
        yield
        return
    package, installed, cache = package_path(), cache_folder() / "places", tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        _install(package, folder_of("wasm"))
        for other in installed.iterdir() if installed.is_dir() else ():
            if other.name != "wasm":
                folder_of(other.name).symlink_to(other)
        yield


def _install(package: Path, folder: Path) -> None:
    web = folder / "node_modules" / "onnxruntime-web"
    web.mkdir(parents=True)
    with tarfile.open(package, mode="r:gz") as archive:
        for member in archive:
            if Path(member.name).suffix in (".mjs", ".wasm"):
                member.name = member.name.removeprefix("package/")
                archive.extract(member, web, filter="data")
    (folder / MARKER).write_text(marker_of(PLACES["wasm"].steps(folder), folder), encoding="utf-8")
