"""No test here looks at how long anything took: a busy machine must not fail them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
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
QUICK = latency.LatencySettings(rounds=6, queries_per_round=6, warmup_queries=2, resamples=1000)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8)


def by_variant(rows: list[Measurement], variant: str) -> dict[str, Measurement]:
    return {row.metric: row for row in rows if row.variant == variant}


def test_every_variant_gets_every_figure(make_model: Make) -> None:
    seen: list[tuple[int, int]] = []
    models = [make_model("fp32"), make_model("int8")]
    rows = latency.measure_latency(models, image(), QUICK, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]
    for variant in ("fp32", "int8"):
        found = by_variant(rows, variant)
        assert set(found) == TIMING
        for name in ("latency_p50_ms", "latency_p90_ms"):
            row = found[name]
            assert row.value is not None
            assert row.ci95 is not None
            assert row.n == 36
            assert 0 < row.ci95[0] <= row.value <= row.ci95[1]
        assert found["latency_p50_ms"].value <= found["latency_p90_ms"].value
        assert found["latency_speedup"].n == 6
        # A Python process with ONNX Runtime in it: more than 20 MB, and surely less than 2 GB.
        assert 20e6 < found["peak_memory_bytes"].value < 2e9
        assert found["latency_p50_ms"].where == Where("cpu", "test", threads=1, batch_size=1)
        assert found["latency_p50_ms"].remarks == {
            "nodes_on_provider": 1.0,
            "rounds": 6,
            "queries_per_round": 6,
            "warmup_queries": 2,
        }
    fp32 = by_variant(rows, "fp32")["latency_speedup"]
    assert (fp32.value, fp32.ci95) == (1.0, (1.0, 1.0))


def test_too_few_queries_for_p90_are_said_not_guessed(make_model: Make) -> None:
    settings = latency.LatencySettings(rounds=5, queries_per_round=2, warmup_queries=0, resamples=1000)
    found = by_variant(latency.measure_latency([make_model()], image(), settings), "fp32")
    assert found["latency_p90_ms"].value is None
    assert found["latency_p90_ms"].remarks["reason"] == "10 queries are too few for this percentile: it takes 36"
    assert found["latency_p50_ms"].n == 10


def test_a_broken_file_costs_its_own_figures_only(make_model: Make) -> None:
    broken = make_model("broken")
    broken.path.write_bytes(b"no model")
    rows = latency.measure_latency([make_model("fp32"), broken], image(), QUICK)
    assert set(by_variant(rows, "broken")) == TIMING
    for row in by_variant(rows, "broken").values():
        assert row.value is None
        assert "broken.onnx: expected an ONNX model" in str(row.remarks["reason"])
    assert all(row.value is not None for row in by_variant(rows, "fp32").values())


def test_without_fp32_there_is_no_speedup(make_model: Make) -> None:
    rows = by_variant(latency.measure_latency([make_model("int8")], image(), QUICK), "int8")
    assert rows["latency_speedup"].value is None
    assert "fp32" in str(rows["latency_speedup"].remarks["reason"])
    assert rows["latency_p50_ms"].value is not None


def test_each_provider_and_thread_count_has_its_rows(make_model: Make) -> None:
    missing = next((name for name in sessions.PROVIDERS if name not in sessions.available_providers()), None)
    if missing is None:
        pytest.skip("every provider is available here")
    settings = latency.LatencySettings(
        providers=("cpu", missing), threads=(1, 2), rounds=6, queries_per_round=6, resamples=1000
    )
    rows = latency.measure_latency([make_model()], image(), settings)
    keys = {(row.metric, row.where.provider, row.where.threads) for row in rows}
    assert keys == {(name, provider, t) for name in TIMING for provider in ("cpu", missing) for t in (1, 2)}
    for row in rows:
        assert (row.value is None) == (row.where.provider == missing)
        if row.value is None:
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
    settings = latency.LatencySettings(rounds=5, timeout_s=0.5 if "within" in reason else 60.0, resamples=1000)
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
    settings = latency.LatencySettings(providers=("cuda",), rounds=5, queries_per_round=8, resamples=1000)
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
    assert settings.latency.rounds * settings.latency.queries_per_round == 1024
    for wrong in ({"providers": ["tpu"]}, {"providers": []}, {"threads": [0]}, {"threads": ["2"]}, {"round": 3}):
        with pytest.raises(ValidationError):
            ValidateSettings.model_validate({"latency": wrong})
