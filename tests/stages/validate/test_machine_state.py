from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from foundation.measurements import Measurement
from stages.validate.machine_state import MachineState, Watched, machine_state, wait_until_quiet

STATE = MachineState("EPYC", 8, 8, None, None, None, None, (0.5, 0.5, 0.5), 100.0, 10.0, 1000.0)


def test_what_linux_tells_is_read(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
        "sys/fs/cgroup/pod/memory.max": "2147483648\n",
        "proc/stat": "cpu  100 10 50 9000 700 5 5 30 0 0\ncpu0 1 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    state = machine_state(tmp_path)
    assert (state.governor, state.turbo) == ("performance", False)
    assert (state.cgroup_cores, state.cgroup_memory_bytes) == (1.5, 2147483648)
    assert state.busy_s == 200 / os.sysconf("SC_CLK_TCK")  # neither idle nor waiting for a disk


def test_what_a_system_does_not_tell_is_none(tmp_path: Path) -> None:
    state = machine_state(tmp_path)
    assert (state.governor, state.turbo, state.cgroup_cores, state.cgroup_memory_bytes, state.busy_s) == (None,) * 5
    assert state.logical_cores >= 1


@pytest.mark.parametrize(("others_s", "share"), [(7.0, 0.0875), (16.0, 0.2)])
def test_only_what_others_took_makes_a_machine_busy(others_s: float, share: float) -> None:
    """10 s on 8 cores, of which our own processes took 12 core seconds."""
    after = replace(STATE, clock_s=1010.0, own_busy_s=22.0, busy_s=112.0 + others_s)
    watched = Watched(STATE, after)
    assert watched.others_share == pytest.approx(share)
    said = "The machine was busy: other processes took 20% of its cores while the files were timed."
    assert watched.warning == (said if share > 0.1 else "")


def test_without_such_a_count_the_load_average_before_decides() -> None:
    idle = Watched(replace(STATE, busy_s=None), STATE)
    assert (idle.others_share, idle.warning) == (None, "")
    busy = Watched(replace(STATE, busy_s=None, load_average=(2.0, 0.0, 0.0)), STATE)
    assert busy.warning == "The machine was busy: its load average was 2.00 before the files were timed."


def test_the_warning_stands_beside_every_time_and_nothing_else() -> None:
    after = replace(STATE, clock_s=1010.0, own_busy_s=22.0, busy_s=152.0)
    rows = [Measurement("latency_p50_ms", 1.0, "ms", "fp32"), Measurement("accuracy", 0.9, "share", "fp32")]
    marked = Watched(STATE, after).marked(rows)
    assert "50%" in str(marked[0].remarks["busy"])
    assert marked[1] == rows[1]
    assert Watched(STATE, STATE).marked(rows) == rows


@pytest.mark.parametrize(
    ("others_s_in_2_s", "is_quiet", "waited_s", "said"),
    [
        ([1.0], True, 2.0, []),
        ([8.0, 8.0, 1.0], True, 6.0, ["other processes take 50%"]),
        ([8.0] * 9, False, 10.0, ["other processes take 50%", "After 0.167 min others still take 50%"]),
    ],
)
def test_times_wait_until_others_leave_the_machine_alone(
    others_s_in_2_s: list[float], is_quiet: bool, waited_s: float, said: list[str]
) -> None:
    """10 s at most, on 8 cores, which have 16 core seconds in 2 s."""
    states, naps, told = [STATE], list[float](), list[str]()
    for others_s in others_s_in_2_s:
        last = states[-1]
        assert last.busy_s is not None
        states.append(replace(last, clock_s=last.clock_s + 2, busy_s=last.busy_s + others_s))
    found = wait_until_quiet(10.0, told.append, iter(states).__next__, naps.append)
    assert (found, sum(naps)) == (is_quiet, waited_s)
    assert all(part in line for part, line in zip(said, told, strict=True))


def test_nobody_waits_where_nothing_is_told_or_asked() -> None:
    blind = replace(STATE, busy_s=None)
    assert wait_until_quiet(60.0, pytest.fail, lambda: blind, lambda seconds: None)
    assert wait_until_quiet(0.0, pytest.fail, pytest.fail, pytest.fail)
