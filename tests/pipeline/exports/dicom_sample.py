"""A run on DICOM files with identifiers, as far as an export of its maps reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage
from small_run import small_record

from calibration_data.datasets.dicom import DicomSettings, open_dicom
from calibration_data.preparation import prepare
from calibration_data.settings import DataSettings
from foundation.explanations import Explanations
from foundation.files import write_bytes
from foundation.image_by_image import ChangedAnswers, ImageByImage, ShownImage, ShownMaps, write_image_by_image
from foundation.measurements import Measurement, write_measurements
from foundation.notes import ExportNotes
from foundation.record import VariantRecord, write_record
from foundation.run_files import files_below, record_of_file
from foundation.run_folder import RunFolder
from tests.calibration_data.datasets.dicom_files import write_dicom

VARIANTS = ("fp32", "static-int8")
PERSON = {
    "PatientName": "Zuckmayer^Carla",
    "PatientBirthDate": "19341224",
    "PatientSex": "F",
    "PatientAddress": "Lindenallee 17",
    "InstitutionName": "Schwarzwaldklinik",
    "OperatorsName": "Brinkmann^Klaus",
    "StudyDate": "20190523",
    "StudyTime": "101500",
    "AccessionNumber": "ACC-90210",
    "StudyDescription": "Thorax of Zuckmayer",
}


def scans(root: Path, **changes: object) -> Path:
    """Write twelve scans of each of two classes, 20 × 30 pixels."""
    for label, name in enumerate(("ill", "well")):
        for number in range(12):
            pixels = np.random.default_rng((number, label)).integers(100 * label, 100 * label + 90, (20, 30))
            uid = f"1.2.3.{label + 1}.{number + 1}"
            tags = {
                "PatientID": f"MRN-{label}{number}",
                "StudyInstanceUID": uid,
                "SeriesInstanceUID": f"{uid}.1",
                "SOPInstanceUID": f"{uid}.1.1",
            }
            write_dicom(root / name / f"{number}.dcm", pixels.astype(np.uint16), **(PERSON | tags | changes))
    return root


def with_place(**changes: object) -> dict[str, object]:
    """Return what makes a scan a slice of a CT, with its place in the patient."""
    return {
        "SOPClassUID": CTImageStorage,
        "FrameOfReferenceUID": "1.2.3.99",
        "ImagePositionPatient": [-10.0, -20.0, 5.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2.0,
        **changes,
    }


def explained_run(root: Path, images: Path, fit: str = "pad") -> RunFolder:
    """Write the run: its prepared images, and maps whose largest value is where the image is brightest."""
    run = RunFolder(root)
    settings = DataSettings(source=DicomSettings(root=images), image_size=16, channels=1, fit=fit, workers=0)
    data = prepare(open_dicom(settings.source), settings, run.data)
    index = np.arange(len(data.test))
    variants = []
    for number, variant in enumerate(VARIANTS):
        maps = np.stack([image[0].astype(np.float32) / 255 - 0.1 * number for image in data.test.images])
        target = np.zeros(len(index), np.int64)
        Explanations(variant, maps, index, target, run.maps(variant, "occlusion")).write()
        path = run.model(variant)
        write_bytes(path, variant.encode())
        digest = hashlib.sha256(variant.encode()).hexdigest()
        relative = path.relative_to(root).as_posix()
        variants.append(VariantRecord(variant, "export", relative, digest, 4, None, {}, ExportNotes()))
    shown = tuple(ShownImage(int(at), (), {}) for at in index[:2])
    write_image_by_image(
        run.image_by_image, ImageByImage(ChangedAnswers((), 0, ()), ShownMaps("occlusion", len(index), shown))
    )
    write_measurements(run.measurements, [Measurement("accuracy", 0.9, "share", "fp32")])
    files = {path: record_of_file(root / path) for path in files_below(root)}
    record = small_record(
        dataset="dicom",
        classes=data.classes,
        task=data.task,
        configuration={"data": settings.model_dump(mode="json")},
        variants=tuple(variants),
        files=files,
    )
    write_record(run, record)
    return run
