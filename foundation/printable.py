"""Texts from elsewhere made fit to be shown: names of files and tensors, cells of tables, keys of metadata.

Such a text can hold what commands a terminal (ESC and its kin), turns the direction in which it is read, or is no
character at all (half of one, in a name that is no UTF-8). Here it becomes its escape, and stays the same otherwise.
"""

from __future__ import annotations

import re

_HIDDEN = (
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
"""Marks of direction, ends of lines that no editor shows, and characters without a width."""
_COMMANDS = f"\x7f-\x9f\ud800-\udfff{_HIDDEN}"
_IN_A_LINE = re.compile(f"[\x00-\x1f{_COMMANDS}]")
_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_COMMANDS}]")
_IN_JSON = re.compile(f"[{_COMMANDS}]")  # json escapes the others


def printable(text: str) -> str:
    r"""Return a text that stays in its line and commands nothing: ESC becomes `\x1b`."""
    return _IN_A_LINE.sub(_escape, text)


def printable_lines(text: str) -> str:
    r"""Return a text of several lines that commands nothing; tabs and ends of lines (`\n`) stay."""
    return _IN_LINES.sub(_escape, text)


def printable_json(text: str) -> str:
    """Return JSON that says the same and commands no terminal that it is shown on."""
    return _IN_JSON.sub(_json_escape, text)


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters; what is left out of its middle is marked."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]} […] {text[len(text) - (most // 4 - 5) :]}"


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
