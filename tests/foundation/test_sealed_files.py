"""A sealed file: any byte of it that is changed is found, and the sentence names both digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.errors import UsageError
from foundation.files import sha256_of_json
from foundation.sealed_files import refuse_broken_seal, seal_fault, write_sealed

VALUES: dict[str, Any] = {"name": "müller", "rate": 1e-05, "empty": {}, "list": [1, 2.5, None, True], "text": "a\nb"}

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé\n"\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


def sealed(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "sealed.json"
    write_sealed(path, values)
    return path


def test_the_digest_is_that_of_everything_else_and_anybody_can_take_it(tmp_path: Path) -> None:
    written = json.loads(sealed(tmp_path, VALUES).read_text())
    assert written.pop("sha256") == sha256_of_json(VALUES)
    assert written == VALUES


def test_a_digest_that_the_values_hold_is_taken_anew(tmp_path: Path) -> None:
    content = sealed(tmp_path, {**VALUES, "sha256": "0" * 64}).read_bytes()
    assert seal_fault(content) is None
    assert content == sealed(tmp_path, VALUES).read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text("abcd", max_size=3), JSON_VALUES, max_size=4))
def test_what_was_written_is_intact(tmp_path: Path, values: dict[str, Any]) -> None:
    assert seal_fault(sealed(tmp_path, values).read_bytes()) is None


def test_every_single_changed_byte_is_found(tmp_path: Path) -> None:
    path = sealed(tmp_path, VALUES)
    content = path.read_bytes()
    for place in range(len(content)):
        for other in (content[place] ^ 1, content[place] ^ 32, 0x20, 0x30):
            if other == content[place]:
                continue
            path.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
            with pytest.raises(UsageError, match=r"sealed\.json: expected"):
                refuse_broken_seal(path, "Mend it.")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda text: text.replace("2.5", "9.5"), "expected sha256 [0-9a-f]{12} of its content, found [0-9a-f]{12}"),
        (
            lambda text: text.replace("  ", "   "),
            r"expected the layout .*, found another \(its content: [0-9a-f]{12}",
        ),
        (lambda text: text + " ", "expected the layout"),
        (lambda text: text.replace('"rate"', '"rate": 7, "rate"'), "expected the layout"),
        (lambda text: json.dumps(VALUES), "expected sha256 None of its content"),
        (lambda text: "[]", r"found another \(no object\)"),
        (lambda text: "{", "found another"),
        (lambda text: '{"a": NaN}', "found another"),
        (lambda text: "[" * 200_000, "found another"),
    ],
)
def test_the_sentence_says_what_was_expected_found_and_to_be_done(tmp_path: Path, content: Any, found: str) -> None:
    path = sealed(tmp_path, VALUES)
    path.write_text(content(path.read_text()))
    match = rf"sealed\.json: {found}.*\. The file was changed after it was written\. Mend it\.$"
    with pytest.raises(UsageError, match=match if found.startswith("expected") else found):
        refuse_broken_seal(path, "Mend it.")
