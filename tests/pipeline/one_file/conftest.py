"""No test here waits for processes that are timed, but for those of the speed itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.one_file import compile_file
from pipeline.one_file.speed import Speed


@pytest.fixture(scope="session", autouse=True)
def _speed_without_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_file, "measure_speed", lambda *asked: Speed(2.0, (1.5, 2.5), 3))
        yield
