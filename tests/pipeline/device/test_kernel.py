"""The calibration kernel stands in the kit and in the report's own worker: a kit can import nothing of ours."""

from __future__ import annotations

import ast
import inspect
import io
from types import ModuleType

import pytest

from pipeline.device.kit import timing
from stages.validate import latency_turns, latency_worker


def arithmetic_of(module: ModuleType) -> str:
    """Return what a module's kernel computes, without annotations and without what it tells its parent."""
    (function,) = ast.parse(inspect.getsource(module._open_kernel)).body
    assert isinstance(function, ast.FunctionDef)
    (query,) = (one for one in function.body if isinstance(one, ast.FunctionDef))
    values = [one for one in function.body if isinstance(one, ast.Assign) and "linspace" in ast.unparse(one)]
    kept = [one for one in function.body if isinstance(one, ast.Assign) and "empty_like" in ast.unparse(one)]
    steps = [one for one in query.body if not isinstance(one, ast.Return)]
    return "\n".join(ast.unparse(one) for one in (*values, *kept, *steps))


def test_a_device_and_the_report_time_the_same_arithmetic() -> None:
    assert arithmetic_of(timing) == arithmetic_of(latency_worker)
    assert len(arithmetic_of(timing).splitlines()) == 6
    assert (timing._KERNEL_FLOATS, timing._KERNEL_STEPS) == (65_536, 32)
    assert (latency_worker._KERNEL_FLOATS, latency_worker._KERNEL_STEPS) == (65_536, 32)
    assert timing.BLOCK_WARMUP == latency_turns.BLOCK_WARMUP


@pytest.mark.parametrize("module", [timing, latency_worker])
def test_the_kernel_answers_in_the_order_of_a_millisecond(module: ModuleType) -> None:
    durations = module._time(module._open_kernel(io.StringIO()), 20)
    assert len(durations) == 20
    assert 0.05e6 < min(durations) < 20e6
