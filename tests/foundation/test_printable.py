from __future__ import annotations

import json
import os

import pytest

from foundation.errors import LONGEST_MESSAGE, UsageError
from foundation.files import write_json
from foundation.printable import printable, printable_json, printable_lines, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Mädchen – 1 000 €.png", "Mädchen – 1 000 €.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\nb\tc", r"a\nb\tc"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\udce9.png"),
        ("\U000e0041", r"\U000e0041"),
        ("narrow\u202fspace\u00a0", "narrow\u202fspace\u00a0"),
    ],
)
def test_what_commands_a_terminal_is_shown_as_its_escape(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode()


def test_lines_stay_lines():
    assert printable_lines("a\n\tb\r\x1b") == "a\n\tb\\r\\x1b"


def test_json_says_the_same_and_is_written_whatever_a_name_holds(tmp_path):
    value = {"\x9b": "\u202e\U000e0041", "name": os.fsdecode(b"\xff"), "plain": "ä\n"}
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert text.isprintable()
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes()) == value


def test_an_error_neither_commands_nor_floods_a_terminal():
    error = UsageError(f"a\x1b]0;title\x07.png: expected text, found {'x' * 100_000}. Mend that.")
    assert str(error).startswith(r"a\x1b]0;title\x07.png: expected text, found xxx")
    assert str(error).endswith("xxx. Mend that.")
    assert len(str(error)) <= LONGEST_MESSAGE
    assert shortened("abc", 3) == "abc"
