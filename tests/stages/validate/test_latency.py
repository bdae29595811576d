"""No test here looks at how long anything took: a busy machine must not fail them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from foundation.artifacts import OnnxModel
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from onnx_files import sessions
from stages.validate import latency, latency_processes
from stages.validate.settings import ValidateSettings

Make = Callable[..., OnnxModel]
TIMING = {name for name, row in METRICS.items() if row.inputs == "timing"}
QUICK = latency.LatencySettings(rounds=5, queries_per_round=4, warmup_queries=2, time_budget_s=0.0)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8)


def by_variant(rows: list[Measurement], variant: str) -> dict[str, Measurement]:
    return {row.metric: row for row in rows if row.variant == variant}


def test_every_variant_gets_every_figure(make_model: Make) -> None:
    seen: list[tuple[int, int]] = []
    models = [make_model("fp32"), make_model("int8")]
    rows = latency.measure_latency(models, image(), QUICK, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 75) for i in range(1, 76)]  # two files and the kernel, five rounds, five processes
    for variant in ("fp32", "int8"):
        found = by_variant(rows, variant)
        assert set(found) == TIMING
        assert "100 queries" in found["latency_p99_ms"].reason
        for name in ("latency_p50_ms", "latency_p90_ms"):
            row = found[name]
            assert row.value is not None
            assert row.ci95 is not None
            assert row.n == 100
            assert 0 < row.ci95[0] <= row.value <= row.ci95[1]
        assert found["latency_p50_ms"].value <= found["latency_p90_ms"].value
        for name in TIMING - {"latency_p50_ms", "latency_p90_ms", "latency_p99_ms"}:
            assert found[name].n == 5
            assert found[name].value > 0
        # A file of some hundred bytes: less than the 20 MB and more that Python and ONNX Runtime take by themselves.
        assert 0 < found["peak_memory_bytes"].value < 20e6
        assert found["latency_p50_ms"].where == Where("cpu", "test", threads=1, batch_size=1)
        assert found["latency_p50_ms"].remarks == {
            "nodes_on_provider": 1.0,
            "processes": 5,
            "rounds": 5,
            "queries_per_round": 4,
            "warmup_queries": 2,
        }
    fp32 = by_variant(rows, "fp32")["latency_speedup"]
    assert (fp32.value, fp32.ci95) == (1.0, (1.0, 1.0))


def test_too_few_queries_for_a_percentile_are_said_not_guessed(make_model: Make) -> None:
    settings = latency.LatencySettings(rounds=5, queries_per_round=1, warmup_queries=0, time_budget_s=0.0)
    found = by_variant(latency.measure_latency([make_model()], image(), settings), "fp32")
    for name, least in (("latency_p90_ms", 36), ("latency_p99_ms", 368)):
        assert found[name].value is None
        assert found[name].remarks["reason"] == f"n too small: 25 queries, and this percentile takes {least}"
    assert found["latency_p50_ms"].n == 25


def test_a_broken_file_costs_its_own_figures_only(make_model: Make) -> None:
    broken = make_model("broken")
    broken.path.write_bytes(b"no model")
    rows = latency.measure_latency([make_model("fp32"), broken], image(), QUICK)
    assert set(by_variant(rows, "broken")) == TIMING
    for row in by_variant(rows, "broken").values():
        assert row.value is None
        assert "broken.onnx: expected an ONNX model" in str(row.remarks["reason"])
    of_fp32 = by_variant(rows, "fp32")
    assert {name for name, row in of_fp32.items() if row.value is None} == {"latency_p99_ms"}  # of 100 queries


def test_a_file_of_one_image_is_not_asked_for_two(make_model: Make) -> None:
    fixed = make_model("fixed")
    model = onnx.load(fixed.path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, fixed.path)
    settings = QUICK.model_copy(update={"batch_sizes": (1, 2)})
    rows = latency.measure_latency([make_model("fp32"), fixed], image(), settings)
    for row in rows:
        refused = row.variant == "fixed" and row.where.batch_size == 2
        assert (row.value is None) == (refused or row.metric == "latency_p99_ms")
        if refused:
            assert "expected a file that takes 2 images at once, found one that takes 1" in str(row.reason)


def test_without_fp32_there_is_no_speedup(make_model: Make) -> None:
    rows = by_variant(latency.measure_latency([make_model("int8")], image(), QUICK), "int8")
    assert rows["latency_speedup"].value is None
    assert "fp32" in str(rows["latency_speedup"].remarks["reason"])
    assert rows["latency_p50_ms"].value is not None


def test_each_provider_and_thread_count_has_its_rows(make_model: Make) -> None:
    missing = next((name for name in sessions.PROVIDERS if name not in sessions.available_providers()), None)
    if missing is None:
        pytest.skip("every provider is available here")
    settings = QUICK.model_copy(update={"providers": ("cpu", missing), "threads": (1, 2)})
    rows = latency.measure_latency([make_model()], image(), settings)
    keys = {(row.metric, row.where.provider, row.where.threads) for row in rows}
    assert keys == {(name, provider, t) for name in TIMING for provider in ("cpu", missing) for t in (1, 2)}
    for row in rows:
        assert (row.value is None) == (row.where.provider == missing or row.metric == "latency_p99_ms")
        if row.where.provider == missing:
            assert str(row.remarks["reason"]).startswith(f"{missing}: expected")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.stdin.readline(); sys.exit('out of memory')", "ended with status 1 (out of memory)"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9 (it said nothing)"),
        ("import time; time.sleep(600)", "no answer within 0.5 s"),
    ],
)
def test_a_worker_that_dies_or_hangs_gives_a_reason(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(latency_processes, "worker_command", lambda: [sys.executable, "-c", script])
    settings = latency.LatencySettings(rounds=5, timeout_s=0.5 if "within" in reason else 60.0)
    rows = latency.measure_latency([make_model()], image(), settings)
    assert {row.metric for row in rows} == TIMING
    for row in rows:
        assert row.value is None
        assert reason in str(row.remarks["reason"])


def test_a_provider_that_runs_no_node_has_no_latency(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that gave every node back to the CPU would be timed under the provider's name."""
    script = (
        "from onnx_files import sessions\n"
        "from stages.validate import latency_worker\n"
        "sessions.PROVIDERS['cuda'] = sessions.PROVIDERS['cpu']\n"
        "latency_worker.nodes_on_provider = lambda session, provider: 0.0\n"
        "latency_worker.main()"
    )
    monkeypatch.setattr(latency_processes, "worker_command", lambda: [sys.executable, "-c", script])
    settings = latency.LatencySettings(providers=("cuda",), rounds=5, queries_per_round=8)
    rows = latency.measure_latency([make_model()], image(), settings)
    assert {row.metric for row in rows} == TIMING
    for row in rows:
        assert row.value is None
        assert "cuda: expected it to run some of the graph" in str(row.remarks["reason"])


def test_the_worker_imports_nothing_heavy() -> None:
    listing = "import sys, stages.validate.latency_worker; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "scipy", "sklearn", "pydantic", "onnx", "matplotlib"):
        assert f"'{heavy}'" not in loaded


def test_settings_take_lists_and_refuse_what_cannot_be_measured() -> None:
    settings = ValidateSettings.model_validate({"latency": {"providers": ["cpu", "openvino"], "threads": [1, 2]}})
    assert settings.latency.providers == ("cpu", "openvino")
    assert settings.latency.threads == (1, 2)
    timed = settings.latency
    assert timed.processes * timed.rounds * timed.queries_per_round >= 1024  # MLPerf's single stream
    for wrong in (
        {"providers": ["tpu"]},
        {"providers": []},
        {"threads": [0]},
        {"threads": ["2"]},
        {"batch_sizes": [0]},
        {"processes": 4},
        {"round": 3},
    ):
        with pytest.raises(ValidationError):
            ValidateSettings.model_validate({"latency": wrong})
