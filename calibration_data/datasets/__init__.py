"""The sources of labelled images: one file per source, one row each in `DATASETS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from calibration_data.dataset import Dataset, SourceSettings
from calibration_data.datasets.busi import BusiSettings, fingerprint_busi, open_busi
from calibration_data.datasets.chestxray14 import (
    ChestXray14Settings,
    fingerprint_chestxray14,
    open_chestxray14,
)
from calibration_data.datasets.cifar10 import Cifar10Settings, fingerprint_cifar10, open_cifar10
from calibration_data.datasets.custom import CustomSettings, fingerprint_custom, open_custom
from calibration_data.datasets.dicom import DicomSettings, fingerprint_dicom, open_dicom
from calibration_data.datasets.digits import DigitsSettings, fingerprint_digits, open_digits
from calibration_data.datasets.endoscopy import EndoscopySettings, fingerprint_endoscopy, open_endoscopy
from calibration_data.datasets.folder import FolderSettings, fingerprint_folder, open_folder
from calibration_data.datasets.ham10000 import Ham10000Settings, fingerprint_ham10000, open_ham10000
from calibration_data.datasets.kvasir import KvasirSettings, fingerprint_kvasir, open_kvasir
from calibration_data.datasets.kvasir_seg import KvasirSegSettings, fingerprint_kvasir_seg, open_kvasir_seg
from calibration_data.datasets.medmnist import MedMnistSettings, fingerprint_medmnist, open_medmnist
from calibration_data.datasets.mnist import MnistSettings, fingerprint_mnist, open_mnist
from calibration_data.datasets.table import TableSettings, fingerprint_table, open_table


@dataclass(frozen=True)
class DatasetKind:
    """One source.

    Attributes:
        settings: the class of its settings; its `name` is the key of the row.
        open: settings → data set.
        fingerprint: settings → sha256 over everything that the data set is made from.
        description: one line for the command line and the documentation.
        synthetic: whether its images are generated.
    """

    settings: type[SourceSettings]
    open: Callable[[Any], Dataset]
    fingerprint: Callable[[Any], str]
    description: str
    synthetic: bool


DATASETS: Mapping[str, DatasetKind] = MappingProxyType(
    {
        "busi": DatasetKind(
            BusiSettings,
            open_busi,
            fingerprint_busi,
            "BUSI, breast ultrasound: benign, malignant and normal, with masks of the lesions",
            synthetic=False,
        ),
        "chestxray14": DatasetKind(
            ChestXray14Settings,
            open_chestxray14,
            fingerprint_chestxray14,
            "ChestX-ray14: 14 findings, multi-label, official test list, split by patient, boxes as masks",
            synthetic=False,
        ),
        "cifar10": DatasetKind(
            Cifar10Settings,
            open_cifar10,
            fingerprint_cifar10,
            "CIFAR-10: the binary edition, or class folders of images, also in a zip or tar; official test split",
            synthetic=False,
        ),
        "custom": DatasetKind(
            CustomSettings,
            open_custom,
            fingerprint_custom,
            "a data set that your own Python function returns, named as module:function; it runs your code",
            synthetic=False,
        ),
        "dicom": DatasetKind(
            DicomSettings,
            open_dicom,
            fingerprint_dicom,
            "your own DICOM files: one folder per class, windowed as the file says, split by patient",
            synthetic=False,
        ),
        "digits": DatasetKind(
            DigitsSettings,
            open_digits,
            fingerprint_digits,
            "1797 real scans of handwritten digits, 8 × 8 px, that ship inside scikit-learn",
            synthetic=False,
        ),
        "endoscopy": DatasetKind(
            EndoscopySettings,
            open_endoscopy,
            fingerprint_endoscopy,
            "synthetic: generated endoscopy, the eight classes of Kvasir v2, lesion masks, bright and dim endoscopes",
            synthetic=True,
        ),
        "folder": DatasetKind(
            FolderSettings,
            open_folder,
            fingerprint_folder,
            "your own images: one folder per class, lesion masks beside the images where you have them",
            synthetic=False,
        ),
        "ham10000": DatasetKind(
            Ham10000Settings,
            open_ham10000,
            fingerprint_ham10000,
            "HAM10000, dermoscopy of pigmented lesions: seven classes, split by lesion, masks, several subgroup axes",
            synthetic=False,
        ),
        "kvasir": DatasetKind(
            KvasirSettings,
            open_kvasir,
            fingerprint_kvasir,
            "Kvasir v1 or v2: endoscopy of eight classes, with the masks of Kvasir-SEG where they are at hand",
            synthetic=False,
        ),
        "kvasir_seg": DatasetKind(
            KvasirSegSettings,
            open_kvasir_seg,
            fingerprint_kvasir_seg,
            "Kvasir-SEG, real colonoscopy: one polyp crop with its mask and one mucosa crop per image",
            synthetic=False,
        ),
        "medmnist": DatasetKind(
            MedMnistSettings,
            open_medmnist,
            fingerprint_medmnist,
            "MedMNIST v2, one .npz of its twelve 2-D sets at 28 to 224 px, official splits; ChestMNIST multi-label",
            synthetic=False,
        ),
        "mnist": DatasetKind(
            MnistSettings,
            open_mnist,
            fingerprint_mnist,
            "MNIST's four IDX files, compressed or not: handwritten digits of 28 × 28 px, official test split",
            synthetic=False,
        ),
        "table": DatasetKind(
            TableSettings,
            open_table,
            fingerprint_table,
            "your own images, named in a table (CSV): class or labels, patient, official split, mask, subgroup",
            synthetic=False,
        ),
    }
)
