"""What the tests of the device kit share: a small run, its kit with and without a page, and how a kit is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from device_kits import bundled_kit, no_runtime, write_kit_run

from foundation.errors import NotMeasuredError
from foundation.run_folder import RunFolder
from pipeline.device.browser_runtime import browser_runtime


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its kit without a page, made once; no test changes them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.device.bundle.browser_runtime", no_runtime)
        bundled_kit(write_kit_run(folder / "run"), folder / "fp32.kit.zip")
    return folder


@pytest.fixture
def run(_made: Path, tmp_path: Path) -> RunFolder:
    """A run that handed out one kit."""
    return RunFolder(Path(shutil.copytree(_made / "run", tmp_path / "run")))


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.device.bundle.browser_runtime", no_runtime)


@pytest.fixture
def kit(_made: Path, tmp_path: Path) -> Path:
    """The kit of `run`, packed, without a page."""
    return Path(shutil.copy(_made / "fp32.kit.zip", tmp_path / "fp32.kit.zip"))


Started = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def measure(tmp_path: Path) -> Started:
    """Start a kit as its user does, by a Python that knows nothing of this project."""

    def start(kit: Path, *arguments: str, python: Sequence[str] = (sys.executable, "-I")) -> Any:
        command = [*python, str(kit), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    return start


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no Chromium here")
    return found


@pytest.fixture(scope="session")
def page_kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit with its page, unpacked."""
    try:
        browser_runtime()
    except NotMeasuredError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("page")
    run = write_kit_run(folder / "run", size=16, channels=3)
    bundled = bundled_kit(run, folder / "kit.zip")
    shutil.unpack_archive(bundled.path, folder / "kit")
    return folder
