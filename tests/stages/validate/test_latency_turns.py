"""What the turns are for, on simulated processes: each test fails when the rule that it names is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from simulated_processes import MS, Asked, Simulation

from foundation.artifacts import OnnxModel
from foundation.measurements import Measurement
from reports.formats import speedup_in_words
from stages.validate.latency import measure_latency
from stages.validate.latency_settings import LatencySettings
from stages.validate.latency_turns import BLOCK_WARMUP, turn_orders

IMAGE = np.zeros((1, 8, 8), np.uint8)
FEW = LatencySettings(rounds=6, queries_per_round=8, warmup_queries=0, time_budget_s=0.0)


def files(*names: str) -> list[OnnxModel]:
    return [OnnxModel(name, Path(f"/nowhere/{name}.onnx"), "0" * 64, None) for name in names]


def timed(
    simulation: Simulation, settings: LatencySettings = FEW, names: tuple[str, ...] = ("fp32", "int8")
) -> dict[tuple[str, str, str | None], Measurement]:
    rows = measure_latency(files(*names), IMAGE, settings, start=simulation.start)
    return {(row.metric, row.variant, row.where.provider): row for row in rows}


def constant(ms_of: Callable[[Asked], float]) -> Simulation:
    return Simulation(lambda asked, queries: [round(ms_of(asked) * MS)] * queries)


def test_in_each_round_every_file_has_one_turn_in_an_order_of_its_own() -> None:
    orders = turn_orders(3, 600, np.random.default_rng(0))
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 70  # of 100 expected


def test_identical_files_stay_indistinguishable_where_the_first_turn_of_a_round_is_slow() -> None:
    """In a fixed order fp32 would have every first turn, and the other file would be "faster" by half."""
    found = timed(constant(lambda asked: 3.0 if asked.turn % 2 == 0 else 2.0))
    speedup = found["latency_speedup", "int8", "cpu"]
    assert speedup.ci95 is not None
    assert speedup_in_words(speedup.ci95) == "not distinguishable"
    assert speedup.value == pytest.approx(1.0, abs=0.15)


def test_the_seed_repeats_the_order_and_another_one_does_not() -> None:
    orders = []
    for seed in (0, 0, 1):
        simulation = constant(lambda asked: 1.0)
        timed(simulation, FEW.model_copy(update={"seed": seed}))
        orders.append(simulation.order)
    assert orders[0] == orders[1] != orders[2]


def test_warm_up_counts_nowhere() -> None:
    """The first queries of a process and of each block take a hundred times as long, in one file only."""

    def times(asked: Asked, queries: int) -> list[int]:
        usual = 4 * MS if asked.variant == "fp32" else 2 * MS
        cold = queries if asked.block == 0 else BLOCK_WARMUP
        return [100 * usual] * cold + [usual] * (queries - cold) if asked.variant == "int8" else [usual] * queries

    settings = FEW.model_copy(update={"warmup_queries": 16, "queries_per_round": 30})
    found = timed(Simulation(times), settings)
    assert found["latency_speedup", "int8", "cpu"].value == pytest.approx(2.0)
    assert found["latency_p99_ms", "int8", "cpu"].value == pytest.approx(2.0)
    assert found["throughput_images_per_s", "int8", "cpu"].value == pytest.approx(500.0)
    assert found["latency_p50_ms", "int8", "cpu"].n == 5 * 6 * 30


def test_a_speedup_is_the_geometric_mean_of_paired_ratios() -> None:
    """On these rounds the ratio of the medians is 0.75, and the median of the ratios is 1."""
    rounds = {"fp32": (1.0, 2.0, 3.0, 4.0, 5.0), "int8": (1.0, 1.0, 4.0, 4.0, 4.0)}
    found = timed(constant(lambda asked: rounds[asked.variant][asked.block]), FEW.model_copy(update={"rounds": 5}))
    assert found["latency_speedup", "int8", "cpu"].value == pytest.approx(1.875 ** (1 / 5))


def test_processes_are_weighted_alike_on_a_logarithmic_scale() -> None:
    """4, 1, 1, 1, 1 times as fast: the geometric mean is 4^(1/5); the mean of the ratios would be 1.6."""
    found = timed(constant(lambda asked: 4.0 if (asked.variant, asked.process) == ("fp32", 0) else 1.0))
    speedup = found["latency_speedup", "int8", "cpu"]
    assert speedup.value == pytest.approx(4 ** (1 / 5))
    assert speedup.n == 5
    assert speedup_in_words(speedup.ci95) == "not distinguishable"


def test_a_speedup_takes_fp32_of_its_own_provider() -> None:
    ms = {("cpu", "fp32"): 8.0, ("cpu", "int8"): 4.0, ("cuda", "fp32"): 3.0, ("cuda", "int8"): 1.0}
    settings = FEW.model_copy(update={"providers": ("cpu", "cuda")})
    found = timed(constant(lambda asked: ms[asked.provider, asked.variant]), settings)
    assert found["latency_speedup", "int8", "cpu"].value == pytest.approx(2.0)
    assert found["latency_speedup", "int8", "cuda"].value == pytest.approx(3.0)


def noisy(asked: Asked) -> float:
    """Processes of one file that differ by 3 %."""
    return 1.0 + 0.03 * float(np.random.default_rng([asked.process, len(asked.variant), 7]).standard_normal())


def test_more_processes_are_started_until_the_interval_should_be_narrow() -> None:
    simulation = constant(noisy)
    settings = FEW.model_copy(update={"time_budget_s": 600.0, "half_width": 0.02})
    speedup = timed(simulation, settings, ("fp32", "static-int8"))["latency_speedup", "static-int8", "cpu"]
    assert speedup.value is not None
    assert speedup.ci95 is not None
    assert simulation.started == {"fp32": speedup.n, "static-int8": speedup.n}
    assert speedup.n is not None
    assert 5 < speedup.n <= 50
    assert speedup.remarks["processes"] == speedup.n
    assert speedup.ci95[1] / speedup.value <= 1.0201


def test_without_time_left_the_first_processes_are_all() -> None:
    simulation = constant(noisy)
    timed(simulation, FEW, ("fp32", "static-int8"))
    assert simulation.started == {"fp32": 5, "static-int8": 5}


def test_a_slower_machine_and_slower_files_are_told_apart_by_the_kernel() -> None:
    def against_kernel(files_ms: float, kernel_ms: float) -> float | None:
        simulation = constant(lambda asked: files_ms)
        simulation.kernel_ns = round(kernel_ms * MS)
        return timed(simulation)["latency_against_kernel", "int8", "cpu"].value

    assert against_kernel(4.0, 1.0) == pytest.approx(0.25)
    assert against_kernel(8.0, 2.0) == pytest.approx(0.25)
    assert against_kernel(8.0, 1.0) == pytest.approx(0.125)


def test_memory_is_that_of_the_file_alone() -> None:
    """Processes that peak at 130 to 134 MB, of which 100 MB were there before the file."""
    found = timed(constant(lambda asked: 1.0))
    assert found["peak_memory_bytes", "int8", "cpu"].value == pytest.approx(32e6)
    assert found["load_ms", "int8", "cpu"].value == pytest.approx(40.0)
    assert found["first_inference_ms", "int8", "cpu"].value == pytest.approx(9.0)
    assert found["preprocessing_ms", "int8", "cpu"].value == pytest.approx(0.1)


def test_throughput_counts_the_images_of_a_batch() -> None:
    settings = FEW.model_copy(update={"batch_sizes": (1, 8)})
    rows = measure_latency(files("fp32"), IMAGE, settings, start=constant(lambda asked: 4.0).start)
    found = {row.where.batch_size: row.value for row in rows if row.metric == "throughput_images_per_s"}
    assert found == {1: pytest.approx(250.0), 8: pytest.approx(2000.0)}
