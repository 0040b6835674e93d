"""Copies that the hash finds, copies that only embeddings find, and none where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.evaluate import alike
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe.audit import duplicates
from archiveprobe.probe.audit.data import audit_data
from archiveprobe.probe.audit.duplicates import (
    BYTES,
    EMBEDDINGS,
    HASH,
    copy_threshold,
    find_duplicates,
    join_alike,
)
from archiveprobe.task.duplicates import join_groups


def groups_of(task):
    data = audit_data(load_dataset(task))
    return find_duplicates(data, data.unit_embeddings(np.arange(len(data))))


def test_distinct_images_have_no_groups(archive, draw, tmp_path):
    task = archive(tmp_path, [*draw(80), *draw(40, [None], prefix="t", seed=1)])
    found = groups_of(task)
    assert found.groups == ()
    assert found.number.tolist() == [*range(120)]


def test_every_kind_of_copy_is_found_and_named(archive, draw, copy_of, tmp_path):
    images = draw(90)
    equal = replace(images[1], id="equal.jpg", content=images[1].id.encode())
    recoded = copy_of(images[2], "recoded.jpg", "intact")
    mirrored = copy_of(images[4], "mirrored.jpg", None, bits=32)
    relabelled = copy_of(images[6], "relabelled.jpg", "destroyed", bits=32)
    task = archive(tmp_path, [*images, equal, recoded, mirrored, relabelled])
    found = {group.ids: group for group in groups_of(task).groups}
    assert {ids: group.found_by for ids, group in found.items()} == {
        ("p001.jpg", "equal.jpg"): BYTES,
        ("p002.jpg", "recoded.jpg"): HASH,
        ("p004.jpg", "mirrored.jpg"): EMBEDDINGS,
        ("p006.jpg", "relabelled.jpg"): EMBEDDINGS,
    }
    assert [group.ids[1] for group in found.values() if group.straddles] == ["mirrored.jpg"]
    assert [group.ids[1] for group in found.values() if group.conflicting] == ["relabelled.jpg"]


def test_groups_hold_across_backbones(archive, draw, copy_of, tmp_path):
    images = draw(90)
    cropped = copy_of(images[0], "cropped.jpg", "intact", bits=32)
    task = archive(tmp_path, [*images, cropped], backbones=("hog", "other"))
    assert [group.ids for group in groups_of(task).groups] == [("p000.jpg", "cropped.jpg")]


def test_blank_images_are_not_copies(archive, draw, tmp_path):
    images = draw(60)
    for image in images[:5]:
        image.embedding = np.ones(24)
        image.seen = {"status": "blank"}
    assert groups_of(archive(tmp_path, images)).groups == ()


def test_an_image_without_an_embedding_is_compared_by_hash(archive, draw, copy_of, tmp_path):
    images = draw(60)
    copy = copy_of(images[0], "copy.jpg", "intact")
    lost = copy_of(images[2], "lost.jpg", "intact", bits=32)
    lost.seen["status"] = "truncated"
    found = groups_of(archive(tmp_path, [*images, copy, lost])).groups
    assert [group.ids for group in found] == [("p000.jpg", "copy.jpg")]


def test_few_rows_are_compared_by_hash_alone(archive, draw, copy_of, tmp_path):
    images = draw(10)
    copies = [copy_of(images[0], "a.jpg", "intact"), copy_of(images[2], "b.jpg", None, bits=32)]
    found = groups_of(archive(tmp_path, [*images, *copies]))
    assert found.threshold is None
    assert [group.ids for group in found.groups] == [("p000.jpg", "a.jpg")]


def test_the_threshold_follows_the_embeddings() -> None:
    rng = np.random.default_rng(0)

    def unit(width, common):
        x = rng.normal(size=(500, width)) + common * rng.normal(size=width)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    spread, close = copy_threshold(unit(64, 0.0)), copy_threshold(unit(64, 1.5))
    assert spread is not None
    assert close is not None
    assert duplicates._LOWEST <= spread < close <= duplicates._HIGHEST


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 1000), st.integers(0, 3))
def test_blocks_join_what_a_whole_matrix_joins(count, copies, seed, axes) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5))
    x = np.concatenate([x, *(x[:copies] + 0.01 * rng.normal(size=(min(copies, count), 5)),) * 2])
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    count, rows = len(x) + 3, np.arange(len(x)) + 3
    # Rows 1 and 2 belong together for another reason, and are not compared.
    number = np.r_[0, 1, 1, np.arange(2, len(x) + 2)]
    heads, tails = np.nonzero(np.triu(x @ x.T, 1) >= 0.95)
    wanted = join_groups(number, rows[heads], rows[tails])
    assert wanted[1] == wanted[2] and len(wanted) == count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "HEADS", 7)
        patch.setattr(alike, "TAILS", 5)
        patch.setattr(alike, "_TILES", 2)
        if axes:
            # Many pairs reach the bound on few axes, and few on all three.
            patch.setattr(alike, "_FEW_ROWS", 0)
            patch.setattr(alike, "_AXES", (axes,))
            patch.setattr(alike, "_GATHERED", rng.choice([1, 50]))
        assert join_alike(x, 0.95, number, rows).tolist() == wanted.tolist()


def test_strangers_that_the_hash_joins_are_no_copies_but_share_a_fold(archive, draw, tmp_path):
    images = draw(80)
    images[7].seen["phash"] = images[3].seen["phash"]
    images[7].embedding = -images[3].embedding
    found = groups_of(archive(tmp_path, images))
    assert found.groups == ()
    assert found.number[7] == found.number[3]
