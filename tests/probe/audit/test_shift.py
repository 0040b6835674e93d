"""The rows to predict against the labelled ones: told apart, alike, too few, none."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe.audit import shift
from archiveprobe.probe.audit.data import AuditData
from archiveprobe.probe.audit.shift import (
    CAUTION,
    PropertyShift,
    Shift,
    auc_interval,
    find_shift,
    shift_file,
)


@pytest.fixture
def like(archive, draw, tmp_path):
    """A task whose rows to predict come from the same source."""
    images = draw(200)
    for image in images[::4]:
        image.label = None
    return archive(tmp_path, images)


def other_source(archive, draw, folder, **change):
    strangers = draw(60, [None], prefix="t", seed=5)
    for image in strangers:
        image.seen |= change
    return archive(folder, [*draw(150), *strangers])


def test_one_source_gives_no_warning(like):
    found = find_shift(load_dataset(like))
    assert found.low < 0.5 < found.high
    assert not found.noticeable
    assert found.warning is None
    assert found.caution == 1.0
    assert found.properties == ()


@pytest.mark.proves("data")
def test_another_source_is_told_by_its_files(archive, draw, tmp_path):
    found = find_shift(
        load_dataset(other_source(archive, draw, tmp_path, bytes=5_000, format="WEBP"))
    )
    assert found.auc > 0.95
    assert found.files > 0.95
    assert {row.name for row in found.properties[:3]} >= {"bytes", "format WEBP"}
    bytes_ = next(row for row in found.properties if row.name == "bytes")
    assert bytes_.to_predict == 5_000 < bytes_.labelled
    assert found.caution == CAUTION
    assert f"AUC {found.auc:.3f}" in found.warning
    assert "may not hold" in found.warning


def test_another_source_is_told_by_its_images(archive, draw, tmp_path):
    strangers = draw(60, [None], prefix="t", seed=5)
    for image in strangers:
        image.embedding[10:] += 1.5
    found = find_shift(load_dataset(archive(tmp_path, [*draw(150), *strangers])))
    assert found.auc > 0.95
    assert found.images > 0.95
    assert found.files < 0.75
    assert found.properties == ()


def test_copies_across_the_split_are_held_out_together(archive, draw, copy_of, tmp_path):
    """Else a classifier would know the side of a image by the copy that it was trained on."""
    images = draw(100)
    own = [copy_of(images[0], f"own{at}.jpg", "intact", bits=1) for at in range(40)]
    task = archive(tmp_path, [*images, *own, *draw(100, [None], prefix="t", seed=3)])
    assert find_shift(load_dataset(task)).low < 0.6


def test_nothing_to_predict(archive, draw, tmp_path):
    found = find_shift(load_dataset(archive(tmp_path, draw(40))))
    assert found == Shift()
    assert found.record() == {
        "auc": None,
        "low": None,
        "high": None,
        "images": None,
        "files": None,
        "properties": [],
    }


def test_a_handful_to_predict_tells_nothing(archive, draw, tmp_path):
    task = archive(tmp_path, [*draw(60), *draw(5, [None], prefix="t", seed=1)])
    assert find_shift(load_dataset(task)) == Shift()


def test_no_observation_of_the_files(archive, draw, tmp_path):
    images = [*draw(60), *draw(30, [None], prefix="t", seed=1)]
    for image in images:
        image.seen = {}
    found = find_shift(load_dataset(archive(tmp_path, images)))
    assert found.files is None
    assert found.auc is not None


@pytest.fixture
def calls(monkeypatch):
    """Counts how often a shift is measured, which always gives the same."""
    calls = []
    row = PropertyShift("bytes", 0.7, 1.0, 2.0)
    result = Shift(0.7, 0.65, 0.75, 0.6, 0.7, (row,))
    monkeypatch.setattr(shift, "measure_shift", lambda data: calls.append(1) or result)
    return calls


def test_it_is_kept_until_the_rows_change(like, archive, draw, tmp_path, calls):
    first = find_shift(load_dataset(like))
    assert find_shift(load_dataset(like)) == first
    assert len(calls) == 1
    images = draw(200)
    for image in images[::5]:
        image.label = None
    (tmp_path / "work/folds.csv").unlink()
    find_shift(load_dataset(archive(tmp_path, images)))
    assert len(calls) == 2


def test_what_was_changed_is_measured_again(like, calls):
    first = find_shift(load_dataset(like))
    content = json.loads(shift_file(like).read_text())
    content["shift"]["auc"] = 0.99
    for damaged in (json.dumps(content), "{"):
        shift_file(like).write_text(damaged)
        assert find_shift(load_dataset(like)) == first
    assert len(calls) == 3


def test_many_rows_are_sampled(like, monkeypatch):
    monkeypatch.setattr(shift, "_MOST_ROWS", 30)
    seen = []
    read = AuditData.unit_embeddings
    monkeypatch.setattr(
        AuditData, "unit_embeddings", lambda data, places: seen.append(places) or read(data, places)
    )
    assert find_shift(load_dataset(like)).auc is not None
    labelled = len(load_dataset(like))
    assert [int((seen[0] < labelled).sum()), int((seen[0] >= labelled).sum())] == [30, 30]
    assert len(np.unique(seen[0])) == 60


def test_the_auc_is_scikit_learns_and_groups_widen_its_interval():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    score = (0.8 * y + rng.normal(size=400)).round(1)
    auc, low, high = auc_interval(y, score, np.arange(400))
    assert auc == pytest.approx(roc_auc_score(y, score))
    # The error of an AUC (Hanley and McNeil, 1982) at twice the reach of 97.5 %.
    q = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = np.sqrt((auc * (1 - auc) + 199 * (sum(q) - 2 * auc**2)) / 200**2)
    assert high - low == pytest.approx(2 * 2.241 * error, rel=0.1)
    copies = [np.tile(values, 4) for values in (y, score, np.arange(400))]
    assert auc_interval(*copies) == pytest.approx((auc, low, high), abs=1e-9)
