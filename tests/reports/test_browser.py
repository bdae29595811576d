"""The page in a real Chromium, from its file, without a network; skipped where Chromium or the checkers are missing.

`npm install playwright-core axe-core` in any folder, and EDGEPROOF_NODE_MODULES naming its `node_modules`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from foundation.run_folder import RunFolder

pytestmark = pytest.mark.long
CHECKS = Path(__file__).parent / "browser_checks.mjs"


def checked(run: RunFolder, folder: Path) -> dict[str, Any]:
    """Return what the browser found of a run's page."""
    node, chromium = shutil.which("node"), shutil.which("chromium") or shutil.which("chromium-browser")
    modules = Path(os.environ.get("EDGEPROOF_NODE_MODULES", "/nowhere"))
    if node is None or chromium is None:
        pytest.skip("there is no node or no Chromium")
    if not all((modules / name).is_dir() for name in ("playwright-core", "axe-core")):
        pytest.skip("EDGEPROOF_NODE_MODULES names no folder with playwright-core and axe-core")
    page = run.report / "index.html"
    command = [node, str(CHECKS), str(modules), chromium, str(page.resolve()), str(folder / "page.pdf")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def classes(reported_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return checked(reported_run, tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def labels(labelled_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return checked(labelled_run, tmp_path_factory.mktemp("labels"))


@pytest.mark.parametrize("sample", ["classes", "labels"])
def test_nothing_is_said_asked_for_or_in_the_way(sample: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(sample)
    assert found["said"] == []
    assert found["violations"] == []
    assert found["overflow"] == []
    assert found["cut"] == []
    assert found["above"] < 844  # the word stands on the first screen of a telephone


def test_without_scripts_everything_is_there(classes: dict[str, Any]) -> None:
    with_scripts, without = (" ".join(classes["text"][key].split()) for key in ("true", "false"))
    assert with_scripts.replace("Enlarge ", "").replace(" Enlarge", "").startswith(without[:2000])
    assert "Ledger of answers" in without
    assert "Glossary" in without


def test_the_script_sorts_filters_enlarges_and_remembers(classes: dict[str, Any]) -> None:
    assert classes["sorted"] == sorted(classes["sorted"])
    assert set(classes["filtered"]) == {"pact-int8"}
    assert classes["kept"] == classes["filtered"]
    assert classes["enlarged"] > 4
    assert classes["slider"] == 1


def test_the_print_is_short(classes: dict[str, Any]) -> None:
    assert classes["pages"] <= 12
