"""Numbers as a reader sees them: rounded, with a unit, and never rounded to a claim that is not exactly true."""

from __future__ import annotations

from collections.abc import Callable, Mapping

NOT_MEASURED = "not measured"
NO_BREAK = "\N{NO-BREAK SPACE}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with one decimal; "0 %" and "100 %" only when exactly true."""
    return f"{_percent_digits(fraction)}{NARROW}%"


def score(value: float) -> str:
    """Return a dimensionless score with three decimals, up to five close to ±1; 0 and ±1 only when exactly true."""
    if value in (0.0, 1.0, -1.0):
        return f"{value:.0f}".replace("-", "−")
    if abs(value) < 0.0005:
        return "< 0.001" if value > 0 else "> −0.001"
    sign = "−" if value < 0 else ""
    if abs(value) > 1:
        return f"{sign}{abs(value):.3f}"
    for decimals in (3, 4, 5):
        shown = f"{abs(value):.{decimals}f}"
        if float(shown) < 1:
            return sign + shown
    return "> 0.99999" if value > 0 else "< −0.99999"


def equation(symbol: str, value: float) -> str:
    """Return a score with its symbol: "ρ = 0.971", or "ρ > 0.99999" where its decimals do not tell it from 1."""
    told = score(value)
    return f"{symbol} {told}" if told[0] in "<>" else f"{symbol} = {told}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits and no exponent, for example 0.0123, 4.56 or 1230."""
    if value == 0:
        return "0"
    import math

    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{rounded:.{decimals}f}".replace("-", "−")


def plain(value: float) -> str:
    """Return a number without a unit as it was set, with at most four significant digits."""
    return f"{value:.4g}".replace("-", "−")


def size(count: float) -> str:
    """Return a number of bytes as bytes, KiB or MiB."""
    if count < 1024:
        return f"{count:.0f}{NO_BREAK}bytes"
    if count < 1024**2:
        return f"{significant(count / 1024)}{NO_BREAK}KiB"
    return f"{significant(count / 1024**2)}{NO_BREAK}MiB"


def milliseconds(value: float) -> str:
    """Return a time in milliseconds with three significant digits."""
    return f"{significant(value)}{NO_BREAK}ms"


def decibels(value: float) -> str:
    """Return a level in decibels with one decimal."""
    return f"{value:.1f}{NO_BREAK}dB".replace("-", "−")


def times(value: float) -> str:
    """Return a ratio such as a speed-up: "3.14×"."""
    return f"{significant(value)}×"


def seconds(value: float) -> str:
    """Return a duration: "0.31 s", "42 s" or "3 min 5 s"."""
    if value >= 60:
        whole = round(value)
        return f"{whole // 60}{NO_BREAK}min {whole % 60}{NO_BREAK}s"
    return f"{significant(value, 2)}{NO_BREAK}s"


UNITS: Mapping[str, Callable[[float], str]] = {
    "share": percent,
    "correlation": score,
    "similarity": score,
    "probability": score,
    "squared distance": score,
    "×": times,
    "ratio": significant,
    "log-odds": score,
    "bytes": size,
    "ms": milliseconds,
    "s": seconds,
    "dB": decibels,
}
"""How a value of each unit is written; a measurement brings its own unit."""


UNIT_WORDS: Mapping[str, str] = {
    "probability": "",
    "squared distance": "",
    "correlation": "",
    "similarity": "",
    "ratio": "",
    "log-odds": "",
}
"""What stands behind a difference; "" where the number has no unit."""


def with_unit(value: float, unit: str) -> str:
    """Return a measured value in its unit; a unit that is not in `UNITS` is written behind the number."""
    if unit in UNITS:
        return UNITS[unit](value)
    return f"{significant(value)}{NO_BREAK}{unit}"


def interval(low: float, high: float, unit: str) -> str:
    """Return a 95 % interval: "91.0–95.9 %", the unit written once."""
    if unit == "share":
        return f"{_percent_digits(low)}–{_percent_digits(high)}{NARROW}%"
    first, last = with_unit(low, unit), with_unit(high, unit)
    number, separator, symbol = first.rpartition(NO_BREAK)
    if separator and last.endswith(NO_BREAK + symbol):
        first = number
    elif first.endswith("×"):
        first = first[:-1]
    return f"{first}{' to ' if '−' in first + last else '–'}{last}"


def change(value: float, ci95: tuple[float, float] | None, unit: str) -> str:
    """Return a difference from fp32 with its sign and interval: "−0.8 points against fp32 (−1.9 to +0.3)"."""
    within = f"({signed_interval(ci95, unit)})" if ci95 else "(no interval)"
    return f"{signed(value, unit)} against fp32 {within}"


def signed(value: float, unit: str, with_word: bool = True) -> str:
    """Return a difference with its sign: "−0.8 points", "+0.013"; the unit's word may be left to its context."""
    factor, word = (100.0, "points") if unit == "share" else (1.0, UNIT_WORDS.get(unit, unit))
    digits = 1 if factor > 1 or unit == "dB" else 3
    shown = f"{factor * value:+.{digits}f}".replace("-", "−")
    if float(shown.replace("−", "-")) == 0.0:
        shown = f"{0:.{digits}f}"  # a rounded nothing has no sign
    return f"{shown} {word}" if word and with_word else shown


def signed_interval(ci95: tuple[float, float], unit: str) -> str:
    """Return the interval of a difference: "−1.9 to +0.3", its unit left to the number before it."""
    low, high = (signed(one, unit, with_word=False) for one in ci95)
    return f"{low} to {high}"


def speedup_in_words(ci95: tuple[float, float] | None) -> str:
    """Return what a speed-up's interval allows to be said; one that holds 1 tells the two files not apart."""
    if ci95 is None:
        return "no interval"
    low, high = ci95
    if low > 1:
        return "faster"
    if high < 1:
        return "slower"
    return "not distinguishable"


def p_value(value: float) -> str:
    """Return a p as journals write it: "p = .03", "p < .001"."""
    if value < 0.001:
        return "p < .001"
    return f"p = {value:.2g}".replace("0.", ".", 1)


def count(number: int, singular: str, plural: str = "") -> str:
    """Return "1 gate", "2 gates"."""
    return f"{number:,}{NO_BREAK}{singular if number == 1 else plural or singular + 's'}".replace(",", NARROW)


def short_hash(sha256: str | None) -> str:
    """Return the first twelve digits of a sha256; "none" where there is none."""
    return sha256[:12] if sha256 else "none"


def _percent_digits(fraction: float) -> str:
    if fraction in (0.0, 1.0):
        return f"{fraction * 100:.0f}"
    if 0 < fraction < 0.0005:
        return "< 0.1"
    shown = min(fraction * 100, 99.9) if fraction < 1 else fraction * 100
    return f"{shown:.1f}".replace("-", "−")
