"""The machine while files were timed: what may set the pace, read before and after, and whether others were busy.

Everything comes from Linux's own files; what a system does not tell is None.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from foundation.files import JSON
from foundation.measurements import Measurement
from foundation.metrics import row_of
from foundation.processor import detect_cpu

MOST_BY_OTHERS = 0.1
"""Share of the machine that other processes may take before its times are told to be those of a busy machine."""

_LOOK_S = 2.0
"""How long the machine is watched before it is called quiet; the clock of /proc/stat has steps of 0.01 s."""

_CPU = Path("sys/devices/system/cpu")
_CGROUP = Path("sys/fs/cgroup")


@dataclass(frozen=True)
class MachineState:
    """The machine at one moment.

    Attributes:
        cpu_model: trade name.
        logical_cores: that the machine shows.
        allowed_cores: that this process may run on (its affinity).
        governor: of the first core's clock, such as "performance".
        turbo: whether the clock may rise above its nominal rate.
        cgroup_cores: processor time that a container may take, in cores.
        cgroup_memory_bytes: memory that it may take.
        load_average: processes that ran or waited, mean over the last 1, 5 and 15 minutes.
        busy_s: core seconds that the machine was busy since it started, time that a hypervisor took included.
        own_busy_s: core seconds of this process and its ended children.
        clock_s: a clock that only runs forward.
    """

    cpu_model: str
    logical_cores: int
    allowed_cores: int | None
    governor: str | None
    turbo: bool | None
    cgroup_cores: float | None
    cgroup_memory_bytes: int | None
    load_average: tuple[float, float, float] | None
    busy_s: float | None
    own_busy_s: float
    clock_s: float


@dataclass(frozen=True)
class Watched:
    """The machine before and after a measurement."""

    before: MachineState
    after: MachineState

    @property
    def others_share(self) -> float | None:
        """Share of the machine's cores that other processes took meanwhile, 0 to 1; None where it is not told."""
        if self.before.busy_s is None or self.after.busy_s is None:
            return None
        own = self.after.own_busy_s - self.before.own_busy_s
        available = (self.after.clock_s - self.before.clock_s) * self.after.logical_cores
        if available <= 0:
            return None
        return min(1.0, max(0.0, (self.after.busy_s - self.before.busy_s - own) / available))

    @property
    def warning(self) -> str:
        """What a reader of the times must know; "" where the machine was quiet or does not tell."""
        share = self.others_share
        if share is None:
            load = self.before.load_average
            if load is None or load[0] <= MOST_BY_OTHERS * self.before.logical_cores:
                return ""
            return f"The machine was busy: its load average was {load[0]:.2f} before the files were timed."
        if share <= MOST_BY_OTHERS:
            return ""
        return f"The machine was busy: other processes took {share:.0%} of its cores while the files were timed."

    def as_json(self) -> dict[str, JSON]:
        """Return both states and what they say."""
        states: dict[str, JSON] = {
            name: {key: value for key, value in asdict(state).items() if not key.endswith("_s")}
            for name, state in (("before", self.before), ("after", self.after))
        }
        return {"format_version": 1, **states, "others_share": self.others_share, "warning": self.warning or None}

    def marked(self, measurements: Iterable[Measurement]) -> list[Measurement]:
        """Return measurements with the warning, if there is one, beside every time."""
        return [replace(one, remarks={**one.remarks, **self._remark(one)}) for one in measurements]

    def _remark(self, one: Measurement) -> dict[str, JSON]:
        row = row_of(one.metric)
        return {"busy": self.warning} if self.warning and row is not None and row.inputs == "timing" else {}


def machine_state(root: Path = Path("/")) -> MachineState:
    """Return the state of the machine.

    Args:
        root: where the system's files lie.
    """
    cpu, times = detect_cpu(), os.times()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return MachineState(
        cpu_model=cpu.model,
        logical_cores=cpu.logical_cores,
        allowed_cores=None if cores is None else len(cores),
        governor=_text(root / _CPU / "cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(root),
        cgroup_cores=_cgroup_cores(root),
        cgroup_memory_bytes=_smallest_number(root, "memory.max"),
        load_average=os.getloadavg() if hasattr(os, "getloadavg") else None,
        busy_s=_busy_s(root),
        own_busy_s=sum(times[:4]),
        clock_s=time.monotonic(),
    )


def wait_until_quiet(
    seconds: float,
    say: Callable[[str], None],
    state: Callable[[], MachineState] = machine_state,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until other processes leave the machine alone, and return whether they do or nobody can tell.

    Args:
        seconds: to wait at most; 0: not at all, nothing is looked at.
        say: hears that, and for how long, there is a wait, and that it was in vain.
        state: of the machine now.
        sleep: waits for so many seconds.
    """
    if seconds <= 0:
        return True
    began = before = state()
    told = False
    while True:
        sleep(min(_LOOK_S, seconds))
        now = state()
        share = Watched(before, now).others_share
        if share is None or share <= MOST_BY_OTHERS:
            return True
        if now.clock_s - began.clock_s >= seconds:
            say(f"! After {seconds / 60:.3g} min others still take {share:.0%} of this machine: times are taken now.")
            return False
        if not told:
            say(f"other processes take {share:.0%} of this machine: the times wait, {seconds / 60:.3g} min at most")
            told = True
        before = now


def _turbo(root: Path) -> bool | None:
    no_turbo = _text(root / _CPU / "intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == "0"
    boost = _text(root / _CPU / "cpufreq/boost")
    return None if boost is None else boost == "1"


def _cgroup_cores(root: Path) -> float | None:
    """Return the tightest limit of this process's control group and those above, "QUOTA PERIOD" or "max PERIOD"."""
    limits = [text.split() for text in _of_cgroups(root, "cpu.max")]
    cores = [int(limit[0]) / int(limit[1]) for limit in limits if len(limit) == 2 and limit[0].isdigit()]
    return min(cores, default=None)


def _smallest_number(root: Path, name: str) -> int | None:
    return min((int(text) for text in _of_cgroups(root, name) if text.isdigit()), default=None)


def _of_cgroups(root: Path, name: str) -> Sequence[str]:
    """Return what a file says in this process's control group and in all above it (cgroup v2)."""
    own = (_text(root / "proc/self/cgroup") or "").rpartition("::")[2].strip("/")
    group = root / _CGROUP / own
    folders = [group, *group.parents]
    inside = folders[: folders.index(root / _CGROUP) + 1] if root / _CGROUP in folders else []
    found = (_text(folder / name) for folder in inside)
    return [text for text in found if text is not None]


def _busy_s(root: Path) -> float | None:
    """Return user, nice, system, irq, softirq and steal of the first line of /proc/stat; not idle, not iowait."""
    fields = (_text(root / "proc/stat") or "").partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return busy / os.sysconf("SC_CLK_TCK") if busy else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
