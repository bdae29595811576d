from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import formats


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.99999, "99.9 %"),
        (0.0001, "< 0.1 %"),
        (0.8756, "87.6 %"),
        (-0.0125, "−1.2 %"),
    ],
)
def test_percent_rounds_to_one_decimal(fraction: float, shown: str) -> None:
    assert formats.percent(fraction).replace(formats.NARROW, " ") == shown


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_percent_says_0_and_100_only_when_exactly_true(fraction: float) -> None:
    assert formats.percent(fraction) not in (formats.percent(0.0), formats.percent(1.0))


@given(st.floats(min_value=-1, max_value=1, exclude_min=True, exclude_max=True).filter(bool))
def test_score_says_0_and_1_only_when_exactly_true(value: float) -> None:
    assert formats.score(value) not in ("0", "1", "−1", "0.000", "−0.000", "1.000", "−1.000")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.9994, "0.999"), (0.9996, "0.9996"), (-0.99998, "−0.99998"), (0.9999999, "> 0.99999"), (1.25, "1.250")],
)
def test_score_takes_more_decimals_close_to_1(value: float, shown: str) -> None:
    assert formats.score(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.012345, "0.0123"), (9.996, "10.00"), (123.4, "123"), (1234567.0, "1230000"), (-4.5, "−4.50")],
)
def test_significant_keeps_three_digits_and_writes_no_exponent(value: float, shown: str) -> None:
    assert formats.significant(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.00 KiB"), (318_226, "311 KiB"), (1_168_412, "1.11 MiB")],
)
def test_size_is_binary(count: int, shown: str) -> None:
    assert formats.size(count).replace(formats.NO_BREAK, " ") == shown


@pytest.mark.parametrize(
    ("low", "high", "unit", "shown"),
    [
        (0.9, 1.0, "share", "90.0–100 %"),
        (4.04, 4.2, "ms", "4.04–4.20 ms"),
        (1.66, 1.9, "×", "1.66–1.90×"),
        (-0.05, 0.02, "correlation", "−0.050 to 0.020"),
        (1000, 2048, "bytes", "1000 bytes–2.00 KiB"),
        (3.0, 5.0, "furlongs", "3.00–5.00 furlongs"),
    ],
)
def test_interval_writes_the_unit_once(low: float, high: float, unit: str, shown: str) -> None:
    plain = formats.interval(low, high, unit).replace(formats.NARROW, " ").replace(formats.NO_BREAK, " ")
    assert plain == shown


@pytest.mark.parametrize(
    ("ci95", "said"),
    [
        ((1.01, 1.2), "faster"),
        ((1.0, 1.2), "not distinguishable"),
        ((0.8, 1.0), "not distinguishable"),
        ((0.8, 0.99), "slower"),
        (None, "no interval"),
    ],
)
def test_speedup_is_called_faster_only_beyond_1(ci95: tuple[float, float] | None, said: str) -> None:
    assert formats.speedup_in_words(ci95) == said


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.97134, "ρ = 0.971"), (0.999999, "ρ > 0.99999"), (1.0, "ρ = 1"), (-0.9999999, "ρ < −0.99999")],
)
def test_a_correlation_with_its_symbol(value: float, told: str) -> None:
    assert formats.equation("ρ", value) == told
