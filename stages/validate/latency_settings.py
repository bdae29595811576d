"""The settings of latency: where, how often and how long the files are timed."""

from __future__ import annotations

from pydantic import Field, field_validator

from foundation.settings import Settings
from onnx_files.sessions import PROVIDERS


class LatencySettings(Settings):
    """On what, how often and how long the files are timed."""

    # strict=False: a list from YAML may stand for the tuple; the items stay strict.
    providers: tuple[str, ...] = Field(
        ("cpu",), min_length=1, strict=False, description=f"execution providers: {', '.join(PROVIDERS)}"
    )
    threads: tuple[int, ...] = Field((1,), min_length=1, strict=False, description="thread counts to measure with")
    batch_sizes: tuple[int, ...] = Field((1,), min_length=1, strict=False, description="images per query")
    processes: int = Field(
        5, ge=5, le=50, description="fresh processes of each file; the interval is one over processes"
    )
    half_width: float = Field(
        0.02,
        gt=0.0,
        le=1.0,
        description="more processes are started until the interval of a speed-up is expected to be this narrow, as a "
        "fraction to either side",
    )
    time_budget_s: float = Field(
        30.0,
        ge=0.0,
        le=86_400.0,
        description="seconds for each provider, thread count and batch size within which more processes may be "
        "started; the first ones are timed in any case",
    )
    # 5 × 7 × 30 = 1,050 queries: MLPerf's single stream asks for 1,024, and p99 takes 368.
    rounds: int = Field(7, ge=5, le=100_000, description="rounds of a process; each file answers one block in each")
    queries_per_round: int = Field(30, ge=1, le=100_000, description="timed queries of a block")
    warmup_queries: int = Field(16, ge=0, le=100_000, description="first queries of a process, not counted")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the order in which files take turns")
    timeout_s: float = Field(120.0, gt=0.0, le=86_400.0, description="a block that takes longer counts as hung")

    @field_validator("providers")
    @classmethod
    def _providers_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in PROVIDERS]
        if unknown:
            raise ValueError(f"expected some of {', '.join(PROVIDERS)}, found {', '.join(unknown)}")
        return value

    @field_validator("threads", "batch_sizes")
    @classmethod
    def _counts_positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError("expected numbers of at least 1")
        return value
