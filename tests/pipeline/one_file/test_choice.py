"""Which file is kept, from measurements that are planted: none of these tests looks at a clock."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.one_file.agreement import Agreement
from pipeline.one_file.choice import Candidate, Choice, choose
from pipeline.one_file.speed import Speed, speed_of

SOURCE_BYTES = 1000
LIMIT = 0.97
UNTIMED = Speed(None, None, 0, "it hung")


def candidate(
    method: str,
    ratio: float | Speed = 1.0,
    size: int = 300,
    same: float | None = 1.0,
    sqnr: float | None = 30.0,
    spread: float = 0.01,
    worst_db: float = 40.0,
) -> Candidate:
    """Return a file that is so many times as fast as the float file, in three processes that differ by a spread."""
    speed = (
        ratio if isinstance(ratio, Speed) else speed_of(np.log([ratio * (1 - spread), ratio, ratio * (1 + spread)]))
    )
    return Candidate(method, size, speed, Agreement(100, same, None, sqnr, {"answers": worst_db, "equal": None}))


def chosen(*candidates: Candidate) -> Choice:
    return choose(candidates, SOURCE_BYTES, LIMIT)


def test_the_fastest_is_kept_whatever_its_decibels() -> None:
    found = chosen(candidate("static", 2.0, sqnr=18), candidate("dynamic", 1.3, sqnr=37), candidate("weight-only"))
    assert (found.chosen, found.why) == ("static", "the fastest")
    assert found.why_not == {"dynamic": "not as fast", "weight-only": "not as fast"}


@pytest.mark.parametrize(("dynamic", "keeps"), [(1.98, "dynamic"), (2.02, "dynamic"), (1.8, "static")])
def test_of_files_that_are_as_fast_the_nearer_one_is_kept(dynamic: float, keeps: str) -> None:
    """A spread of 1 % is ±2.5 % of each file and ±5 % of their ratio, by t with two degrees of freedom."""
    found = chosen(
        candidate("static", 2.0, sqnr=18),
        candidate("dynamic", speed_of(np.log([dynamic * 1.01, dynamic, dynamic * 0.99])), sqnr=37),
    )
    assert found.chosen == keeps
    if dynamic == 1.98:
        assert found.why == "as fast as static, and nearer to the float file"
        assert found.why_not == {"static": "as fast, but no nearer to float"}


def test_what_slowed_a_process_down_for_all_files_tells_none_apart_from_another() -> None:
    """The float file's own jumps widen both intervals alike; process by process one file is 3 % faster."""
    jumps = np.array([0.9, 1.0, 1.1])
    found = chosen(
        candidate("static", speed_of(np.log(2.0 * jumps)), sqnr=18),
        candidate("dynamic", speed_of(np.log(2.0 * jumps / 1.03)), sqnr=37),
    )
    assert found.chosen == "static"
    assert found.why_not == {"dynamic": "not as fast"}


def test_a_faster_file_that_answers_otherwise_is_not_kept() -> None:
    found = chosen(candidate("static", 3.0, same=0.96), candidate("dynamic", 1.2, same=0.97))
    assert found.chosen == "dynamic"
    assert found.misses == {"static": {"agreement": pytest.approx(0.01)}, "dynamic": {}}
    assert found.why_not == {"static": "answers otherwise"}


def test_a_faster_file_that_is_larger_or_loses_an_output_is_not_kept() -> None:
    found = chosen(
        candidate("static", 3.0, worst_db=9.0), candidate("dynamic", 2.0, size=1001), candidate("weight-only", 1.2)
    )
    assert found.chosen == "weight-only"
    assert found.misses["static"] == {"outputs_db": 1.0}
    assert found.misses["dynamic"] == {"size": pytest.approx(0.001)}


def test_a_file_whose_interval_holds_one_is_not_fast_however_high_its_mean() -> None:
    found = chosen(candidate("static", 1.5, spread=0.3), candidate("dynamic", 1.1))
    assert found.chosen == "dynamic"
    assert found.why_not == {"static": "not as fast"}


def test_where_none_is_faster_it_is_the_smallest_that_is_not_slower() -> None:
    found = chosen(
        candidate("static", 0.8, size=200),
        candidate("dynamic", 1.0, size=300),
        candidate("weight-only", 0.99, size=280),
    )
    assert (found.chosen, found.why) == ("weight-only", "the smallest that is not slower, since none is faster")
    assert found.misses["static"] == {"speed": pytest.approx(0.2, abs=1e-4)}
    assert found.why_not == {"static": "slower", "dynamic": "not as small"}


@pytest.mark.parametrize(("size", "keeps"), [(1000, "dynamic"), (1010, "weight-only"), (1011, "dynamic")])
def test_for_one_per_cent_of_the_size_no_decibel_is_given_up(size: int, keeps: str) -> None:
    nearer = candidate("weight-only", size=size, sqnr=38 if size > 1000 else 36)
    assert choose([candidate("dynamic", size=1000, sqnr=37), nearer], 2000, LIMIT).chosen == keeps


def test_a_file_that_could_not_be_timed_gives_way_to_one_that_could() -> None:
    found = chosen(candidate("static", UNTIMED, size=100), candidate("dynamic", 1.0, size=300))
    assert found.chosen == "dynamic"
    assert found.why_not == {"static": "not timed: it hung"}
    assert chosen(candidate("static", UNTIMED, size=300), candidate("dynamic", UNTIMED, size=100)).chosen == "dynamic"


def test_where_none_fits_the_one_whose_worst_miss_is_least_is_kept_and_says_so() -> None:
    found = chosen(
        candidate("static", 2.0, same=0.90),  # by 7 points
        candidate("dynamic", 0.6, size=900),  # by 40 %
        candidate("weight-only", 1.0, size=1030),  # by 3 %
    )
    assert found.chosen == "weight-only"
    assert found.why == "none fits; it comes nearest, and misses size by 3.0 %"
    assert found.misses["weight-only"] == {"size": pytest.approx(0.03)}
    decibels = chosen(candidate("static", 1.0, worst_db=9.8), candidate("dynamic", 1.0, same=0.94))
    assert decibels.chosen == "static"  # 0.2 of 10 dB are 2 %, less than 3 points
    assert decibels.why.endswith("misses an output's SQNR by 0.20 dB")


def test_of_files_that_come_as_near_the_fastest_is_kept() -> None:
    found = chosen(
        candidate("static", 0.97, same=0.40, sqnr=5),
        candidate("dynamic", 1.8, same=0.93, sqnr=32),
        candidate("weight-only", 1.0, same=0.93, sqnr=34),
    )
    assert found.chosen == "dynamic"
    assert found.why == "none fits; it comes nearest, and misses agreement by 4.0 points"
    assert found.why_not["weight-only"] == "answers otherwise"


def test_models_with_one_answer_or_with_class_numbers_are_judged_by_what_they_have() -> None:
    one_answer = chosen(candidate("static", 2.0, same=None, sqnr=30), candidate("dynamic", 2.0, same=None, sqnr=40))
    assert one_answer.chosen == "dynamic"
    labels = chosen(candidate("static", 2.0, same=0.98, sqnr=None), candidate("dynamic", 2.0, same=0.99, sqnr=None))
    assert labels.chosen == "dynamic"
