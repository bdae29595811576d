from __future__ import annotations

from pathlib import Path

import pytest
from quantizable import float_proto, prepared_data, write_float_model

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel


@pytest.fixture(scope="session")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return write_float_model(Path(tmp_path_factory.mktemp("float")) / "fp32.onnx", float_proto())


@pytest.fixture(scope="session")
def data() -> PreparedData:
    return prepared_data()
