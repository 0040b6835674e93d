"""Frames for notebooks of systems that vote, know more than two labels, or lack an embedding."""

from dataclasses import replace

import numpy as np
import pytest

import archiveprobe as ap
from archiveprobe.api.frames import oof_frame
from archiveprobe.api.state import pin
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.systems import load_system


def test_three_labels_have_a_column_each_and_no_threshold(fitted, fault_of) -> None:
    archive = fitted(labels=("intact", "damaged", "destroyed"))
    task = ap.open(archive.folder)
    oof = task.oof("greedy")
    columns = ["p_intact", "p_damaged", "p_destroyed"]
    np.testing.assert_allclose(oof[columns].sum(axis=1), 1)
    assert oof.label.cat.categories.tolist() == ["intact", "damaged", "destroyed"]
    right = [task.oof("greedy", repeat=repeat).correct.mean() for repeat in range(2)]
    board = task.leaderboard().set_index("system")
    assert board.accuracy["greedy"] == pytest.approx(np.mean(right))
    assert board.threshold.isna().all()
    fault_of(lambda: task.thresholds("greedy"), "greedy", "labels", "no threshold")


def test_a_vote_decides_by_its_votes(archive) -> None:
    task = ap.open(archive.folder)
    oof = task.oof("vote", repeat=0)
    members = [task.oof(f"{name}-hog", repeat=0).decision for name in ("ridge", "logistic", "lda")]
    votes = np.sum([member == "destroyed" for member in members], 0)
    readable = oof.p_intact.notna()
    assert readable.sum() == len(oof) - 1
    assert ((oof.decision == "destroyed") == (votes >= 2))[readable].all()
    answers = task.predict("vote")
    broken = answers.id.isin(["075.jpg", "080.jpg"])
    assert (answers.label.isna() == broken).all()
    assert (answers.status[broken] == "truncated").all()
    dataset = pin(archive.task).dataset
    assert dataset is not None
    known = load_system(dataset, "vote").answer(dataset.unlabelled)
    assert (answers.label.cat.codes[~broken] == known.decision[known.readable]).all()


def test_an_image_without_an_embedding_says_so(draw) -> None:
    archive = draw()
    archive.add_backbone("other", failed=(5, 90))
    task = ap.open(archive.folder)
    x = task.embeddings("other")
    assert np.flatnonzero(np.isnan(x).all(1)).tolist() == [5, 90]
    assert np.isfinite(task.embeddings("hog")).all()


def test_repeats_that_disagree_are_decided_at_the_threshold(archive) -> None:
    stored = load_run(archive.task, "ridge-hog").predictions()
    both = np.stack([np.zeros_like(stored.labels), np.ones_like(stored.labels)])
    mean = stored.oof[:2].mean(0)[:, stored.positive]
    halves = replace(stored, oof=stored.oof[:2], decision=both, threshold=float(np.nanmedian(mean)))
    decided = oof_frame(halves, None).decision == stored.classes[stored.positive]
    np.testing.assert_array_equal(decided, np.nan_to_num(mean) > halves.threshold)
    assert 0 < decided.sum() < len(decided)
