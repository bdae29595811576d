"""Workers ahead of a run's own flow: the same bytes, whatever becomes of the workers."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tiny_run import VALUES, Heard, configuration, digests, without_times_and_report

from foundation import files
from foundation.cache_folder import cache_folder
from foundation.errors import DiskError, ExitCode, UsageError
from foundation.files import sha256_of_file
from foundation.host_lock import alone_on_host, computing
from foundation.progress import Silent
from foundation.record import read_record
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration
from pipeline.custody.check import check_run
from pipeline.flow import compile_and_validate, run_until
from pipeline.run.executors.local import local_workers
from pipeline.run.executors.opening import Asked, opened_executor
from pipeline.run.executors.share import Share, put_run
from pipeline.run.executors.task import ExecutorLostError, Outcome, Task
from pipeline.run.executors.units import Unit, units_of
from pipeline.run.executors.worker import do_task, processor, software

ROOT = Path(__file__).resolve().parents[3]
TASKS = 8  # two files to make, three to ask and to explain


class Here:
    """Does a task in this process, unless it is told how the task ends."""

    name = "this process"

    def __init__(self, ends=None, share=None):
        self.ends = ends or {}
        self.share = share
        self.done = []

    def submit(self, task):
        future = Future()
        self.done.append(task.unit.title)
        ended = self.ends.get(task.unit.title) or self.ends.get("any")
        if isinstance(ended, Exception):
            future.set_exception(ended)
        elif callable(ended):
            future.set_result(do_task(ended(Task.of_text(task.as_text()))))
        else:
            future.set_result(ended or do_task(Task.of_text(task.as_text())))
        return future


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    without_times_and_report(monkeypatch)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """A cache of the test's own, which the processes that it starts use too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("foundation.host_lock.cache_folder", cache_folder)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run whose images and float file are there."""
    run = RunFolder(tmp_path_factory.mktemp("begun") / "run")
    run_until("export", configuration(), run, None, Silent())
    return run.root


@pytest.fixture
def folder(begun, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(begun, tmp_path / "run"))


@pytest.fixture(scope="module")
def plain(begun, tmp_path_factory):
    """What a run without workers leaves: path → sha256, and its record."""
    run = RunFolder(Path(shutil.copytree(begun, tmp_path_factory.mktemp("plain") / "run")))
    with pytest.MonkeyPatch.context() as patch:
        without_times_and_report(patch)
        outcome = compile_and_validate(configuration(), run, Silent())
    assert outcome.exit_code == ExitCode.PASSED
    return digests(run)


def ran(folder, executor):
    heard = Heard()
    outcome = compile_and_validate(configuration(), RunFolder(folder), heard, executor)
    return outcome, heard.lines


def test_workers_leave_the_bytes_and_the_record_of_a_plain_run(plain, folder):
    executor = Here()
    outcome, _ = ran(folder, executor)
    assert outcome.exit_code == ExitCode.PASSED
    assert digests(outcome.run) == plain
    assert len(executor.done) == TASKS
    ahead = [one for one in read_record(outcome.run).stages if one.subject is not None and one.kind != "export"]
    assert {one.status for one in ahead} == {"done"}
    assert check_run(outcome.run, None).exit_code == 0
    assert not (outcome.run.root / ".work").exists()
    again = Here()
    ran(folder, again)
    assert again.done == []  # everything is there


def test_files_travel_through_a_share(plain, folder, tmp_path):
    executor = Here(share=f"file://{tmp_path / 'share'}")
    outcome, _ = ran(folder, executor)
    assert digests(outcome.run) == plain
    assert len(executor.done) == TASKS


def test_only_what_changed_is_read_and_handed_over_again(folder, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setattr("foundation.files._SETTLED_SECONDS", 0.0)
    read, run, share = [], RunFolder(folder), Share(f"file://{tmp_path / 'share'}")
    whole = files._read_sha256
    monkeypatch.setattr("foundation.files._read_sha256", lambda path: read.append(path.name) or whole(path))
    first = put_run(share, run)
    assert sorted(read) == sorted(Path(name).name for name in first)
    asked = []
    monkeypatch.setattr(share._files, "exists", lambda path: asked.append(path) or False)
    read.clear()
    assert put_run(share, run) == first
    assert (read, asked) == ([], [])
    labels = run.data / "test.labels.npy"
    stamp, content = labels.stat(), labels.read_bytes()
    labels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(labels, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # of the same size and time: the inode's change tells
    second = put_run(share, run)
    assert (read, len(asked)) == (["test.labels.npy"], 1)
    assert {name for name in first if first[name] != second[name]} == {"data/test.labels.npy"}
    assert sha256_of_file(tmp_path / "share" / second["data/test.labels.npy"]) == second["data/test.labels.npy"]


def test_a_share_whose_file_was_changed_costs_only_time(plain, folder, tmp_path):
    class Spoiling(Here):
        def submit(self, task):
            future = super().submit(task)
            for path in (tmp_path / "share").iterdir():
                path.write_bytes(b"x" * path.stat().st_size)
            return future

    outcome, lines = ran(folder, Spoiling(share=f"file://{tmp_path / 'share'}"))
    assert digests(outcome.run) == plain
    assert any("is not what was handed over" in line for line in lines)


def test_what_broke_every_process_fails_its_variant_alone(folder):
    died = Outcome("died", "its process died 3 times (signal 11; it said nothing)")
    executor = Here({"compile static-int8": died})
    outcome, _ = ran(folder, executor)
    assert outcome.exit_code == ExitCode.INCOMPLETE
    record = read_record(outcome.run)
    (failed,) = record.unfinished_stages
    assert failed.name == "quantize/static-int8"
    assert "died 3 times (signal 11" in failed.error
    assert [one.variant for one in record.variants] == ["fp32", "fp16"]
    assert len(executor.done) == TASKS - 2  # nobody asks or explains a file that is not there
    healed, _ = ran(folder, Here())
    assert healed.exit_code == ExitCode.PASSED


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"software": {**software(), "onnxruntime": "1.2.3"}},
            r"^worker on \S+ has onnxruntime \d\S*, the run 1.2.3$",
        ),
        ({"processor": "Abacus"}, r"has the processor .+, the run Abacus$"),
        ({"key": "0" * 64}, r"the stage quantize/fp16 has the key \w{12} there, 000000000000 here$"),
    ],
)
def test_a_worker_that_would_compute_something_else_is_refused_by_name(folder, changes, named):
    unit, values = Unit("compile", "fp16"), configuration().as_json()
    task = Task(values, str(folder), None, {}, unit, "quantize/fp16", "k", software(), processor())
    outcome = do_task(dataclasses.replace(task, **changes))
    assert outcome.status == "refused"
    assert re.search(named, outcome.said), outcome.said
    assert not RunFolder(folder).model("fp16").exists()


def test_an_executor_that_is_lost_is_told_once_and_costs_only_time(plain, folder):
    executor = Here({"maps of fp32 by gradient": ExecutorLostError("Ray at nowhere is gone.")})
    outcome, lines = ran(folder, executor)
    assert digests(outcome.run) == plain
    assert lines.count("! Ray at nowhere is gone. What is missing is computed here.") == 1


def test_a_disk_that_refuses_a_worker_ends_the_run(folder):
    with pytest.raises(DiskError, match="No space left"):
        ran(folder, Here({"compile fp16": Outcome("disk", "x.onnx: could not be written (No space left)")}))


def test_a_damaged_delivery_is_computed_again(plain, folder):
    class Interrupted(Exception):
        pass

    class Stopping(Heard):
        def say(self, text):
            if text.startswith("  answers of static-int8"):
                raise Interrupted

    with pytest.raises(Interrupted):
        compile_and_validate(configuration(), RunFolder(folder), Stopping(), Here())
    delivered = sorted((folder / ".work" / "delivered").rglob("*.json"))
    assert len(delivered) >= 4
    delivered[0].write_text("{}")
    delivered[1].write_text(delivered[1].read_text().replace('"seconds": ', '"seconds": 1'))
    executor = Here()
    outcome, _ = ran(folder, executor)
    assert digests(outcome.run) == plain
    assert 2 <= len(executor.done) < TASKS


def test_units_wait_for_what_they_read():
    units = units_of(configuration(), images=8_192)
    maps = units[Unit("maps", "fp16", "gradient")]
    assert maps == {Unit("compile", "fp16"), Unit("answers", "fp32"), Unit("maps", "fp32", "gradient")}
    assert len(units) == TASKS
    searched = {**VALUES, "variants": {**VALUES["variants"], "tuned": {"method": "tuned"}}}
    assert units_of(parse_configuration(searched, "tiny", ROOT), images=1) == units  # its search takes times


def test_shards_of_workers_join_to_the_bytes_of_the_whole(folder, tmp_path, monkeypatch):
    accuracy = {"resamples": 1000, "batch_size": 1}
    one_by_one = parse_configuration(
        {**VALUES, "validation": {**VALUES["validation"], "accuracy": accuracy}}, "tiny", ROOT
    )
    alone = RunFolder(Path(shutil.copytree(folder, tmp_path / "alone")))
    compile_and_validate(one_by_one, alone, Silent())
    monkeypatch.setattr("pipeline.run.answers.SHARD_IMAGES", 2)
    share = f"file://{tmp_path / 'share'}"
    executor = Here(share=share)
    outcome = compile_and_validate(one_by_one, RunFolder(folder), Silent(), executor)
    assert digests(outcome.run) == digests(alone)
    images = len(np.load(folder / "data" / "test.labels.npy"))
    assert sum("part" in title for title in executor.done) == 3 * -(-images // 2) >= 6


def test_units_of_a_large_test_set_are_shards_that_its_answers_wait_for():
    units = units_of(configuration(), images=2 * 8_192 + 1)
    shards = {Unit("shard", "fp16", f"{number} of 3") for number in (1, 2, 3)}
    assert units[Unit("answers", "fp16")] == shards | {Unit("compile", "fp16"), Unit("answers", "fp32")}
    assert len(units) == TASKS + 9
    assert {shard.stages for shard in shards} == {("validate/fp16",)}  # which is given up with any of them


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(workers=0), "expected 1 to 128, found 0"),
        (Asked(workers=10_000), "expected 1 to 128, found 10000"),
        (Asked(workers=2, ray="auto"), "without --ray"),
        (Asked(workers=2, share="file:///x"), "expected --ray beside it"),
    ],
)
def test_what_cannot_be_asked_for_is_told(asked, said):
    with pytest.raises(UsageError, match=said), opened_executor(asked):
        pass


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://x", "every host reaches"),
        ("nonsense://x", "could not be opened"),
        ("file:///proc/nowhere", "could not be written"),
    ],
)
def test_a_share_that_is_none_is_told(url, said):
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match=said):
        Share(url).refuse_unwritable()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:9", "found none"), ("nonsense", "expected HOST:PORT"), ("127.0.0.1:99999", "found none")],
)
def test_a_cluster_that_is_gone_is_told_at_once(address, said):
    began = time.monotonic()
    with pytest.raises(UsageError, match=said), opened_executor(Asked(ray=address)):
        pass
    assert time.monotonic() - began < 10


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_told():
    with pytest.raises(UsageError, match=r"edgeproof\[ray\]"), opened_executor(Asked(ray="127.0.0.1:6379")):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the test finds the worker in /proc")
def test_a_worker_that_is_killed_is_begun_again(plain, folder):
    killed = []

    def kill_one():
        while not killed:
            for child in (Path(f"/proc/{os.getpid()}/task") / str(thread) / "children" for thread in threads()):
                for number in child.read_text().split():
                    if "executors.worker" in Path(f"/proc/{number}/cmdline").read_text():
                        os.kill(int(number), signal.SIGKILL)
                        killed.append(number)
                        return
            time.sleep(0.05)

    def threads():
        return [thread.native_id for thread in threading.enumerate() if thread.is_alive()]

    with local_workers(1) as executor:
        killer = threading.Thread(target=kill_one)
        killer.start()
        outcome, _ = ran(folder, executor)
        killer.join()
    assert len(killed) == 1
    assert digests(outcome.run) == plain


def test_a_process_that_dies_each_time_is_begun_three_times(monkeypatch, tmp_path):
    text = f"import os, sys; sys.stdin.readline(); open({str(tmp_path / 'begun')!r}, 'a').write('x'); os.abort()"
    monkeypatch.setattr("pipeline.run.executors.task.child_command", lambda module: [sys.executable, "-c", text])
    with local_workers(2) as executor:
        outcome = executor.submit(Task({}, "", None, {}, Unit("compile", "a"), "quantize/a", "k", {}, "")).result(60)
    assert outcome == Outcome("died", "its process died 3 times (signal 6; it said nothing)")
    assert (tmp_path / "begun").read_text() == "xxx"


def test_what_a_task_still_does_when_its_block_ends_is_ended(monkeypatch, tmp_path):
    text = (
        f"import sys, time; sys.stdin.readline(); open({str(tmp_path / 'begun')!r}, 'a').write('x'); time.sleep(600)"
    )
    monkeypatch.setattr("pipeline.run.executors.task.child_command", lambda module: [sys.executable, "-c", text])
    task = Task({}, "", None, {}, Unit("compile", "a"), "quantize/a", "k", {}, "")
    with local_workers(1) as executor:
        first, second = executor.submit(task), executor.submit(task)
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
    assert first.result(10).status == "died"
    assert second.cancelled()
    assert (tmp_path / "begun").read_text() == "x"


HOLD = "from foundation.host_lock import {0}\nwith {0}({1}):\n    print('held', flush=True)\n    input()\n"


def holding(kind):
    """Return a process that holds one of the host's locks until it is told or killed."""
    text = HOLD.format(kind, "print" if kind == "alone_on_host" else "")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", text], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_times_wait_for_other_work_and_a_killed_holder_lets_go():
    entered = threading.Event()

    def take_times():
        with alone_on_host(lambda text: None):
            entered.set()

    with holding("computing") as other:
        assert other.stdout.readline() == "held\n"
        with computing():  # two may compute
            pass
        timer = threading.Thread(target=take_times)
        timer.start()
        assert not entered.wait(0.3)
        with holding("computing") as late:  # who comes later waits until the times were taken
            time.sleep(0.5)
            other.kill()
            timer.join(10)
            assert entered.is_set()
            assert late.stdout.readline() == "held\n"
            late.kill()


def test_who_computes_is_told_that_another_takes_times(monkeypatch):
    monkeypatch.setattr("foundation.host_lock._SAY_AFTER_S", 0.0)
    told = []
    with holding("alone_on_host") as other:
        assert other.stdout.readline() == "held\n"
        threading.Timer(0.3, other.kill).start()
        with computing(told.append):
            pass
    assert told == ["this waits: another edgeproof takes times on this host, or is about to"]


def test_a_cache_folder_that_takes_no_locks_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    told = []
    with computing(), alone_on_host(told.append):
        pass
    assert len(told) == 1
    assert "is not known" in told[0]


def test_a_task_is_the_same_after_its_way_through_text():
    task = Task(
        {"a": [1]}, "/run", None, {}, Unit("maps", "fp16", "gradient"), "twin/fp16", "k", {"onnx": None}, "cpu"
    )
    assert Task.of_text(task.as_text()) == task
    outcome = Outcome("done", "", "host", {"a": "b"})
    assert Outcome.of_text(outcome.as_text()) == outcome
    assert json.loads(task.as_text())["unit"]["step"] == "maps"
