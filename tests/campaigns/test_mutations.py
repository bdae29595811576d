"""A little of the mutation campaign, and every find of the large one; `make campaign` reads a hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns.mutations import Place, content_of, run
from campaigns.mutations_targets import TARGETS, WHOLE

MUTANTS, DEAR_MUTANTS, SEED = 60, 25, 1
FINDS = sorted((Path(__file__).parent / "regressions").glob("*.bin"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # given back afterwards, whatever a place sets
    return lambda name: Place(name, tmp_path)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.guarded])
def test_damaged_files_are_values_or_sentences(place, name):
    here = place(name)
    assert here.read(here.seeds[0], 1)[0] == "accepted"
    found, mutants = [], set()
    for number in range(DEAR_MUTANTS if TARGETS[name].dear else MUTANTS):
        mutants.add(content := content_of(name, SEED, number, here.seeds))
        kind, text = here.read(content, number)
        if kind not in ("accepted", "sentence"):
            found.append(f"--target {name} --seed {SEED} --index {number}: {text}")
    assert not found
    assert len(mutants - set(here.seeds)) > number * 0.7
    assert content == content_of(name, SEED, number, here.seeds)


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.guarded])
def test_damaged_models_leave_a_guarded_process_alive_and_small(name):
    outcome = run(name, SEED, 0, DEAR_MUTANTS)
    assert outcome.clean
    assert outcome.kinds.total() == DEAR_MUTANTS
    assert outcome.kinds["sentence"] > DEAR_MUTANTS // 2
    assert outcome.peak_mb < 2000


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_models_go_through_the_real_child(name):
    outcome = run(name, SEED, 0, 3)
    assert outcome.clean
    assert outcome.kinds.total() == 3


@pytest.mark.parametrize("find", FINDS, ids=lambda path: path.stem)
def test_what_was_once_found_stays_mended(place, find):
    kind, text = place(find.name.partition("--")[0]).read(find.read_bytes(), 1)
    assert kind in ("accepted", "sentence"), text


def test_a_sentence_that_commands_the_terminal_or_floods_it_counts_as_found():
    from campaigns.mutations import _judged

    assert _judged("x.png: expected an image, found none. Give one.")[0] == "sentence"
    assert _judged("x\x1b[2J.png: expected an image, found none.")[0] == "unexpected"
    assert _judged("\u202egnp.x: expected an image, found none.")[0] == "unexpected"
    assert _judged("expected an image, found " + "x" * 5000)[0] == "unexpected"
    assert _judged("list index out of range")[0] == "unexpected"
