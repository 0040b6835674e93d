"""Copies that the hash finds, copies that only embeddings find, and none where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe import audit_duplicates
from archiveprobe.probe.audit_duplicates import (
    BYTES,
    EMBEDDINGS,
    HASH,
    copy_threshold,
    find_duplicates,
    near_pairs,
)
from archiveprobe.probe.audit_rows import cached_backbones, gather, unit_embeddings


def groups_of(task):
    dataset = load_dataset(task)
    rows = gather(dataset)
    names = list(cached_backbones(dataset))
    return find_duplicates(rows, unit_embeddings(dataset, names, np.arange(len(rows))))


def test_distinct_pictures_have_no_groups(archive, draw, tmp_path):
    task = archive(tmp_path, [*draw(80), *draw(40, [None], prefix="t", seed=1)])
    found = groups_of(task)
    assert found.groups == ()
    assert found.number.tolist() == [*range(120)]


def test_every_kind_of_copy_is_found_and_named(archive, draw, copy_of, tmp_path):
    pictures = draw(90)
    equal = replace(pictures[1], id="equal.jpg", content=pictures[1].id.encode())
    recoded = copy_of(pictures[2], "recoded.jpg", "intact")
    mirrored = copy_of(pictures[4], "mirrored.jpg", None, bits=32)
    relabelled = copy_of(pictures[6], "relabelled.jpg", "destroyed", bits=32)
    task = archive(tmp_path, [*pictures, equal, recoded, mirrored, relabelled])
    found = {one.ids: one for one in groups_of(task).groups}
    assert {ids: one.found_by for ids, one in found.items()} == {
        ("p001.jpg", "equal.jpg"): BYTES,
        ("p002.jpg", "recoded.jpg"): HASH,
        ("p004.jpg", "mirrored.jpg"): EMBEDDINGS,
        ("p006.jpg", "relabelled.jpg"): EMBEDDINGS,
    }
    assert [one.ids[1] for one in found.values() if one.straddles] == ["mirrored.jpg"]
    assert [one.ids[1] for one in found.values() if one.conflicting] == ["relabelled.jpg"]


def test_groups_hold_across_backbones(archive, draw, copy_of, tmp_path):
    pictures = draw(90)
    cropped = copy_of(pictures[0], "cropped.jpg", "intact", bits=32)
    task = archive(tmp_path, [*pictures, cropped], backbones=("hog", "other"))
    assert [one.ids for one in groups_of(task).groups] == [("p000.jpg", "cropped.jpg")]


def test_blank_pictures_are_not_copies(archive, draw, tmp_path):
    pictures = draw(60)
    for one in pictures[:5]:
        one.embedding = np.ones(24)
        one.seen = {"status": "blank"}
    assert groups_of(archive(tmp_path, pictures)).groups == ()


def test_a_picture_without_an_embedding_is_compared_by_hash(archive, draw, copy_of, tmp_path):
    pictures = draw(60)
    copy = copy_of(pictures[0], "copy.jpg", "intact")
    lost = copy_of(pictures[2], "lost.jpg", "intact", bits=32)
    lost.seen["status"] = "truncated"
    found = groups_of(archive(tmp_path, [*pictures, copy, lost])).groups
    assert [one.ids for one in found] == [("p000.jpg", "copy.jpg")]


def test_few_rows_are_compared_by_hash_alone(archive, draw, copy_of, tmp_path):
    pictures = draw(10)
    copies = [copy_of(pictures[0], "a.jpg", "intact"), copy_of(pictures[2], "b.jpg", None, bits=32)]
    found = groups_of(archive(tmp_path, [*pictures, *copies]))
    assert found.threshold is None
    assert [one.ids for one in found.groups] == [("p000.jpg", "a.jpg")]


def test_the_threshold_follows_the_embeddings() -> None:
    rng = np.random.default_rng(0)

    def unit(width, common):
        x = rng.normal(size=(500, width)) + common * rng.normal(size=width)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    spread, close = copy_threshold(unit(64, 0.0)), copy_threshold(unit(64, 1.5))
    assert spread is not None
    assert close is not None
    assert audit_duplicates._LOWEST <= spread < close <= audit_duplicates._HIGHEST


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 1000))
def test_blocks_join_what_a_whole_matrix_joins(count, copies, seed) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5))
    x = np.concatenate([x, *(x[:copies] + 0.01 * rng.normal(size=(min(copies, count), 5)),) * 2])
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def joined(pairs):
        return audit_duplicates._components(len(x), *pairs).tolist()

    wanted = joined(np.nonzero(np.triu(x @ x.T, 1) >= 0.95))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_duplicates, "_COSINES", 64)
        patch.setattr(audit_duplicates, "_PAIRS", 3)
        assert joined(near_pairs(x, 0.95)) == wanted


def test_strangers_that_the_hash_joins_are_no_copies_but_share_a_fold(archive, draw, tmp_path):
    pictures = draw(80)
    pictures[7].seen["phash"] = pictures[3].seen["phash"]
    pictures[7].embedding = -pictures[3].embedding
    found = groups_of(archive(tmp_path, pictures))
    assert found.groups == ()
    assert found.number[7] == found.number[3]
