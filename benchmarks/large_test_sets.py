"""What a test set of 112,000 images takes, the size of ChestX-ray14: memory and time of every stage.

    python benchmarks/large_test_sets.py --images 1000 10000 112000 --folder /tmp/large  # 14 labels, patients
    python benchmarks/large_test_sets.py --images 10000 --task multi_class --folder /tmp/large  # 8 classes

The images are generated, 64 px, SYNTHETIC. The network is the demonstration's own, trained a little, so that it errs.
Each stage runs in a process of its own; told are its peak memory (`ru_maxrss`) and its processor seconds. Beside what
the product does runs the bare session: a loop of `session.run` over the same arrays, with the same file, the same
batch and one thread. The stages that run the network and the bare session take turns, a thousand images at a time, so
that both have the same neighbours; of the other stages the ratio is to the bare session of `answers`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import Dataset, Frame, Record
from calibration_data.prepared_folder import read_prepared
from foundation.arrays import let_go_of_pages
from foundation.run_folder import RunFolder

if TYPE_CHECKING:
    from stages.validate.answers import Predictions

SIZE = 64
LABELS = 14
CLASSES = 8
IMAGES_PER_PATIENT = 3.6
"""112,120 of 30,805 patients in ChestX-ray14."""
TRAINING, VALIDATION = 1000, 500
BATCH = 32
IN_TURNS = 1024
"""Images after which the product and the bare session change places."""
SEXES, AGES = ("female", "male"), ("0–19", "20–39", "40–59", "60–79")
VARIANTS = ("fp32", "static-int8")
Numbers = dict[str, float]


# --- the images ---


def generated(options: dict[str, Any]) -> Dataset:
    """Return a data set of generated images: patterns of the labels, noise, patients, sex and age."""
    multi_label = options["task"] == "multi_label"
    count = {"test": int(options["images"]), "train": TRAINING, "validation": VALIDATION}
    rng = np.random.default_rng(0)
    records: list[Record] = []
    for split, images in count.items():
        patients = max(1, int(images / IMAGES_PER_PATIENT))
        of = rng.integers(0, patients, images) if multi_label else np.arange(images)
        sex, age = rng.integers(0, 2, images), rng.integers(0, 4, images)
        shares = np.geomspace(0.18, 0.004, LABELS)  # as rare as hernia, as frequent as infiltration, about
        held = rng.random((images, LABELS)) < shares
        classes = rng.integers(0, CLASSES, images)
        for index in range(images):
            name = f"{split}-{index}"
            patient = int(of[index])
            label = tuple(np.flatnonzero(held[index]).tolist()) if multi_label else int(classes[index])
            records.append(
                Record(
                    name,
                    label,
                    f"{split}-patient-{patient}" if multi_label else name,
                    (f"sex: {SEXES[sex[patient]]}", f"age: {AGES[age[patient]]}"),
                    split,  # type: ignore[arg-type]
                    hashlib.sha256(name.encode()).hexdigest(),
                )
            )
    names = tuple(f"finding {number}" for number in range(LABELS if multi_label else CLASSES))
    task = "multi_label" if multi_label else "multi_class"
    return Dataset("generated", names, tuple(records), True, load, groups_known=multi_label, task=task)


def load(record: Record) -> Frame:
    """Draw one image."""
    rng = np.random.default_rng(int(record.sha256[:16], 16))
    pixels = rng.integers(0, 160, (SIZE, SIZE, 3), dtype=np.uint8)
    labels = record.label if isinstance(record.label, tuple) else (record.label,)
    for label in labels:
        row, column = divmod(label, 4)
        strength = int(rng.integers(20, 95))
        pixels[16 * row : 16 * row + 14, 16 * column : 16 * column + 14, label % 3] += np.uint8(strength)
    return Frame(pixels, None)


def configuration(images: int, task: str, model: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the whole run, as a user would write it."""
    return {
        "name": f"large-{task.replace('_', '-')}-{images}",
        "data": {
            "source": {
                "name": "custom",
                "factory": "large_test_sets:generated",
                "options": {"images": images, "task": task},
            },
            "image_size": SIZE,
        },
        "model": model,
        "variants": {"static-int8": {"method": "static"}},
        "validation": {
            "accuracy": {"batch_size": BATCH},
            "operating_points": {"rule": "youden"},
            "saliency": {"images": 16, "methods": ["gradient"]},
            "latency": {"providers": ["cpu"], "threads": [1]},
        },
        "gates": [{"metric": "agreement", "variant": "static-int8", "at_least": 0.5}],
    }


# --- the stages, each in a process of its own ---


class Bare:
    """A loop of `session.run` in turns with the product: told how far that is, it answers the same images."""

    def __init__(self, path: Path, images: NDArray[np.uint8], batch: int) -> None:
        from onnx_files.sessions import open_session

        self._session = open_session(path, "cpu", 1)
        self._name = self._session.get_inputs()[0].name
        self._images, self._batch, self._done = images, batch, 0
        self.cpu = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Catch up."""
        if done - self._done < IN_TURNS and done < total:
            return
        cpu = time.thread_time()
        for start in range(self._done, done, self._batch):
            self._session.run(None, {self._name: self._images[start : min(start + self._batch, done)]})
        self.cpu += time.thread_time() - cpu
        self._done = done
        let_go_of_pages(self._images)


def timed(work: Callable[[], object]) -> float:
    """Return the processor seconds that something takes, of all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def preparing(folder: Path, images: int, task: str) -> Numbers:
    """Decode into a folder of its own, which goes again."""
    from calibration_data.preparation import prepare
    from calibration_data.settings import DataSettings, open_source

    settings = DataSettings(**configuration(images, task, {})["data"], workers=0)
    target = folder / "prepared-alone"
    cpu = timed(lambda: prepare(open_source(settings), settings, target))
    shutil.rmtree(target)
    return {"cpu": cpu}


def ranges(folder: Path, method: str) -> Numbers:
    """Find the ranges of every activation over the test images."""
    import onnx

    from onnx_files.preprocessing import Preprocessing
    from stages.quantize.calibration.ranges import Calibration, find_ranges

    run = RunFolder(folder)
    images = read_prepared(run.data).test.images
    proto = onnx.load(run.fp32)
    form = Preprocessing.from_metadata({entry.key: entry.value for entry in proto.metadata_props})
    bare = Bare(run.fp32, images, 1)
    operators = ("Conv", "Gemm", "Add", "GlobalAveragePool")
    name = proto.graph.input[0].name
    how = Calibration(method)  # type: ignore[arg-type]
    cpu = timed(lambda: find_ranges(proto, images, form, name, operators, how, progress=bare))
    return {"cpu": cpu - bare.cpu, "bare": bare.cpu}


def answering(folder: Path) -> Numbers:
    """Answer every test image with both files."""
    from foundation.artifacts import OnnxModel
    from stages.validate.accuracy import AccuracySettings, predict_variant

    run = RunFolder(folder)
    test, settings = read_prepared(run.data).test, AccuracySettings(batch_size=BATCH)
    found = {"cpu": 0.0, "bare": 0.0}
    for variant in VARIANTS:
        model = OnnxModel.read(run.model(variant))
        bare = Bare(model.path, test.images, BATCH)
        cpu = timed(partial(predict_variant, model, test, settings, answers_of(folder, variant), bare))
        found = {"cpu": found["cpu"] + cpu - bare.cpu, "bare": found["bare"] + bare.cpu}
    return found


def both_answers(folder: Path) -> tuple[Predictions, Predictions]:
    """Return what the stage before wrote."""
    from stages.validate.answers import Predictions

    fp32, other = (Predictions.read(variant, answers_of(folder, variant)) for variant in VARIANTS)
    return fp32, other


def answers_of(folder: Path, variant: str) -> Path:
    """Return where the answers of a file lie."""
    return folder.with_name(f"{folder.name}-answers") / f"{variant}.npz"


def estimating(folder: Path) -> Numbers:
    """Take every measurement of the answers of both files."""
    from stages.validate.accuracy import AccuracySettings, measure_accuracy
    from stages.validate.subgroups import subgroups_of

    data = read_prepared(RunFolder(folder).data)
    fp32, other = both_answers(folder)

    def work() -> None:
        subgroups = subgroups_of(data.test)
        for one, reference in ((fp32, None), (other, fp32.logits)):
            measure_accuracy(
                one.variant, one.logits, one.labels, data.classes, reference, data.test.groups, subgroups,
                AccuracySettings(),
            )  # fmt: skip

    return {"cpu": timed(work)}


def at_thresholds(folder: Path) -> Numbers:
    """Hold both files against thresholds, image by image and where there are patients by patient."""
    from stages.validate.answers import Answers
    from stages.validate.at_threshold import Bootstrap, measure_at_thresholds
    from stages.validate.operating_points import OperatingPointSettings, choose_all

    data, settings = read_prepared(RunFolder(folder).data), OperatingPointSettings()
    fp32, other = both_answers(folder)

    def work() -> None:
        on_test = Answers.of(fp32, data.classes, data.test.groups)
        positive = {name: on_test.positive(index) for index, name in enumerate(data.classes)}
        own = (on_test.scores, positive)
        points = choose_all(*own, data.classes, settings, "0" * 64, data.sha256)
        for one, reference in ((fp32, None), (other, fp32)):
            answers = Answers.of(one, data.classes, data.test.groups, reference)
            measure_at_thresholds(answers, own, points, settings, Bootstrap(2000, 0), data.groups_known)

    return {"cpu": timed(work)}


def image_by_image(folder: Path) -> Numbers:
    """Write the changed answers, the bins of the reliability diagrams, confusion matrices and curves."""
    from foundation.answer_documents import write_answers
    from stages.validate.answers import Answers
    from stages.validate.answers_in_detail import answers_in_detail
    from stages.validate.calibration import reliability_document
    from stages.validate.changed_answers import changed_answers
    from stages.validate.changes_ledger import changes_ledger

    data, target = read_prepared(RunFolder(folder).data), answers_of(folder, "fp32").parent
    fp32, other = both_answers(folder)

    def work() -> None:
        found = changes_ledger(fp32, {other.variant: other}, data)
        found.write(target / "changes.csv", target / "changes.json")
        of_all = [Answers.of(one, data.classes, data.test.groups) for one in (fp32, other)]
        reliability_document(of_all)
        write_answers(target / "answers.json", answers_in_detail(of_all, ()))
        changed_answers(fp32, {other.variant: other})

    return {"cpu": timed(work)}


# --- the parent ---


def begin(
    arguments: list[str], environment: dict[str, str], allowed: tuple[int, ...] = (0,)
) -> tuple[dict[str, float], str]:
    """Run a child to its end; return peak memory in MiB, processor and wall seconds, and what it printed."""
    wall = time.perf_counter()
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        text = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in allowed:
        raise SystemExit(f"{' '.join(arguments)}: exit code {child.returncode}")
    took = {"mib": used.ru_maxrss / 1024, "cpu": used.ru_utime + used.ru_stime, "wall": time.perf_counter() - wall}
    return took, text


def measure(stage: str, folder: Path, images: int, task: str) -> dict[str, float]:
    """Do one stage in a process of its own."""
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if stage in COMMANDS:
        network = folder.with_name(f"{task}-network")
        model = (
            {"train": {"network": "cnn-medium", "epochs": 3}}
            if stage == "network"
            else {"onnx": {"path": str(network / "export" / "fp32.onnx")}}
        )
        recipe = folder.with_name(f"{folder.name}.yaml")
        recipe.write_text(json.dumps(configuration(images, task, model)), encoding="utf-8")
        given = [str(folder)] if stage == "report" else [str(recipe), "--run", str(folder)]
        return begin([sys.executable, "-m", "pipeline", COMMANDS[stage], *given], environment, (0, 1, 3))[0]
    own = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--images", str(images)]
    took, text = begin([*own, "--task", task], environment)
    return {**took, **json.loads(text.splitlines()[-1])}


def row(images: int, stage: str, took: dict[str, float], bare: float | None) -> str:
    """Return a row of the table."""
    of_bare = f"{took['cpu'] / bare:.2f}" if bare else "–"
    took_s = f"{took['wall']:.1f} | {took['cpu']:.1f} | {took['cpu'] / images * 1000:.3f}"
    return f"| {images} | {stage} | {took['mib']:.0f} | {took_s} | {of_bare} |"


def main() -> None:
    """Do every stage for every number of images, and print a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 112_000])
    parser.add_argument("--task", choices=("multi_label", "multi_class"), default="multi_label")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs go; they are left there")
    parser.add_argument("--only", nargs="+", choices=(*COMMANDS, *STAGES), help="these stages")
    parser.add_argument("--stage", choices=tuple(STAGES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        # Where two threads share a core's units each counts more seconds: here everything has the same core.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(STAGES[given.stage](given.folder, given.images[0], given.task)))
        return
    print("| images | stage | peak, MiB | wall, s | processor, s | ms an image | of the bare session |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    network = given.folder / f"{given.task}-network"
    if not (network / "export" / "fp32.onnx").is_file():
        measure("network", network, 200, given.task)
    for images in given.images:
        bare: float | None = None
        for stage in ("compile", *STAGES, "run", "report"):
            if given.only and stage not in given.only:
                continue
            took = measure(stage, given.folder / f"{given.task}-{images}", images, given.task)
            bare = took["bare"] if stage == "answers" else bare
            print(row(images, stage, took, took.get("bare", bare)), flush=True)


STAGES: dict[str, Callable[[Path, int, str], Numbers]] = {
    "prepare": preparing,
    "ranges": lambda folder, images, task: ranges(folder, "minmax"),
    "distributions": lambda folder, images, task: ranges(folder, "percentile"),
    "answers": lambda folder, images, task: answering(folder),
    "accuracy": lambda folder, images, task: estimating(folder),
    "thresholds": lambda folder, images, task: at_thresholds(folder),
    "image by image": lambda folder, images, task: image_by_image(folder),
}
COMMANDS = {"network": "export", "compile": "quantize", "run": "run", "report": "report"}

if __name__ == "__main__":
    main()
