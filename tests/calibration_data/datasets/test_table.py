"""A table of images: what each column becomes, and which line is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from calibration_data.dataset import BadImageError
from calibration_data.datasets.table import TableSettings, fingerprint_table, open_table
from calibration_data.splits import SplitSettings, split_records
from foundation.errors import UsageError

HAM10000 = Path(__file__).parents[3].parent / "shared" / "data" / "ham10000"


@pytest.fixture
def folder(tmp_path, write_image) -> Path:
    """A folder with images/0.png to images/11.png, of 20 × 16 px."""
    for index in range(12):
        write_image(tmp_path / "images" / f"{index}.png", seed=index)
    return tmp_path


def settings_of(folder: Path, *rows: str, **settings) -> TableSettings:
    table = folder / "table.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return TableSettings(table=table, **settings)


def opened(folder: Path, *rows: str, **settings):
    return open_table(settings_of(folder, *rows, **settings))


def test_a_row_is_an_image_in_the_order_of_the_table(folder):
    dataset = opened(folder, "label,path", "dog,images/1.png", "cat,images/0.png", "dog,./images//2.png")
    assert dataset.classes == ("cat", "dog")
    assert dataset.task == "multi_class"
    assert [record.image_id for record in dataset.records] == ["images/1.png", "images/0.png", "images/2.png"]
    assert [record.label for record in dataset.records] == [1, 0, 1]
    assert [record.group for record in dataset.records] == ["images/1.png", "images/0.png", "images/2.png"]
    assert {(record.subgroups, record.official_split) for record in dataset.records} == {((), None)}
    assert dataset.load(dataset.records[0]).pixels.shape == (16, 20, 3)


@pytest.mark.parametrize(("ages", "refused"), [(20, False), (21, True)])
def test_a_column_of_too_many_subgroups_is_refused(folder, write_image, ages, refused):
    for index in range(12, ages):
        write_image(folder / "images" / f"{index}.png", seed=index)
    rows = ["path,label,age", *(f"images/{index}.png,{'ab'[index % 2]},{index}" for index in range(ages))]
    if not refused:
        assert {len(record.subgroups) for record in opened(folder, *rows, subgroups=["age"]).records} == {1}
        return
    with pytest.raises(UsageError, match=r"expected at most 20 subgroups in the column 'age', found 21\. Gather"):
        opened(folder, *rows, subgroups=["age"])


def test_columns_have_any_name_and_paths_start_from_the_root(folder):
    dataset = opened(
        folder,
        "file;dx;who;age;side",
        "0.png;a;P1;old;Training",
        r".\1.png;b;P2;;HOLDOUT",
        "2.png;a;;young;valid",
        root=folder / "images",
        path="file",
        label="dx",
        patient="who",
        subgroups=["age"],
        split="side",
    )
    found = [(one.image_id, one.group, one.subgroups, one.official_split) for one in dataset.records]
    assert found == [
        ("0.png", "P1", ("age: old",), "train"),
        ("1.png", "P2", (), "test"),
        ("2.png", "2.png", ("age: young",), "validation"),
    ]


def test_labels_make_a_multi_label_set_and_an_empty_cell_is_none(folder):
    rows = ("path,findings", "images/0.png,mass / cyst/mass", "images/1.png,", "images/2.png,scar/")
    dataset = opened(folder, *rows, labels="findings", separator="/")
    assert dataset.task == "multi_label"
    assert dataset.classes == ("cyst", "mass", "scar")
    assert [record.label for record in dataset.records] == [(0, 1), (), (2,)]


def test_classes_fix_the_order_and_refuse_another_label(folder):
    rows = ("path,label", "images/0.png,malignant", "images/1.png,benign")
    dataset = opened(folder, *rows, classes=("malignant", "benign", "unclear"))
    assert dataset.classes == ("malignant", "benign", "unclear")
    assert [record.label for record in dataset.records] == [0, 1]
    with pytest.raises(
        UsageError,
        match=r"table\.csv, line 3: expected one of `source\.classes`, found the label 'benign'; did you mean",
    ):
        opened(folder, *rows, classes=("malignant", "Benign"))


@pytest.mark.parametrize(
    "settings",
    [
        {"label": "label", "labels": "labels"},
        {"classes": ("one",)},
        {"classes": ("one", "one")},
        {"classes": ("one", " two")},
        {"classes": ("one", "")},
        {"separator": ""},
        {"patient": ""},
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, settings):
    with pytest.raises(ValidationError):
        TableSettings(table=tmp_path / "table.csv", **settings)


# --- masks ---


def test_a_mask_is_read_below_the_root_and_shows_the_only_label(folder):
    mask = Image.new("L", (20, 16))
    mask.paste(255, (0, 0, 4, 3))
    mask.save(folder / "m.png")
    rows = ("path,labels,mask", "images/0.png,a,m.png", "images/1.png,a|b,m.png", "images/2.png,b,")
    first, second, third = (
        dataset.load(record)
        for dataset in [opened(folder, *rows, labels="labels", mask="mask")]
        for record in dataset.records
    )
    assert first.mask is not None
    assert second.mask is not None
    assert int(first.mask.sum()) == int(second.mask.sum()) == 12
    assert (first.mask_class, second.mask_class) == (0, None)  # of two labels, nobody says which
    assert (third.mask, third.mask_class) == (None, None)
    single = opened(folder, "path,label,mask", "images/0.png,a,m.png", "images/1.png,b,", mask="mask")
    assert single.load(single.records[0]).mask_class is None


def test_a_mask_of_another_size_makes_a_bad_image(folder):
    Image.new("L", (10, 8)).save(folder / "m.png")
    dataset = opened(folder, "path,label,mask", "images/0.png,a,m.png", "images/1.png,b,", mask="mask")
    with pytest.raises(BadImageError, match=r"its mask m\.png: expected 20 × 16 pixels, found 10 × 8"):
        dataset.load(dataset.records[0])


# --- patients and splits ---


def test_a_patient_on_two_official_sides_is_refused(folder):
    rows = ("path,label,p,s", "images/0.png,a,P1,train", "images/1.png,b,P2,test", "images/2.png,b,P1,test")
    with pytest.raises(
        UsageError, match=r"line 4: expected the patient 'P1' on one side, found test, and train in line 2\."
    ):
        opened(folder, *rows, patient="p", split="s")


def test_an_undecided_image_goes_where_its_patient_is(folder):
    rows = (
        "path,label,p,s",
        "images/0.png,a,P1,",
        "images/1.png,b,P2,",
        "images/2.png,b,P1,Test",
        "images/3.png,a,,",
    )
    dataset = opened(folder, *rows, patient="p", split="s")
    assert [record.official_split for record in dataset.records] == ["test", None, "test", None]


def test_undecided_images_are_divided_among_the_splits_that_are_left_open(folder):
    rows = [f"images/{index}.png,{'ab'[index % 2]},{'test' if index < 4 else ''}" for index in range(12)]
    dataset = opened(folder, "path,label,s", *rows, split="s")
    sides = split_records(dataset.records, dataset.classes, SplitSettings())
    assert sides[:4] == ("test",) * 4
    assert set(sides[4:]) == {"train", "validation"}


# --- what is refused ---


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["images/0.png,a", "images/x.png,b"], r"line 3: expected the image images/x\.png below .*; of 2 images 1"),
        (["y.png,a", "x.png,b", "images/0.png,b"], r"line 2: expected the image y\.png .*; of 3 images 2"),
        (["images,a", "images/0.png,b"], "line 2: expected the image images below .*found no such file"),
        (["n" * 300 + ",a", "images/0.png,b"], "line 2: expected the image nnn.*found no such file"),
        (
            ["images/0.png,a", "images/./0.png,b"],
            r"line 3: expected each image once, found images/0\.png again, after",
        ),
        (["images/0.png,a", ",b"], "line 3: expected the image's path, found an empty cell"),
        (["images/0.png,a", "../a.png,b"], r"line 3: expected the image's path below `source\.root`, found '\.\./a"),
        (["images/0.png,a", r"..\a.png,b"], r"line 3: expected the image's path below `source\.root`"),
        (["/etc/passwd,a"], "line 2: expected the image's path below `source.root`, found '/etc/passwd'"),
        (["images/0.png,a", "images/1.png,"], "line 3: expected a class in the column 'label', found an empty cell"),
        (["images/0.png,a", "images/1.png,a"], "lines 2 to 3: expected two classes or more in .*'label', found only"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(folder, rows, message):
    with pytest.raises(UsageError, match=message) as caught:
        opened(folder, "path,label", *rows)
    assert str(caught.value).startswith(f"{folder / 'table.csv'}, line")


def test_labels_that_are_all_empty_are_refused(folder):
    with pytest.raises(
        UsageError, match="lines 2 to 2: expected two classes or more in the column 'labels', found n"
    ):
        opened(folder, "path,labels", "images/0.png,", labels="labels")


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(UsageError, match=r"line 2: expected a split \(train, training, val, .*found 'fold1'"):
        opened(folder, "path,label,s", "images/0.png,a,fold1", split="s")


def test_a_missing_mask_and_one_outside_are_refused(folder):
    with pytest.raises(UsageError, match=r"line 3: expected the mask m\.png below .*; of 1 masks 1 are missing"):
        opened(folder, "path,label,mask", "images/0.png,a,", "images/1.png,b,m.png", mask="mask")
    with pytest.raises(UsageError, match=r"line 2: expected the mask's path below `source\.root`"):
        opened(folder, "path,label,mask", "images/0.png,a,../m.png", mask="mask")


def test_a_link_that_leaves_the_root_is_refused_with_its_line(folder, tmp_path_factory, write_image):
    outside = write_image(tmp_path_factory.mktemp("outside") / "a.png")
    (folder / "images" / "link.png").symlink_to(outside)
    with pytest.raises(
        UsageError, match=r"line 3: .*link\.png: expected a file below .*, found a link that leaves it"
    ):
        opened(folder, "path,label", "images/0.png,a", "images/link.png,b")


def test_an_unknown_column_names_its_setting(folder):
    with pytest.raises(
        UsageError, match=r"expected a column 'patient_id' \(`source\.patient`\), found path, label, pa"
    ):
        opened(folder, "path,label,patientid", "images/0.png,a,P1", patient="patient_id")
    with pytest.raises(
        UsageError, match=r"expected a column 'label' \(`source\.label`\), found path, Label; did you"
    ):
        opened(folder, "path,Label", "images/0.png,a")


def test_a_missing_root_and_a_missing_table_are_refused(folder):
    with pytest.raises(UsageError, match=r"nowhere: expected a folder, found nothing\. Set `source\.root`"):
        opened(folder, "path,label", "images/0.png,a", root=folder / "nowhere")
    with pytest.raises(UsageError, match=r"no\.csv: expected a table"):
        open_table(TableSettings(table=folder / "no.csv"))


# --- fingerprint ---


def test_the_fingerprint_sees_the_table_the_images_and_the_masks_and_no_others(folder, write_image):
    rows = ("path,label,mask", "images/0.png,a,images/2.png", "images/1.png,b,")
    seen = [fingerprint_table(settings_of(folder, *rows, mask="mask"))]
    write_image(folder / "images" / "3.png", seed=99)
    assert fingerprint_table(settings_of(folder, *rows, mask="mask")) == seen[0]
    for name in ("1.png", "2.png"):
        write_image(folder / "images" / name, seed=100)
        seen.append(fingerprint_table(settings_of(folder, *rows, mask="mask")))
    seen.append(fingerprint_table(settings_of(folder, *rows, "", mask="mask")))  # the table's bytes
    assert len(set(seen)) == 4


def test_the_fingerprint_does_not_see_where_the_files_lie(folder):
    here = fingerprint_table(settings_of(folder, "path,label", "images/0.png,a", "images/1.png,b"))
    other = folder.rename(folder.with_name("moved"))
    assert fingerprint_table(TableSettings(table=other / "table.csv")) == here


@pytest.mark.skipif(not HAM10000.is_dir(), reason="needs images of HAM10000 in ../shared/data/ham10000")
def test_a_table_made_from_ham10000_opens(tmp_path):
    images = sorted((HAM10000 / "images").iterdir())
    known = {}
    for line in (HAM10000 / "HAM10000_metadata.csv").read_text().splitlines()[1:]:
        lesion, image, diagnosis, _, _, sex, _ = line.split(",")
        known[image] = (lesion, diagnosis, sex)
    rows = [",".join((f"images/{path.name}", *known[path.stem])) for path in images]
    settings = settings_of(
        tmp_path, "path,lesion,dx,sex", *rows, root=HAM10000, label="dx", patient="lesion", subgroups=["sex"]
    )
    dataset = open_table(settings)
    assert len(dataset.records) == len(images)
    assert {"mel", "nv"} <= set(dataset.classes)
    assert {name for record in dataset.records for name in record.subgroups} <= {
        "sex: male",
        "sex: female",
        "sex: unknown",
    }
    assert dataset.load(dataset.records[0]).pixels.shape[2] == 3
