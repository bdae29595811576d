"""A worker: reads tasks from its standard input, does each in its run folder and answers it in one line.

`python -m pipeline.run.executors.worker < TASKS.jsonl`
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path

from foundation.artifacts import Checkpoint, OnnxModel
from foundation.errors import DiskError, StageError, UsageError
from foundation.files import sha256_of_json
from foundation.record import read_record
from foundation.run_folder import RunFolder
from foundation.versions import versions_of
from pipeline.configuration import Configuration
from pipeline.configuration_file import parse_configuration
from pipeline.machine.environment import described_cpu
from pipeline.run.deliveries import Delivering, NeededStage, OtherKeyError
from pipeline.run.executors.share import folder_of
from pipeline.run.executors.task import Outcome, Task
from pipeline.run.executors.units import do_unit
from pipeline.run.model import Model
from pipeline.run.sources import sources_sha256
from pipeline.run.stage import COMPUTING_PACKAGES

SOURCES = "edgeproof's own sources"


def software() -> dict[str, str | None]:
    """Return the versions of what computes, and the digest of our own sources."""
    return {**versions_of(COMPUTING_PACKAGES), SOURCES: sources_sha256("pipeline.flow")[:12]}


def processor() -> str:
    """Return what a processor's answers depend on, in a text."""
    cpu = asdict(described_cpu())
    return f"{cpu['model']} ({sha256_of_json(cpu)[:12]})"


def do_task(task: Task) -> Outcome:
    """Do a task unless this process would compute another result than the one that asks."""
    host = socket.gethostname()
    why_not = _why_other(task)
    if why_not is not None:
        return Outcome("refused", f"worker on {host} {why_not}", host)
    written: dict[str, str] = {}
    try:
        with folder_of(task, written) as run:
            configuration = parse_configuration(task.configuration, "the task's configuration", Path("/"))
            performer = Delivering(run, read_record(run), NeededStage(task.stage, task.key))
            from calibration_data.prepared_folder import read_prepared

            do_unit(task.unit, configuration, performer, read_prepared(run.data), _start(configuration, run))
    except OtherKeyError as error:
        return Outcome("refused", f"worker on {host} would compute something else: {error}", host)
    except DiskError as error:
        return Outcome("disk", str(error), host)
    except (StageError, UsageError) as error:
        return Outcome("failed", str(error), host)
    except Exception as error:  # whatever a library raised: the run's own flow tells it better
        return Outcome("failed", f"an unexpected {type(error).__name__}: {error}", host)
    return Outcome("done", "", host, written)


def _why_other(task: Task) -> str | None:
    """Return how this process differs from the one that asks, as part of a sentence; None where it does not."""
    own = software()
    for name in sorted(own.keys() | task.software.keys()):
        here, there = own.get(name), task.software.get(name)
        if here != there:
            return f"has {name} {here or '(none)'}, the run {there or '(none)'}"
    if processor() != task.processor:
        return f"has the processor {processor()}, the run {task.processor}"
    return None


def _start(configuration: Configuration, run: RunFolder) -> Model:
    if configuration.model.onnx is not None:
        return Model(OnnxModel.read(run.fp32), None)
    return Model(OnnxModel.read(run.fp32), Checkpoint.at(run.checkpoint, configuration.model.network))


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        os.write(answers, (do_task(Task.of_text(line)).as_text() + "\n").encode())
