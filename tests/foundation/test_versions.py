from importlib.metadata import PackageNotFoundError

import pytest

from foundation import versions


def test_another_build_in_place_of_onnxruntime_tells_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime-gpu": "1.32.0", "numpy": "2.4.6"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(versions, "version", version)
    assert versions.versions_of(["onnxruntime", "numpy", "onnx"]) == {
        "onnxruntime": "1.32.0", "numpy": "2.4.6", "onnx": None,
    }  # fmt: skip
    installed["onnxruntime"] = "1.31.0"
    assert versions.installed_version("onnxruntime") == "1.31.0"
