"""The page on places: its commands exist with their options, its configuration is one, its table is the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from foundation.errors import UsageError
from pipeline.cli import app
from pipeline.configuration_file import parse_configuration
from stages.validate.places import PLACES
from stages.validate.places.node import PACKAGE as NODE_PACKAGE
from stages.validate.places.wasm import PACKAGE as WASM_PACKAGE

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "places.md").read_text(encoding="utf-8")
(SHELL,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(YAML,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for line in SHELL.splitlines()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_its_commands_are_accepted(words: list[str]) -> None:
    assert words[0] == "edgeproof"
    command = get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    context = command.make_context(words[1], words[2:])
    on = context.params.get("on")
    assert on is None or set(on.split(",")) <= set(PLACES)
    assert set(context.params.get("install") or ()) <= set(PLACES)


def test_its_configuration_is_one() -> None:
    values = yaml.safe_load(YAML)
    whole = {
        "name": "places", "data": {"source": {"name": "digits"}}, "variants": {"static-int8": {"method": "static"}},
        "train": {"network": "cnn-small", "pact": None}, **values,
    }  # fmt: skip
    configuration = parse_configuration(whole, "places.md", Path.cwd())
    assert configuration.validation.places.at == ("x86-avx2", "arm64", "wasm")
    assert [gate.place for gate in configuration.gates] == ["x86-avx2", "arm64"]


def test_a_gate_on_a_place_that_nobody_asks_is_refused_and_one_on_a_device_is_not() -> None:
    values = {"name": "places", "data": {"source": {"name": "digits"}}, "train": {"network": "cnn-small"}}
    gate = {"metric": "place_agreement", "variant": "fp32", "at_least": 0.9}
    with pytest.raises(UsageError, match=r"names the place 'arm64', and validation\.places\.at lacks it"):
        parse_configuration({**values, "gates": [{**gate, "place": "arm64"}]}, "places.md", Path.cwd())
    parse_configuration({**values, "gates": [{**gate, "place": "phone-7"}]}, "places.md", Path.cwd())


def test_its_table_names_every_place_and_the_versions_that_are_pinned() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.split("## What is measured")[0], re.MULTILINE)
    assert rows == list(PLACES)
    for package in (NODE_PACKAGE, WASM_PACKAGE):
        name, version = package.split("@")
        assert f"{name} {version}" in PAGE
