"""Every format under random bytes and under damage: content or one line, and never a wrong row."""

import contextlib

import cache_targets
import pytest
import task_targets
from hypothesis import given, settings
from hypothesis import strategies as st
from law import STEADY
from mutate import mutated
from targets import TARGETS

# Opening many small HDF5 files takes its time.
SLOW = {"commits", "failures", "fingerprint", "shard"}


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name, tmp_path, monkeypatch):
    for module in (task_targets, cache_targets):
        monkeypatch.setattr(module, "told", contextlib.nullcontext)
    target = TARGETS[name]
    assert target.seeds()
    for number, data in enumerate(target.seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        target.run(data, folder)


@pytest.mark.proves("tables")
@pytest.mark.parametrize("name", TARGETS)
def test_random_bytes(name, tmp_path):
    target = TARGETS[name]

    @settings(STEADY, max_examples=5 if name in SLOW else 30)
    @given(st.binary(max_size=300))
    def check(data):
        target.run(data, tmp_path)

    check()


@pytest.mark.proves("tables", "damage")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files(name, tmp_path):
    target = TARGETS[name]

    @settings(STEADY, max_examples=25 if name in SLOW else 100)
    @given(mutated(target.seeds(), target.words))
    def check(data):
        target.run(data, tmp_path)

    check()
