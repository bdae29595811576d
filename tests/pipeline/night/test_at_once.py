"""Nights of several members at once: one executor for all, a process for each."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
import yaml
from tiny_run import VALUES, digests

from foundation.cache_folder import cache_folder
from foundation.errors import ExitCode, UsageError
from foundation.host_lock import alone_on_host
from foundation.progress import Silent
from foundation.record import read_record
from foundation.run_folder import RunFolder
from pipeline.flow import run_one_night
from pipeline.night.at_once import members_at_once, named_lines
from pipeline.night.fleet import MemberNight, fleet_exit_code, one_night, read_members, run_fleet
from pipeline.run.executors.local import local_workers
from pipeline.run.executors.opening import Asked, nights_at_once
from pipeline.run.executors.task import ExecutorLostError, Outcome, Task
from pipeline.run.executors.units import Unit


def members_of(folder, *names):
    """Return members whose networks begin differently."""
    for seed, name in enumerate(names):
        values = {
            **VALUES,
            "name": name,
            "train": {**VALUES["train"], "seed": seed},
            "nightly": {"quiet_wait_minutes": 0.0},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return read_members([folder / f"{name}.yaml" for name in names], folder / "nights")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """A cache of the test's own, which the processes that it starts use too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("foundation.host_lock.cache_folder", cache_folder)


class Answering:
    """An executor that answers at once, with the unit's title."""

    name = "nobody"
    share = None

    def __init__(self):
        self.done = []

    def submit(self, task):
        future = Future()
        self.done.append((task.run, task.unit.title))
        if task.unit.variant == "lost":
            future.set_exception(ExecutorLostError("the cluster is gone."))
        else:
            future.set_result(Outcome("done", task.unit.title, "here"))
        return future


MEMBER = """
import json, os, sys
print(json.dumps({"ready": True}), flush=True)
told = json.loads(sys.stdin.readline())
name = told["configuration"]["name"]
if name == "crash":
    print("what it said last", file=sys.stderr, flush=True)
    os.abort()
became = []
for number, variant in enumerate(("a", "lost")):
    task = json.dumps(TASK | {"run": name, "unit": UNIT | {"variant": variant}})
    print(json.dumps({"number": number, "task": task}), flush=True)
    answer = json.loads(sys.stdin.readline())
    became.append(json.loads(answer["outcome"])["said"] if "outcome" in answer else answer["lost"])
print(json.dumps({"said": f"on {told['executor']}: {became}"}), flush=True)
print(json.dumps({"night": {"exit_code": 1, "run": told["root"] + "/tonight", "said": "worse"}}), flush=True)
"""


def scripted(monkeypatch, text):
    """Have members' processes do what a text says."""
    task = Task({}, "", None, {}, Unit("compile", "a"), "quantize/a", "k", {}, "").as_text()
    head = f"import json\nTASK = json.loads({task!r})\nUNIT = TASK['unit']\n"
    monkeypatch.setattr("pipeline.night.at_once.child_command", lambda module: [sys.executable, "-c", head + text])


def test_each_member_has_its_tasks_done_by_one_executor_and_one_that_crashes_stops_no_other(monkeypatch, tmp_path):
    scripted(monkeypatch, MEMBER)
    members, said, executor = members_of(tmp_path, "chest", "crash", "skin"), [], Answering()
    with members_at_once(executor, said.append) as together:
        nights = run_fleet(members, together.night_of, None, said.append, at_once=3)
    by_name = {night.member.name: night for night in nights}
    assert by_name["chest"] == MemberNight(
        members[0], ExitCode.GATE_FAILED, "worse", tmp_path / "nights/chest/tonight"
    )
    assert by_name["crash"].sentence == ("its process ended before the night did (signal 6; what it said last)")
    assert fleet_exit_code(nights) == ExitCode.INCOMPLETE
    assert sorted(executor.done) == [
        ("chest", "compile a"), ("chest", "compile lost"), ("skin", "compile a"), ("skin", "compile lost"),
    ]  # fmt: skip
    assert "skin │ on nobody: ['compile a', 'the cluster is gone.']" in said
    assert "crash │ what it said last" in said


def test_so_many_nights_are_under_way_at_once_and_the_stalest_begin(tmp_path):
    members = members_of(tmp_path, "a", "b", "c")
    both, under_way, most = threading.Barrier(2), [], []

    def night_of(member):
        under_way.append(member.name)
        most.append(len(under_way))
        if member.name != "c":
            both.wait(20)  # breaks where they come one after the other
        under_way.remove(member.name)
        return MemberNight(member, ExitCode.PASSED, "fine")

    nights = run_fleet(members, night_of, None, lambda text: None, at_once=2)
    assert [night.member.name for night in nights] == ["a", "b", "c"]
    assert max(most) == 2
    minutes = iter([0.0, 0.0, 0.0, 61.0])
    budgeted = run_fleet(members, night_of, 1.0, lambda text: None, lambda: next(minutes), at_once=2)
    assert [int(night.exit_code) for night in budgeted] == [0, 0, 3]


def test_a_night_that_is_ended_leaves_no_process(monkeypatch, tmp_path):
    scripted(monkeypatch, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    (member,) = members_of(tmp_path, "a")
    came_to = []
    with members_at_once(Answering(), lambda text: None) as together:
        thread = threading.Thread(target=lambda: came_to.append(together.night_of(member)))
        thread.start()
        while not together._processes:
            time.sleep(0.02)
    thread.join(20)
    assert "signal 9" in came_to[0].sentence


def test_no_member_begins_while_times_are_taken(monkeypatch, tmp_path):
    scripted(monkeypatch, MEMBER)
    (member,), said = members_of(tmp_path, "a"), []
    with members_at_once(Answering(), said.append) as together:
        with alone_on_host(print):
            thread = threading.Thread(target=together.night_of, args=(member,))
            thread.start()
            thread.join(0.4)
            assert (thread.is_alive(), said) == (True, [])
        thread.join(20)
    assert len(said) == 1


def test_every_line_names_its_member_within_80_columns():
    text = "  answers of static-int8: a worker did " + "something or other " * 9
    for name in ("skin", "a-model-whose-name-is-longer-than-a-third-of-the-line", "x" * 100):
        lines = named_lines(name, text).splitlines()
        assert len(lines) > 1
        assert max(len(line) for line in lines) <= 80
        assert {line.partition(" │ ")[0] for line in lines} == {lines[0].partition(" │ ")[0]}
        assert lines[0].startswith(name[:11])
        assert " ".join(" ".join(line.partition(" │ ")[2] for line in lines).split()) == " ".join(text.split())
    assert named_lines("skin", "✓ images 0.5 s") == "skin │ ✓ images 0.5 s"


@pytest.mark.parametrize(
    ("asked", "at_once", "expected"),
    [
        (Asked(), None, 1),
        (Asked(workers=1), None, 1),
        (Asked(workers=4), None, 4),
        (Asked(workers=8), None, 5),
        (Asked(workers=4), 2, 2),
        (Asked(ray="auto"), 3, 3),
    ],
)
def test_as_many_nights_at_once_as_workers(asked, at_once, expected):
    assert nights_at_once(asked, at_once, members=5) == expected


@pytest.mark.parametrize("at_once", [0, 129])
def test_how_many_at_once_is_told(at_once):
    with pytest.raises(UsageError, match=f"--at-once: expected 1 to 128, found {at_once}"):
        nights_at_once(Asked(workers=4), at_once, 5)


def test_nights_at_once_without_workers_are_refused():
    with pytest.raises(UsageError, match="--at-once: expected --workers or --ray beside it"):
        nights_at_once(Asked(), 2, 5)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the test finds the process in /proc")
def test_nights_at_once_leave_the_bytes_of_one_after_the_other_and_a_killed_one_is_resumed_the_next_time(tmp_path):
    for name in ("at-once", "in-turn"):
        (tmp_path / name).mkdir()
    members, said = members_of(tmp_path / "at-once", "chest", "skin", "eye"), []

    def hear(text):
        said.append(text)
        if text.startswith("chest │ ✓ train") and sum("✓ train" in line for line in said if "chest" in line) == 1:
            (victim,) = (one.pid for one in together._processes if is_chest(one.pid))
            os.kill(victim, signal.SIGKILL)

    def is_chest(pid):
        held = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists()]
        return members[0].root / ".lock" in held

    with local_workers(2) as executor, members_at_once(executor, hear) as together:
        nights = run_fleet(members[:2], together.night_of, None, hear, at_once=2)
        assert [int(night.exit_code) for night in nights] == [3, 0]
        assert "signal 9" in nights[0].sentence
        # The killed one goes on at once with one that begins: both are as if nothing had been.
        again = run_fleet(members[::2], together.night_of, None, hear, at_once=2)
    assert {(night.member.name, int(night.exit_code)) for night in again} == {("chest", 0), ("eye", 0)}
    runs = {night.member.name: RunFolder(night.run) for night in again}
    assert {one.status for one in read_record(runs["chest"]).stages if one.kind == "train"} == {"reused"}
    assert [night.sentence for night in again] == ["no accepted run yet: the gates decided alone"] * 2
    in_turn = partial(one_night, run_one=partial(run_one_night, observer=Silent()))
    chest, skin = members_of(tmp_path / "in-turn", "chest", "skin")
    for member, run in ((chest, runs["chest"]), (skin, RunFolder(nights[1].run))):
        found, expected = digests(run), digests(RunFolder(in_turn(member).run))
        assert found == expected
        assert len(found) > 30
    for name in ("skin", "chest", "eye"):
        assert sum("✓ 2 workers: 8 tasks" in line for line in said if line.startswith(name)) == 1
