from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from foundation.errors import NotMeasuredError, UsageError
from foundation.files import sha256_of_file
from stages.quantize.neural_compressor import environment


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a main environment in which the worker's is missing."""
    monkeypatch.delenv(environment.OVERRIDE, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


def test_every_requirement_is_pinned_to_one_version() -> None:
    lines = environment.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert pins["neural_compressor"] == "3.7.1"
    assert pins["onnxruntime-tools"] == "1.7.0"
    assert int(pins["numpy"].split(".")[0]) == 1
    assert int(pins["setuptools"].split(".")[0]) < 81


def test_a_missing_environment_says_the_command(prefix: Path) -> None:
    with pytest.raises(
        NotMeasuredError, match=r"found nothing\. Create it with `edgeproof doctor --create-neural-compressor`"
    ):
        environment.worker_python()
    assert environment.worker_versions() is None


def test_a_half_made_environment_is_not_taken(prefix: Path) -> None:
    (prefix / "neural-compressor").mkdir()
    with pytest.raises(NotMeasuredError, match="half made"):
        environment.worker_python()


def test_a_complete_environment_is_not_made_again(prefix: Path) -> None:
    folder = prefix / "neural-compressor"
    folder.mkdir()
    (folder / "requirements.sha256").write_text(sha256_of_file(environment.REQUIREMENTS))
    said: list[str] = []
    python = environment.create_environment(said.append)
    assert python.parent.parent == folder
    assert len(said) == 1
    assert "there already" in said[0]


def test_an_unsupported_python_is_named(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    with pytest.raises(NotMeasuredError, match=r"expected Python 3\.11 or 3\.12, found 3\.13"):
        environment.create_environment()


def test_a_failed_installation_leaves_no_complete_environment(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info[:2] not in environment.SUPPORTED_PYTHON:
        pytest.skip("the worker's environment needs Python 3.11 or 3.12")
    failing = prefix / "failing-python"
    failing.write_text("#!/bin/sh\necho no space left on device >&2\nexit 7\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    with pytest.raises(NotMeasuredError, match="found exit code 7:\nno space left on device"):
        environment.create_environment()
    assert environment.worker_versions() is None


def test_the_override_is_used_as_it_is(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.OVERRIDE, os.fspath(sys.executable))
    assert environment.create_environment() == Path(sys.executable)
    monkeypatch.setenv(environment.OVERRIDE, str(prefix / "nowhere"))
    with pytest.raises(UsageError, match="EDGEPROOF_NEURAL_COMPRESSOR: expected the path"):
        environment.worker_python()


def test_an_override_that_is_no_program_is_refused(prefix, monkeypatch):
    prefix.mkdir(exist_ok=True)
    (prefix / "notes.txt").write_text("no program")
    monkeypatch.chdir(prefix)
    monkeypatch.setenv(environment.OVERRIDE, "notes.txt")
    with pytest.raises(UsageError, match=r"/notes\.txt: expected a Python interpreter .*Permission denied"):
        environment.worker_versions()
