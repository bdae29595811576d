"""Splits: laws that hold for any records, and the sentences for records that cannot be divided."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from calibration_data.dataset import Record
from calibration_data.prepared import SPLITS
from calibration_data.splits import SplitSettings, check_no_leak, split_records
from foundation.errors import UsageError

CLASSES = ("a", "b", "c")
UNHURRIED = examples(deadline=None)  # a busy machine is no failure


def record(index: int, label: int, group: str | None = None, official=None, sha256: str | None = None) -> Record:
    return Record(f"image-{index}", label, group or f"group-{index}", (), official, sha256 or f"{index:064d}")


@st.composite
def single_images(draw) -> list[Record]:
    """Three classes of 3 to 60 images, each its own group."""
    sizes = draw(st.tuples(*[st.integers(3, 60)] * 3))
    labels = draw(st.permutations([label for label, size in enumerate(sizes) for _ in range(size)]))
    return [record(index, label) for index, label in enumerate(labels)]


@st.composite
def grouped_images(draw) -> list[Record]:
    """Patients of one class each, 1 to 6 images, at least six patients a class."""
    records: list[Record] = []
    for label in range(3):
        for patient, size in enumerate(draw(st.lists(st.integers(1, 6), min_size=6, max_size=20))):
            records += [record(len(records) + i, label, f"{label}-{patient}") for i in range(size)]
    return records


@st.composite
def settings(draw) -> SplitSettings:
    validation, test = draw(st.tuples(*[st.sampled_from([0.1, 0.15, 0.2, 0.3])] * 2))
    return SplitSettings(
        train=1 - validation - test, validation=validation, test=test, seed=draw(st.integers(0, 2**32 - 1))
    )


@UNHURRIED
@given(grouped_images(), settings())
def test_no_group_stands_on_two_sides(records, settings):
    assignment = split_records(records, CLASSES, settings)
    sides = defaultdict(set)
    for item, split in zip(records, assignment, strict=True):
        sides[item.group].add(split)
    assert {len(found) for found in sides.values()} == {1}


@UNHURRIED
@given(grouped_images(), settings())
def test_every_record_is_placed_and_every_class_is_in_every_split(records, settings):
    assignment = split_records(records, CLASSES, settings)
    assert len(assignment) == len(records)
    present = {(item.label, split) for item, split in zip(records, assignment, strict=True)}
    assert present == {(label, split) for label in range(3) for split in SPLITS}


@UNHURRIED
@given(single_images(), settings())
def test_each_class_of_single_images_is_within_two_images_of_its_fractions(records, settings):
    assignment = split_records(records, CLASSES, settings)
    found = Counter((item.label, split) for item, split in zip(records, assignment, strict=True))
    for label in range(3):
        total = sum(item.label == label for item in records)
        for split in SPLITS:
            # Webster's method is within one image; a split that would stay empty takes one more from another.
            assert abs(found[label, split] - getattr(settings, split) * total) <= 2


@UNHURRIED
@given(grouped_images(), settings())
def test_each_class_of_groups_is_within_two_groups_of_its_fractions(records, settings):
    assignment = split_records(records, CLASSES, settings)
    found = Counter((item.label, split) for item, split in zip(records, assignment, strict=True))
    for label in range(3):
        total = sum(item.label == label for item in records)
        for split in SPLITS:
            assert abs(found[label, split] - getattr(settings, split) * total) <= 2 * 6


@UNHURRIED
@given(grouped_images(), settings())
def test_the_same_seed_gives_the_same_split(records, settings):
    assert split_records(records, CLASSES, settings) == split_records(records, CLASSES, settings)


def test_another_seed_gives_another_split_of_the_same_sizes():
    records = [record(index, index % 3) for index in range(90)]
    first = split_records(records, CLASSES, SplitSettings(seed=0))
    second = split_records(records, CLASSES, SplitSettings(seed=1))
    assert first != second
    assert Counter(first) == Counter(second)


def test_a_hundred_images_of_a_class_become_70_15_15():
    records = [record(index, index % 2) for index in range(200)]
    assignment = split_records(records, ("a", "b"), SplitSettings())
    assert Counter(assignment) == {"train": 140, "validation": 30, "test": 30}


def test_three_images_of_a_class_go_to_three_splits():
    records = [record(index, index % 2) for index in range(6)]
    assignment = split_records(records, ("a", "b"), SplitSettings())
    assert Counter(assignment) == {"train": 2, "validation": 2, "test": 2}


def test_patients_of_several_classes_keep_the_classes_balanced():
    records = [record(8 * patient + i, i % 4, f"P{patient}") for patient in range(40) for i in range(8)]
    assignment = split_records(records, ("a", "b", "c", "d"), SplitSettings())
    assert Counter(assignment) == {"train": 28 * 8, "validation": 6 * 8, "test": 6 * 8}


def test_official_test_images_stay_and_the_rest_is_divided():
    records = [record(index, index % 2, official="test" if index < 40 else "train") for index in range(240)]
    assignment = split_records(records, ("a", "b"), SplitSettings())
    assert set(assignment[:40]) == {"test"}
    # 200 images at 0.7 : 0.15 make 164.7 and 35.3, 82.35 and 17.65 of each class.
    assert Counter(assignment[40:]) == {"train": 164, "validation": 36}


def test_official_validation_and_test_images_leave_the_rest_to_train():
    official = ["test"] * 4 + ["validation"] * 4 + ["train"] * 12
    records = [record(index, index % 2, official=split) for index, split in enumerate(official)]
    assert split_records(records, ("a", "b"), SplitSettings()) == tuple(official)


def test_equal_images_of_two_patients_are_an_error_that_names_both():
    records = [record(index, index % 2) for index in range(40)]
    twin = [record(40, 0, sha256="f" * 64), record(41, 0, sha256="f" * 64)]
    messages = []  # of the seeds that part the two
    for seed in range(20):
        try:
            split_records(records + twin, ("a", "b"), SplitSettings(seed=seed))
        except UsageError as error:
            messages.append(str(error))
    assert messages
    assert all("image-40" in text and "image-41" in text and "`duplicates: merge`" in text for text in messages)


def test_merge_keeps_equal_images_on_one_side_through_any_chain():
    # image 40 = image 41, 42 is of 41's patient, 42 = 43: all four belong together.
    records = [record(index, index % 2) for index in range(40)]
    chain = [
        record(40, 0, sha256="e" * 64),
        record(41, 0, group="P", sha256="e" * 64),
        record(42, 0, group="P", sha256="f" * 64),
        record(43, 0, sha256="f" * 64),
    ]
    for seed in range(20):
        assignment = split_records(records + chain, ("a", "b"), SplitSettings(seed=seed), "merge")
        assert len(set(assignment[40:])) == 1


def test_merge_of_an_official_test_image_with_a_training_image_is_refused():
    records = [record(index, index % 2, official="test" if index < 10 else "train") for index in range(40)]
    records.append(record(40, 0, official="train", sha256=records[0].sha256))
    with pytest.raises(UsageError, match="image-0 \\(officially test\\) and image-40 \\(officially train\\)"):
        split_records(records, ("a", "b"), SplitSettings(), "merge")


def test_an_official_leak_is_refused():
    records = [record(index, index % 2, official="test" if index < 10 else "train") for index in range(40)]
    records.append(record(40, 0, official="train", sha256=records[0].sha256))
    with pytest.raises(UsageError, match=r"image-0 \(test\) and image-40"):
        split_records(records, ("a", "b"), SplitSettings())


def test_a_patient_on_both_official_sides_is_refused():
    records = [record(index, index % 2, official="test" if index < 10 else "train") for index in range(40)]
    records += [record(40, 0, "P7", "test"), record(41, 0, "P7", "train")]
    with pytest.raises(UsageError, match="one group, 'P7'"):
        split_records(records, ("a", "b"), SplitSettings())


def test_a_duplicate_within_one_split_is_no_leak():
    twins = [record(0, 0, sha256="f" * 64), record(1, 0, sha256="f" * 64)]
    check_no_leak(twins, ["train", "train"])
    with pytest.raises(UsageError, match=r"image-0 \(train\) and image-1 \(test\) are equal"):
        check_no_leak(twins, ["train", "test"])


def test_a_group_in_two_splits_is_a_leak():
    with pytest.raises(UsageError, match="are both of group 'P'"):
        check_no_leak([record(0, 0, "P"), record(1, 0, "P")], ["train", "validation"])


@pytest.mark.parametrize(
    ("labels", "groups", "classes", "message"),
    [
        ([0] * 9, None, ("a",), "expected two classes or more, found a"),
        ([], None, (), "expected two classes or more, found none"),
        ([0] * 9, None, ("a", "b"), "class 'b': expected images, found none"),
        ([0] * 9 + [1] * 2, None, ("a", "b"), "class 'b': expected images of 3 groups or more"),
        (
            [0] * 9 + [1] * 9,
            [*"123456789", *"xxxxyyyyy"],
            ("a", "b"),
            "class 'b': expected images of 3 groups .* found 2",
        ),
        ([0, 1] * 3 + [2] * 3, [*"PPQQRR", *"PPP"], ("a", "b", "c"), "class 'c': expected images of 3 groups"),
    ],
)
def test_records_that_cannot_be_divided_are_refused(labels, groups, classes, message):
    groups = groups or [None] * len(labels)
    records = [record(index, label, group) for index, (label, group) in enumerate(zip(labels, groups, strict=True))]
    with pytest.raises(UsageError, match=message):
        split_records(records, classes, SplitSettings())


@pytest.mark.parametrize("seed", range(10))
def test_few_patients_of_several_classes_are_dealt_so_that_no_split_lacks_a_class(seed):
    shown = {"P": (0, 1), "Q": (0, 1), "R": (0,), "S": (1,)}
    records = [
        record(10 * i + label, label, group) for i, (group, labels) in enumerate(shown.items()) for label in labels
    ]
    assignment = split_records(records, ("a", "b"), SplitSettings(seed=seed))
    present = {(item.label, split) for item, split in zip(records, assignment, strict=True)}
    assert present == {(label, split) for label in range(2) for split in SPLITS}


def test_classes_that_no_division_can_spread_are_refused():
    # Class a parts P, Q and R. Then b needs S and T in the two splits without P, c in the two without Q.
    shown = {"P": (0, 1), "Q": (0, 2), "R": (0,), "S": (1, 2), "T": (1, 2)}
    records = [
        record(10 * i + label, label, group) for i, (group, labels) in enumerate(shown.items()) for label in labels
    ]
    with pytest.raises(UsageError, match="Its groups are too few or too large to divide; add images of other groups"):
        split_records(records, ("a", "b", "c"), SplitSettings())


def test_classes_of_one_patient_each_are_divided_where_nothing_is_trained():
    records = [record(10 * label + i, label, f"P{label}") for label in range(20) for i in range(10)]
    assignment = split_records(records, [str(label) for label in range(20)], SplitSettings(), training=False)
    assert Counter(assignment) == {"train": 140, "validation": 30, "test": 30}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((9, 0, 0), "classes 'b', 'c': expected images, found none that can be used"),
        ((9, 2, 1), "classes 'b', 'c': expected images of 3 groups or more each, .* found 2, 1"),
    ],
)
def test_every_class_that_cannot_be_divided_is_named(sizes, message):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    with pytest.raises(UsageError, match=message):
        split_records([record(index, label) for index, label in enumerate(labels)], CLASSES, SplitSettings())


@pytest.mark.parametrize(
    "values",
    [{"train": 0.9}, {"train": 1.0, "validation": 0.0, "test": 0.0}, {"seed": -1}, {"seed": 0.5}, {"dev": 0.1}],
)
def test_impossible_fractions_are_refused(values):
    with pytest.raises(ValidationError):
        SplitSettings(**values)
