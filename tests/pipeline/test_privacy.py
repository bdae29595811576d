"""What is handed on of a run names nobody: no patient, no user, no folder of the machine."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from foundation.progress import Silent
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration
from pipeline.flow import compile_and_validate
from tests.calibration_data.datasets.dicom_files import write_dicom
from tests.calibration_data.datasets.test_dicom import IDENTITY

PATIENT = "Sonnenschein_Carla"
USER = "klaus.brinkmann"


def values(source, show_names):
    return {
        "name": "private",
        "data": {"source": source, "image_size": 16, "channels": 1, "workers": 0, "bad_images": "skip"},
        "train": {"network": "cnn-small", "epochs": 1, "batch_size": 4, "threads": 1},
        "variants": {"static-int8": {"method": "static", "images": 4}, "pact-int8": {"method": "pact"}},
        "validation": {
            "accuracy": {"resamples": 1000},
            "saliency": {"images": 4, "resamples": 1000},
            "latency": {"rounds": 5, "time_budget_s": 0.0, "queries_per_round": 2, "warmup_queries": 0},
        },
        "report": {"show_names": show_names},
    }


def pixels(number, label):
    return np.random.default_rng((number, label)).integers(100 * label, 100 * label + 150, (16, 16)).astype(np.uint8)


def pictures(folder):
    for label, name in enumerate(("ill", "well")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(pixels(number, label)).save(folder / name / f"{PATIENT}_{number}.png")
        (folder / name / f"{PATIENT}_broken.png").write_bytes(b"no image")
    return {"name": "folder", "root": str(folder)}


def scans(folder):
    for label, name in enumerate(("ill", "well")):
        for number in range(12):
            person = IDENTITY | {"PatientID": f"MRN-4711-X{label}{number}"}
            write_dicom(folder / name / f"{number}.dcm", pixels(number, label).astype(np.uint16), **person)
    return {"name": "dicom", "root": str(folder)}


def finished(folder, write, show_names=False, mask=0o022):
    """Return the folder of a run under a umask."""
    source, run = write(folder / USER / "images"), RunFolder(folder / "run")
    earlier = os.umask(mask)
    try:
        compile_and_validate(parse_configuration(values(source, show_names), "private", folder), run, Silent())
    finally:
        os.umask(earlier)
    return run


@pytest.fixture(scope="module")
def of_pictures(tmp_path_factory):
    """A run under the strictest umask."""
    return finished(tmp_path_factory.mktemp("pictures"), pictures, mask=0o077)


@pytest.fixture(scope="module")
def with_names(tmp_path_factory):
    """A run whose report shows names, under a umask that lets a group read."""
    return finished(tmp_path_factory.mktemp("named"), pictures, show_names=True, mask=0o027)


def unpacked(path):
    """Return a file's bytes, and those of its members where it is an archive."""
    content = path.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist())
    return content


def words_found(run, words, kept_out=()):
    """Return which words stand where below a run folder, whatever their case."""
    files = [path for path in run.root.rglob("*") if path.is_file() and kept_out != path.parent]
    assert len(files) > 15
    found = []
    for path in files:
        content = unpacked(path).lower()
        found += [(path.name, word) for word in words if word.lower().encode() in content]
    return found


def test_names_of_files_and_folders_stay_with_the_images(of_pictures):
    run = of_pictures
    words = [*PATIENT.split("_"), USER, str(run.root.parent)]
    assert words_found(run, words, kept_out=run.data) == []
    report = (run.report / "index.html").read_text()
    assert "sha256:" in report
    assert "2 images could not be read and were skipped." in report


def test_names_are_shown_where_they_are_asked_for(with_names):
    run = with_names
    assert f"{PATIENT}_" in (run.report / "index.html").read_text()
    assert words_found(run, [USER, str(run.root.parent)], kept_out=run.data) == []


def test_what_a_scan_says_of_a_patient_is_nowhere(tmp_path):
    run = finished(tmp_path, scans, show_names=True)
    words = [part for value in IDENTITY.values() for part in value.replace("^", " ").split() if len(part) > 2]
    assert words_found(run, [*words, USER]) == []


def test_a_run_is_as_private_as_the_umask_says(of_pictures, with_names):
    for run, mask in ((of_pictures, 0o077), (with_names, 0o027)):
        assert {path.stat().st_mode & mask for path in run.root.rglob("*")} == {0}
