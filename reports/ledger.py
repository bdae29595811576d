"""The ledger of answers: what changed, image by image, with the pictures; counts; confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.answer_documents import Confusion, LedgerRow
from reports import formats, tiles
from reports.class_forest import most_changed
from reports.facts import BASELINE, Facts

MOST_ROWS = 200
"""Rows on the page; `changes.csv` has all."""
MOST_PICTURES = 24
MOST_CLASSES = 14
"""Classes whose confusion matrix fits on a page; of more, the cells that moved are listed."""
MOST_CELLS = 30
_PICTURE_PIXELS = 96
_ORDER = {"broken": 0, "otherwise": 1, "mended": 2}
OUTCOMES = {"broken": "right → wrong", "mended": "wrong → right", "otherwise": "wrong → otherwise wrong"}
_MARKS = {"broken": "✕", "mended": "✓", "otherwise": "≠"}


@dataclass(frozen=True)
class LedgerLine:
    """One changed answer as it is shown.

    Attributes:
        row: what is stored of it.
        name: the image's name or handle.
        picture: a `data:` address; "" where the picture is not shown.
        maps: fp32's and the variant's map; "" where there is none.
        outcome: in words.
        mark: a sign for it.
    """

    row: LedgerRow
    name: str
    picture: str
    maps: tuple[str, str]
    outcome: str
    mark: str

    @property
    def fp32_probability(self) -> str:
        """That fp32 gave to its answer."""
        return _percent(self.row.fp32_probability)

    @property
    def variant_probability(self) -> str:
        """That the variant gave to its own."""
        return _percent(self.row.variant_probability)


@dataclass(frozen=True)
class Ledger:
    """The lines that are shown, and how many there are."""

    lines: tuple[LedgerLine, ...]
    total: int
    with_label: bool
    with_patient: bool
    with_maps: bool


def ledger(facts: Facts) -> Ledger | None:
    """Return the changed answers, those that fp32 had right first, the surest first; None where nobody looked."""
    if facts.changes is None:
        return None
    known = set(facts.variant_names)
    rows = sorted(
        (row for row in facts.changes.changes if row.variant in known),
        key=lambda row: (_ORDER[row.outcome], -(row.fp32_probability or 0.0), row.image, row.label, row.variant),
    )
    shown = rows[:MOST_ROWS]
    pictured = dict.fromkeys(row.image for row in shown if row.image in facts.index_of_handle)
    with_picture = set(list(pictured)[:MOST_PICTURES])
    cache: dict[tuple[str, str], str] = {}
    lines = tuple(_line(facts, row, with_picture, cache) for row in shown)
    return Ledger(
        lines,
        len(rows),
        any(row.label for row in rows),
        any(row.patient for row in rows),
        any(any(line.maps) for line in lines),
    )


def _line(facts: Facts, row: LedgerRow, with_picture: set[str], cache: dict[tuple[str, str], str]) -> LedgerLine:
    index = facts.index_of_handle.get(row.image)
    name = row.image if index is None else facts.image_name(index)
    picture, maps = "", ("", "")
    if index is not None and row.image in with_picture and facts.data is not None:
        key = (row.image, "")
        if key not in cache:
            cache[key] = tiles.photograph(facts.data.test.images[index], _PICTURE_PIXELS)
        picture = cache[key]
        maps = (_map(facts, BASELINE, index, cache, row.image), _map(facts, row.variant, index, cache, row.image))
    return LedgerLine(row, name, picture, maps, OUTCOMES[row.outcome], _MARKS[row.outcome])


def _map(facts: Facts, variant: str, index: int, cache: dict[tuple[str, str], str], image: str) -> str:
    of_variant = facts.maps.get(variant)
    saliency = of_variant.of_image(index) if of_variant is not None else None
    if saliency is None:
        return ""
    key = (image, variant)
    if key not in cache:
        cache[key] = tiles.heat(saliency)
    return cache[key]


def _percent(probability: float | None) -> str:
    return "–" if probability is None else formats.percent(probability)


@dataclass(frozen=True)
class MatrixCell:
    """A count; `shade` 0 to 9 how much of its row it is, `diagonal` whether it is a right answer."""

    text: str
    shade: int
    diagonal: bool


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: rows are the truth, columns the answers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[MatrixCell, ...]], ...]


@dataclass(frozen=True)
class ConfusionOf:
    """A variant's matrices beside fp32's; where they are too large, the cells that moved most."""

    variant: str
    moved: int
    matrices: tuple[Matrix, ...]
    cells: tuple[tuple[str, str, str, str, str], ...]
    more: int


def confusions(facts: Facts) -> tuple[ConfusionOf, ...]:
    """Return fp32 | variant | difference of every variant; none of a run that stored none."""
    if facts.answers is None or not facts.answers.confusions:
        return ()
    baseline, *others = facts.answers.confusions
    of = {one.variant: one for one in others if one.minus_fp32 is not None}
    return tuple(_confusion_of(facts, baseline, of[name]) for name in most_changed(facts) if name in of)


def _confusion_of(facts: Facts, fp32: Confusion, one: Confusion) -> ConfusionOf:
    change = np.asarray(one.minus_fp32)
    moved = int(np.clip(change, 0, None).sum())
    if facts.task == "multi_class" and len(facts.record.classes) > MOST_CLASSES:
        places = [tuple(place) for place in np.argwhere(change != 0).tolist()]
        places.sort(key=lambda at: (-abs(int(change[at])), at))
        names = facts.record.classes
        cells = tuple(
            (names[t], names[a], str(fp32.counts[t][a]), str(one.counts[t][a]), _signed(int(change[t, a])))
            for t, a in places[:MOST_CELLS]
        )
        return ConfusionOf(one.variant, moved, (), cells, len(places) - len(cells))
    matrices = (
        _matrix(facts, "fp32", fp32.counts, signed=False),
        _matrix(facts, one.variant, one.counts, signed=False),
        _matrix(facts, f"{one.variant} − fp32", one.minus_fp32 or (), signed=True),
    )
    return ConfusionOf(one.variant, moved, matrices, (), 0)


def _matrix(facts: Facts, caption: str, counts: Sequence[Sequence[int]], *, signed: bool) -> Matrix:
    labels = facts.task == "multi_label"
    columns = ("true no", "false yes", "false no", "true yes") if labels else facts.record.classes
    highest = max((abs(count) for row in counts for count in row), default=0)
    rows = []
    for at, (name, row) in enumerate(zip(facts.record.classes, counts, strict=False)):
        whole = highest if signed else max(sum(row), 1)
        cells = tuple(
            MatrixCell(
                _signed(count) if signed else str(count),
                min(9, -(-9 * abs(count) // max(whole, 1))),
                (place in (0, 3)) if labels else place == at,
            )
            for place, count in enumerate(row)
        )
        rows.append((name, cells))
    return Matrix(caption, columns, tuple(rows))


def _signed(count: int) -> str:
    return "·" if count == 0 else f"{count:+d}".replace("-", "−")
