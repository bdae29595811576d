"""The configuration that `edgeproof run MODEL.onnx --images X` stands for, as far as the images are concerned."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign_files import classifier, write, write_images

from calibration_data.datasets.folder import FolderSettings
from calibration_data.datasets.table import TableSettings
from foundation.errors import UsageError
from foundation.progress import Silent
from pipeline.configuration import Configuration
from pipeline.one_file.options import CompileRequest
from pipeline.one_file.run_file import RunRequest, configuration_of


class Told(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.sentences = []

    def say(self, text):
        self.sentences.append(text)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(classifier(), tmp_path / "theirs.onnx")


def configuration(model: Path, images: Path) -> Configuration:
    request = CompileRequest(model, mean="0.5,0.5,0.5", std="0.25,0.25,0.25")
    return configuration_of(RunRequest(request, images, None, ()))


def test_a_folder_is_class_folders(model, tmp_path):
    images = write_images(tmp_path / "images", 4)
    assert configuration(model, images).data.source == FolderSettings(root=images)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "val", "test")])
def test_a_folder_of_split_folders_keeps_the_official_splits(model, tmp_path, names):
    for name in names:
        write_images(tmp_path / "images" / name, 4)
    found = configuration(model, tmp_path / "images").data
    assert found.source == FolderSettings(root=tmp_path / "images", official_splits=True)
    assert found.duplicates == "drop"  # an official test set keeps its size, training loses what is in it


@pytest.mark.parametrize("name", ["images.csv", "images.TSV"])
def test_a_table_is_a_table(model, tmp_path, name):
    table = tmp_path / name
    table.write_text("path,label\na.png,cat\n")
    assert configuration(model, table).data.source == TableSettings(table=table)


def test_the_columns_of_a_table_are_told_by_their_usual_names(model, tmp_path):
    table = tmp_path / "images.csv"
    table.write_text(
        "path,label,Patient_ID,split,mask,Sex,age,note\n"
        "a.png,cat,1,train,,f,31,x\n"
        "b.png,dog,2,test,b-mask.png,f,32,x\n"
        "c.png,dog,2,test,,m,33,x\n"
    )
    told = Told()
    request = RunRequest(CompileRequest(model, mean="0.5", std="0.25"), table, None, ())
    assert configuration_of(request, told).data.source == TableSettings(
        table=table, patient="Patient_ID", split="split", mask="mask", subgroups=("Sex",)
    )
    assert told.sentences == [
        f"{table}: The column 'age' is left out as subgroups: every value belongs to one image."
    ]


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("train", "fold 3"), "'fold 3' names no split"),
        (("test", "validation"), "it leaves no image to calibrate on"),
    ],
)
def test_a_column_that_divides_nothing_is_left_out_with_a_word(model, tmp_path, sides, said):
    table = tmp_path / "images.csv"
    table.write_text("path,labels,split\n" + "".join(f"{side[:2]}.png,a|b,{side}\n" for side in sides))
    told = Told()
    request = RunRequest(CompileRequest(model, mean="0.5", std="0.25"), table, None, ())
    assert configuration_of(request, told).data.source == TableSettings(table=table, labels="labels")
    assert told.sentences == [f"{table}: The column 'split' is left out: {said}."]


def test_images_that_are_not_there_are_told_by_the_option(model, tmp_path):
    with pytest.raises(UsageError, match=r"--images: expected a folder with .*, found nothing at"):
        configuration(model, tmp_path / "nowhere")


def test_an_input_that_is_no_square_is_refused(tmp_path):
    model = write(classifier(size=(24, 32)), tmp_path / "wide.onnx")
    with pytest.raises(UsageError, match="expected a square input, found 24 × 32"):
        configuration(model, tmp_path)
